"""Rows that wait as they are, each at its place, for formats that hold them in another form.

They are the unfinished output: brought to disk and noted in the journal as they come, by several processes if
need be. At the end the output is made of them, under a third name; only then they go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.formats.disk import reported, require_space
from layerprobe.formats.laid_out import LaidOutRows
from layerprobe.formats.pending import PendingFile
from layerprobe.formats.rows import RowBlocks, StoredLayer, check_layout, check_size

if TYPE_CHECKING:
    from layerprobe.records import Array

_ALIGNMENT = 64


class WaitingRows(LaidOutRows):
    """Does for a writer what `protocols.Writer` asks, up to `commit`.

    Args:
        path: Of the output.
        file_format: A name in `registry.WRITERS`.
        layers: What is stored.
        rows: N.
        resume: The layout of an earlier writer, whose rows are there.

    Raises:
        WriteError: There is not enough space, for the rows and for the output that is made of them.
    """

    def __init__(
        self,
        path: str,
        file_format: str,
        layers: Sequence[StoredLayer],
        rows: int,
        resume: Mapping[str, int] | None,
    ) -> None:
        self._layers = layers
        self._blocks = RowBlocks(layers, rows)
        self.layout: dict[str, int] = {}
        end = 0
        for layer in layers:
            self.layout[layer.layer] = end
            end += -(-layer.size // _ALIGNMENT) * _ALIGNMENT
        check_layout(path, self.layout, resume)
        self._file = PendingFile(path, file_format, resume=resume is not None)
        with ExitStack() as on_error:
            on_error.callback(self.abort if resume is None else self.suspend)
            if resume is not None:
                check_size(path, self._file.size(), end)
            self._file.reserve(end)
            with reported(path):
                require_space(os.path.dirname(self._file.name), end, path)
            on_error.pop_all()

    def groups(self, rows: int) -> Iterator[dict[str, Array]]:
        """Give all rows, so many at a time: an array by stored name."""
        for start in range(0, self._blocks.rows, rows):
            yield {
                layer.stored: self._read(layer, start, min(start + rows, self._blocks.rows))
                for layer in self._layers
            }

    def _read(self, layer: StoredLayer, start: int, stop: int) -> Array:
        place = self.layout[layer.layer] + start * layer.row_bytes
        data = self._file.read(place, (stop - start) * layer.row_bytes)
        return np.frombuffer(data, np.uint8).view(layer.dtype).reshape(stop - start, *layer.shape[1:])
