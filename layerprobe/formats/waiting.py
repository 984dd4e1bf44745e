"""Rows that wait as they are, each at its place, for formats that hold them in another form.

They are the unfinished output: brought to disk and noted in the journal as they come, by several processes if
need be. At the end the output is made of them, under a third name; only then they go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.formats.disk import reported, require_space
from layerprobe.formats.laid_out import LaidOutFile
from layerprobe.formats.rows import StoredLayer, check_size

if TYPE_CHECKING:
    from layerprobe.records import Array

_ALIGNMENT = 64


class WaitingRows(LaidOutFile):
    """Does for a writer what `protocols.Writer` asks, up to `commit`.

    The space that it asks for is that of the rows and that of the output that is made of them.
    """

    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        layout, self._end = {}, 0
        for layer in self._layers:
            layout[layer.layer] = self._end
            self._end += -(-layer.size // _ALIGNMENT) * _ALIGNMENT
        return layout

    def _begin(self, resume: Mapping[str, int] | None) -> None:
        if resume is not None:
            check_size(self._file.path, self._file.size(), self._end)
        self._file.reserve(self._end)
        with reported(self._file.path):
            require_space(os.path.dirname(self._file.name), self._end, self._file.path)

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
