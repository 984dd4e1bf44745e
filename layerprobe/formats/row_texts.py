"""What goes with the values of rows: names, reasons, and what the list of inputs says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RowTexts:
    """What is said of consecutive rows beside their values."""

    keys: Sequence[str]
    """One for each row."""
    reasons: Mapping[int, str]
    """Place, from 0 -> why that row failed; every other row is "ok"."""
    fields: Sequence[str]
    """For each row the JSON text of an object, or ""."""


class RowsSaid(Protocol):
    """Who knows what is said of all rows of an output."""

    @property
    def rows(self) -> int | None:
        """N; None for a stream, where only its end tells."""
        ...

    def keys(self) -> Sequence[str]:
        """What the N rows are called; of a stream, those that came."""
        ...

    def texts(self, rows: range) -> RowTexts:
        """What is said of rows that were computed, whether they failed included."""
        ...
