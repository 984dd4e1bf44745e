"""Which `Writer` an output gets: by its format, by whether it is compressed, and whether N is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from layerprobe import registry
from layerprobe.errors import UsageError
from layerprobe.formats.placement import spool_name, unfinished_name
from layerprobe.formats.sinks import FileSink
from layerprobe.formats.spooled import GrowingWriter
from layerprobe.records import WrittenBlock

if TYPE_CHECKING:
    from layerprobe.formats.row_texts import RowsSaid
    from layerprobe.protocols import FileStream, Writer
    from layerprobe.records import Array, Provenance, TensorSpec


def open_writer(
    path: str,
    file_format: str,
    layers: Sequence[TensorSpec],
    said: RowsSaid,
    *,
    compress: str | None = None,
    batch_size: int = 1,
    resume: Mapping[str, int] | None = None,
) -> Writer:
    """Begin a file, or folder, that has its name when all rows are in it.

    Args:
        path: Of the output.
        file_format: A name in `registry.STREAMS` or `registry.WRITERS`.
        layers: With every size known.
        said: What the rows are called and more.
        compress: How, for formats in `registry.COMPRESSED`.
        batch_size: How many rows a block has, but for the last one.
        resume: The layout of an earlier writer, whose rows this one goes on with.

    Raises:
        LayerprobeError: See `protocols.Writer`; or the package that compresses so is missing.
    """
    paths = said.keys if said.rows is None else said.keys()
    if compress is not None:
        check_compress(file_format, compress)
        compressing = registry.find(registry.COMPRESSED, file_format, "format")
        writer = compressing(path, layers, paths, resume, compress=compress, batch_size=batch_size)
    elif file_format in registry.STREAMS:
        writer = StreamWriter(path, file_format, layers, said, resume)
    elif callable(paths):
        writer = GrowingWriter(file_format, path, layers, paths, resume)
    else:
        writer = registry.find(registry.WRITERS, file_format, "format")(path, layers, paths, resume)
    return cast("Writer", writer)


def waiting_name(path: str, file_format: str, *, rows_known: bool, compress: str | None) -> str:
    """Say under which name an output stands until it is complete, and nothing else is left to do."""
    in_spool = compress is not None or (not rows_known and file_format not in registry.STREAMS)
    return spool_name(path) if in_spool else unfinished_name(path)


def check_compress(file_format: str, compress: str) -> None:
    """Raise UsageError where a format is not compressed, or not so."""
    if file_format in registry.STREAMS:
        raise UsageError(
            f"compress is not for .{file_format} files: pass on what `-o - --format {file_format}` writes to "
            "zstd or gzip, or give -o NAME.h5."
        )
    if file_format in registry.ALWAYS_COMPRESSED:
        raise UsageError(f"compress is not for {file_format}, which is compressed with zstd: leave it out.")
    if file_format not in registry.COMPRESSED:
        raise UsageError(
            f"compress is not for {file_format}, whose rows are mapped into memory as they stand: "
            "give -o NAME.h5."
        )
    if compress not in registry.COMPRESSIONS:
        known = ", ".join(registry.COMPRESSIONS)
        raise UsageError(f"compress must be one of {known}. Received: {compress!r}")


class StreamWriter:
    """Rows one after the other in a file; see `protocols.Writer`.

    The place of a block is where the file ends with it. Nothing before is ever written again; what a killed
    run wrote behind the last block that its journal knows is written over.

    Args:
        path: Of the output.
        file_format: A name in `registry.STREAMS`.
        layers: With every size known.
        said: What is said of the rows: a stream holds that beside their values.
        resume: The layout of an earlier writer, whose file this one goes on with.
    """

    def __init__(
        self,
        path: str,
        file_format: str,
        layers: Sequence[TensorSpec],
        said: RowsSaid,
        resume: Mapping[str, int] | None = None,
    ) -> None:
        self._said, self._rows = said, 0
        self.layout = {layer.name: 0 for layer in layers}
        self._sink = FileSink(path, file_format, resume=resume is not None)
        with ExitStack() as on_error:
            on_error.callback(self._sink.abort if resume is None else self._sink.suspend)
            stream_class = registry.find(registry.STREAMS, file_format, "format")
            self._stream: FileStream = stream_class(self._sink, layers)
            on_error.pop_all()

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Write rows after those that came before."""
        rows = self._next(start, start + max(map(len, activations.values()), default=0))
        block = self._stream.append(self._said.texts(rows), activations)
        self._rows = rows.stop
        return dataclasses.replace(block, place=self._sink.end)

    def adopt(self, block: WrittenBlock) -> None:
        """Take rows as written, after those that came before. Raises ResumeError where they are gone."""
        rows = self._next(block.start, block.stop)
        self._sink.go_on(block.place)
        self._stream.adopt(self._said.texts(rows), block)
        self._rows = rows.stop

    def _next(self, start: int, stop: int) -> range:
        if start != self._rows:
            raise ValueError(f"rows {start} to {stop} came, row {self._rows} is the next")
        return range(start, stop)

    def sync(self) -> None:
        """Bring what was written to disk."""
        self._sink.sync()

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write the end, and name the file; what else is said of the rows is there already."""
        self._stream.commit(provenance)

    def suspend(self) -> None:
        """Leave the file unfinished."""
        self._sink.suspend()

    def abort(self) -> None:
        """Remove what was written."""
        self._stream.abort()
