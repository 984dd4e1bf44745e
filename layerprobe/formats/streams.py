"""Which `RowStream` passes the rows of a run on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from layerprobe import registry
from layerprobe.formats.growing import GrowingRows
from layerprobe.formats.piping import STANDARD_OUTPUT
from layerprobe.formats.sinks import PipeSink

if TYPE_CHECKING:
    from layerprobe.protocols import RowStream
    from layerprobe.records import TensorSpec


def open_pipe_stream(
    pipe: IO[bytes], file_format: str, layers: Sequence[TensorSpec], keys: Sequence[str] | None
) -> RowStream:
    """Begin to pass rows on.

    Args:
        pipe: What takes the bytes.
        file_format: A name in `registry.STREAMS` or `registry.PIPES`.
        layers: With every size known.
        keys: What the N rows are called; None: that will be seen.

    Raises:
        UsageError: The format cannot hold these layers.
    """
    sink = PipeSink(pipe)
    if file_format in registry.STREAMS:
        stream: RowStream = registry.find(registry.STREAMS, file_format, "format")(sink, layers)
        return stream
    pipe_class = registry.find(registry.PIPES, file_format, "format")

    def place(keys: Sequence[str]) -> RowStream:
        placed: RowStream = pipe_class(sink, layers, keys)
        return placed

    if keys is not None:
        return place(keys)
    if file_format == "npy":
        place([])  # so that too many layers are told before anything is computed
    return GrowingRows(STANDARD_OUTPUT, place)
