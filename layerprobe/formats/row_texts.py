"""What goes with the values of rows to an output that takes them one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowTexts:
    """What is said of consecutive rows beside their values."""

    keys: Sequence[str]
    """One for each row."""
    reasons: Mapping[int, str]
    """Place, from 0 -> why that row failed; every other row is "ok"."""
    fields: Sequence[str]
    """For each row the JSON text of an object, or ""."""
