"""Which `RowStream` takes the rows of a run whose output has no places for them, or not yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from layerprobe import registry
from layerprobe.formats.growing import GrowingRows, RowsInPlace
from layerprobe.formats.piping import STANDARD_OUTPUT
from layerprobe.formats.placement import resolved
from layerprobe.formats.sinks import FileSink, PipeSink

if TYPE_CHECKING:
    from layerprobe.protocols import RowStream
    from layerprobe.records import TensorSpec


def open_file_stream(
    path: str, file_format: str, layers: Sequence[TensorSpec], keys: Sequence[str] | None
) -> RowStream:
    """Begin a file, or folder, that has its name when all rows are in it.

    Args:
        path: Of the output.
        file_format: A name in `registry.STREAMS` or `registry.WRITERS`.
        layers: As for a writer.
        keys: What the N rows are called; None: that will be seen.
    """
    if file_format in registry.STREAMS:
        stream_class = registry.find(registry.STREAMS, file_format, "format")
        sink = FileSink(path, file_format)
        with ExitStack() as on_error:
            on_error.callback(sink.abort)
            stream: RowStream = stream_class(sink, layers)
            on_error.pop_all()
        return stream
    writer = registry.find(registry.WRITERS, file_format, "format")

    def place(keys: Sequence[str]) -> RowStream:
        return RowsInPlace(writer(path, layers, keys))

    return place(keys) if keys is not None else GrowingRows(path, os.path.dirname(resolved(path)), place)


def open_pipe_stream(
    pipe: IO[bytes], file_format: str, layers: Sequence[TensorSpec], keys: Sequence[str] | None
) -> RowStream:
    """Begin to pass rows on; as `open_file_stream`, for formats in `registry.STREAMS` or `registry.PIPES`.

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
    return GrowingRows(STANDARD_OUTPUT, None, place)
