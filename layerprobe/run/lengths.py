"""How many rows sources have and what they are called, where that is known before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from layerprobe.columns import Column
from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from layerprobe.protocols import Source


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


def keys_of(source: Source) -> Iterable[str]:
    """What the samples are called, of a source that can be gone through again; nothing of a stream."""
    rows = length(source)
    if rows is None:
        return ()
    if not hasattr(source, "names"):
        return (sample.key for sample in source)
    return Column(rows, lambda start, stop: [key for key, _ in source.names(start, stop)])
