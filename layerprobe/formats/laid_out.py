"""Rows in one file, each at its place from the beginning: what the writers of such files have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layerprobe.formats.places import RowPlaces

if TYPE_CHECKING:
    from layerprobe.formats.pending import PendingFile
    from layerprobe.formats.rows import RowBlocks, StoredLayer
    from layerprobe.records import Array, WrittenBlock


class LaidOutRows:
    """All that `protocols.PlacedWriter` asks, but for `commit`.

    The constructor of each sets the attributes below, the file last.
    """

    layout: dict[str, int]
    """Where each layer's rows begin in the file."""
    _layers: Sequence[StoredLayer]
    _blocks: RowBlocks
    _file: PendingFile

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Put a block of rows at its place."""
        return self._blocks.write(start, activations, self._put)

    def _put(self, layer: StoredLayer, place: int, data: memoryview) -> None:
        self._file.write(self.layout[layer.layer] + place, data)

    def adopt(self, block: WrittenBlock) -> None:
        """Take rows as written."""
        self._blocks.adopt(block)

    @property
    def places(self) -> RowPlaces:
        """Where the rows go, for other processes to put them there."""
        files = {layer: (self._file.name, place) for layer, place in self.layout.items()}
        return RowPlaces(self._file.path, self._layers, self._blocks.rows, files)

    def sync(self) -> None:
        """Bring what was written to disk."""
        self._file.sync()

    def suspend(self) -> None:
        """Leave the file unfinished."""
        self._file.suspend()

    def abort(self) -> None:
        """Remove what was written."""
        self._file.abort()
