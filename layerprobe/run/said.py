"""What a run knows of its rows beside their values, for outputs that hold it as the rows come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerprobe.formats.row_texts import RowTexts

if TYPE_CHECKING:
    from layerprobe.run.failures import Failures
    from layerprobe.run.feeds import Feeds


class SaidOfRun:
    """See `formats/row_texts.py:RowsSaid`.

    Args:
        feeds: What the rows are called.
        failures: Which of them failed, as far as they were computed.
    """

    def __init__(self, feeds: Feeds, failures: Failures) -> None:
        self._feeds, self._failures = feeds, failures

    @property
    def rows(self) -> int | None:
        """N; None for a stream, where only its end tells."""
        return self._feeds.rows

    def keys(self) -> Sequence[str]:
        """What the N rows are called; of a stream, those that came."""
        return self._feeds.keys()

    def texts(self, rows: range) -> RowTexts:
        """What is said of rows that were computed, whether they failed included."""
        named = self._feeds.said(rows)
        reasons = self._failures.reasons(rows)
        return RowTexts([row.key for row in named], reasons, [row.fields for row in named])
