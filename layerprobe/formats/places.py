"""Where the rows of an output go that is laid out: enough for another process to put blocks there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerprobe.formats.disk import opened, reported, sync, write_all
from layerprobe.formats.rows import RowBlocks, StoredLayer
from layerprobe.records import WrittenBlock

if TYPE_CHECKING:
    from layerprobe.records import Array


@dataclass(frozen=True, slots=True)
class RowPlaces:
    """The places of all rows; can be sent to another process."""

    path: str
    """What the user calls the output, for messages."""
    layers: Sequence[StoredLayer]
    rows: int
    """N."""
    files: Mapping[str, tuple[str, int]]
    """Layer -> the file as it is called now, and the offset of the layer's first row in it."""


class PlacedRows:
    """Puts blocks of rows at their places, in a process that did not lay out the output.

    Who did brings them to disk, notes them and names the output. A file is opened for each block: a model may
    have more layers than a process may have open files.
    """

    def __init__(self, places: RowPlaces) -> None:
        self._places = places
        self._blocks = RowBlocks(places.layers, places.rows)
        self._unsynced: set[str] = set()

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Put (n, ...) arrays, one for each layer, at rows start to start + n. Raises WriteError."""
        with reported(self._places.path), ExitStack() as files:
            descriptors: dict[str, int] = {}

            def put(layer: StoredLayer, place: int, data: memoryview) -> None:
                name, offset = self._places.files[layer.layer]
                self._unsynced.add(name)
                if name not in descriptors:
                    files.close()
                    descriptors.clear()
                    descriptors[name] = files.enter_context(opened(name))
                write_all(descriptors[name], offset + place, data)

            return self._blocks.write(start, activations, put)

    def sync(self) -> None:
        """Bring the blocks to disk, for a process on another machine cannot. Raises WriteError."""
        with reported(self._places.path):
            while self._unsynced:
                with opened(self._unsynced.pop()) as descriptor:
                    sync(descriptor)
