"""Compressed HDF5: chunked datasets, for `h5py.File` and every other HDF5 reader that knows the method.

A block of whole chunks is compressed when it comes, and waits so in the spool: then `commit` copies. Rows of
which a batch is too small for that wait as they are, and are compressed at the end.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from layerprobe.formats.chunks import chunk_places, chunk_shape, chunks_of
from layerprobe.formats.codecs import Codec, unpacked
from layerprobe.formats.hdf5 import editing, name_layer, write_columns
from layerprobe.formats.pending import PendingFile
from layerprobe.formats.rows import RowBlocks, StoredLayer
from layerprobe.formats.schema import HDF5_NAMES, VERSION, VERSION_KEY
from layerprobe.formats.spooled import Finished, Keys, SpooledWriter

if TYPE_CHECKING:
    from layerprobe.records import Array, TensorSpec, WrittenBlock

_AT_ONCE = 16
"""So many chunks are compressed at a time, at the end."""


class CompressedHDF5Writer(SpooledWriter):
    """Writes a compressed HDF5 file; see `protocols.Writer`.

    Args:
        path: Of the output.
        layers: With every size known.
        paths: What the rows are called.
        resume: As for any writer.
        compress: A name in `codecs.METHODS`.
        batch_size: Of the blocks that will come.

    Raises:
        UnavailableError: The package that compresses so is missing.
    """

    rules = HDF5_NAMES
    file_format = "hdf5"

    def __init__(
        self,
        path: str,
        layers: Sequence[TensorSpec],
        paths: Keys,
        resume: Mapping[str, int] | None = None,
        *,
        compress: str,
        batch_size: int = 1,
    ) -> None:
        self._codec, self._batch_size = Codec(compress), batch_size
        super().__init__(path, layers, paths, resume)

    def _lay_out(self) -> dict[str, int]:
        rows = None if callable(self._keys) else len(self._keys)
        self._shapes = {
            layer.layer: chunk_shape(layer, rows, self._batch_size)
            for layer in self._layers
            if layer.row_bytes
        }
        return {layer.layer: prod(self._shapes.get(layer.layer, (0,))) for layer in self._layers}

    def _pack(self, start: int, arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = []
        for layer, rows in arrays.items():
            if self._in_chunks(layer, start, start + len(rows)):
                shape = self._shapes[layer]
                pieces += self._codec.compressed(chunk for _, chunk in chunks_of(rows, shape))
            else:
                pieces.append(rows.reshape(-1).view(np.uint8).data)
        return pieces

    def _in_chunks(self, layer: str, start: int, stop: int) -> bool:
        """Whether these rows of a layer are whole chunks."""
        shape = self._shapes.get(layer)
        return shape is not None and not start % shape[0] and not stop % shape[0]

    def _count(self, layer: StoredLayer, block: WrittenBlock) -> int:
        """How many pieces a block has for a layer."""
        if not self._in_chunks(layer.layer, block.start, block.stop):
            return 1
        sizes = zip((block.stop - block.start, *layer.shape[1:]), self._shapes[layer.layer], strict=True)
        return prod(-(-size // step) for size, step in sizes)

    def _assemble(self, finished: Finished) -> None:
        file = PendingFile(self.path, self.file_format)
        try:
            # All of it, or an error now: HDF5 itself is no help on a full disk.
            file.reserve(self._spool.size)
            with editing(file, "w", ()) as (opened, port):
                opened.attrs[VERSION_KEY] = VERSION
                firsts = array("q", bytes(8 * len(finished.blocks)))
                for layer in self._layers:
                    for dataset, place, piece in self._chunks(opened, layer, finished.blocks, firsts):
                        if port.failure is None:
                            mask, data = unpacked(piece)
                            dataset.id.write_direct_chunk(place, data, mask)
                write_columns(opened, {"paths": finished.keys, **finished.columns}, finished.record)
            file.truncate(port.size)
            file.commit()
        finally:
            file.abort()

    def _chunks(
        self, file: h5py.File, layer: StoredLayer, blocks: RowBlocks, firsts: array[int]
    ) -> Iterator[tuple[Any, tuple[int, ...], bytes]]:
        """Make a layer's dataset, and give every chunk of it with its place."""
        shape = self._shapes.get(layer.layer)
        if shape is None:  # There is not one value.
            name_layer(file.create_dataset(layer.stored, layer.shape, layer.dtype), layer)
            shape = (1,) * len(layer.shape)
            dataset = None
        else:
            # Where fewer rows came than a chunk has, they wait as they are.
            shape = (min(shape[0], layer.shape[0]), *shape[1:])
            dataset = self._codec.create(file, layer.stored, layer.shape, layer.dtype, shape)
            name_layer(dataset, layer)
        loose = _Loose(self._codec, layer, shape)
        for block, pieces in self._pieces_of(layer, blocks, firsts):
            if dataset is None:
                continue
            if self._in_chunks(layer.layer, block.start, block.stop):
                yield from ((dataset, place, piece) for place, piece in loose.rest())
                rows = block.stop - block.start, *layer.shape[1:]
                for (row, *rest), piece in zip(chunk_places(rows, shape), pieces, strict=True):
                    yield dataset, (block.start + row, *rest), piece
            else:
                yield from ((dataset, place, piece) for place, piece in loose.add(block.start, pieces[0]))
        yield from ((dataset, place, piece) for place, piece in loose.rest())

    def _pieces_of(
        self, layer: StoredLayer, blocks: RowBlocks, firsts: array[int]
    ) -> Iterator[tuple[WrittenBlock, list[bytes]]]:
        """Read what waits of one layer, block by block; `firsts`, the number of its first piece, goes on."""
        for number, block in enumerate(blocks):
            first = firsts[number]
            firsts[number] += self._count(layer, block)
            yield block, self._pieces(block, slice(first, firsts[number]))

    def abort(self) -> None:
        """Remove the spool."""
        super().abort()
        self._codec.close()

    def suspend(self) -> None:
        """Leave the spool for a later writer."""
        super().suspend()
        self._codec.close()


class _Loose:
    """Rows of one layer that are not compressed yet, gathered until they are some whole chunks."""

    def __init__(self, codec: Codec, layer: StoredLayer, shape: tuple[int, ...]) -> None:
        self._codec, self._layer, self._shape = codec, layer, shape
        self._start = self._rows = 0
        self._parts: list[Array] = []

    def add(self, start: int, data: bytes) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """Take the next rows; give the chunks that they make full, once there are some."""
        rows = np.frombuffer(data, np.uint8).view(self._layer.dtype).reshape(-1, *self._layer.shape[1:])
        if not self._parts:
            self._start = start
        self._parts.append(rows)
        self._rows += len(rows)
        if self._rows >= _AT_ONCE * self._shape[0]:
            yield from self._give(self._rows - self._rows % self._shape[0])

    def rest(self) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """Give the rest: whole chunks where others follow, and at the end of all rows what there is."""
        yield from self._give(self._rows)

    def _give(self, rows: int) -> Iterator[tuple[tuple[int, ...], bytes]]:
        if not rows:
            return
        waiting = np.concatenate(self._parts)
        cut = list(chunks_of(waiting[:rows], self._shape))
        pieces = self._codec.compressed(chunk for _, chunk in cut)
        for ((row, *rest), _), piece in zip(cut, pieces, strict=True):
            yield (self._start + row, *rest), piece
        self._parts = [waiting[rows:]] if rows < len(waiting) else []
        self._start, self._rows = self._start + rows, len(waiting) - rows
