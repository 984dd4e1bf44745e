"""How many rows sources have, where that is known before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.records import Sample


def check_equal_lengths(sources: Mapping[str, Source]) -> None:
    """Raise UsageError unless every input of the model has as many rows."""
    counts = {name: length(source) for name, source in sources.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(
            f"{name}: {'unknown' if count is None else count}" for name, count in counts.items()
        )
        raise UsageError(f"the model's inputs need equally many rows. Received: {listed}")


def length(source: Source) -> int | None:
    """N; None for a stream, where only reading to the end tells."""
    try:
        return len(source)
    except TypeError:
        return None


def again(source: Source) -> Iterable[Sample]:
    """The samples, of a source that can be gone through again; none of a stream."""
    return () if length(source) is None else source
