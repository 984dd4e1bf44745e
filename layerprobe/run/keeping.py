"""Which blocks of an earlier run are kept as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from layerprobe.run.batches import unchanged

if TYPE_CHECKING:
    from layerprobe.run.entries import Entry
    from layerprobe.run.failures import Failures
    from layerprobe.run.feeds import Feeds
    from layerprobe.run.journal import Journal


def kept_entries(
    feeds: Feeds, size: int, failures: Failures, journal: Journal, *, in_order: bool
) -> list[Entry]:
    """Say which blocks can be taken as they are, in the order of their rows.

    Not those of which a file was changed; and where more rows failed than the run may have, not those.

    Args:
        feeds: The run's inputs.
        size: B.
        failures: Of the run.
        journal: What an earlier run wrote; it forgets what is going to be written over.
        in_order: Rows come one after the other in the output, so that what is behind a gap is done again too.
    """
    if feeds.rows is None:
        # A stream shows what was changed only when it comes. And it may go on where it ended.
        kept = [entry for entry in journal.entries if not (entry.block.stop - entry.block.start) % size]
    else:
        kept = unchanged(feeds, size, journal.entries)
    if failures.too_many([failure for entry in kept for failure in entry.failures]):
        kept = [entry for entry in kept if not entry.failures]
    if in_order:
        kept = list(_without_gaps(kept))
    starts = {entry.block.start for entry in kept}
    journal.take_back([entry for entry in journal.entries if entry.block.start not in starts])
    return kept


def _without_gaps(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Give blocks from row 0 to the first gap."""
    end = 0
    for entry in entries:
        if entry.block.start != end:
            return
        yield entry
        end = entry.block.stop
