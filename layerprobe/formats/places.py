"""Where the rows of an output go that is laid out: enough for another process to put blocks there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    rows_per_file: int | None = None
    """Where rows are in many files, how many one has: its number is the end of its name. None: all are in
    one."""

    def pieces(
        self, layer: StoredLayer, place: int, data: memoryview
    ) -> Iterator[tuple[str, int, memoryview]]:
        """Say where bytes go.

        Args:
            layer: Whose they are.
            place: In the layer's array.
            data: Of whole rows.

        Yields:
            A file, an offset in it, and bytes.
        """
        name, offset = self.files[layer.layer]
        if self.rows_per_file is None:
            yield name, offset + place, data
            return
        size = self.rows_per_file * layer.row_bytes
        while len(data):
            number, within = divmod(place, size)
            part = data[: size - within]
            yield f"{name}{number}", offset + within, part
            place, data = place + len(part), data[len(part) :]


class PlacedRows:
    """Puts blocks of rows at their places, in a process that did not lay out the output.

    Who did brings them to disk, notes them and names the output. A file is opened for each block: a model may
    have more layers than a process may have open files. None is made: where one is gone, others did the rows.
    """

    def __init__(self, places: RowPlaces) -> None:
        self._places = places
        self._unsynced: set[str] = set()

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Put (n, ...) arrays, one for each layer, at rows start to start + n. Raises WriteError."""
        with reported(self._places.path), ExitStack() as files:
            descriptors: dict[str, int] = {}

            def put(layer: StoredLayer, place: int, data: memoryview) -> None:
                for name, offset, part in self._places.pieces(layer, place, data):
                    self._unsynced.add(name)
                    if name not in descriptors:
                        files.close()
                        descriptors.clear()
                        descriptors[name] = files.enter_context(opened(name))
                    write_all(descriptors[name], offset, part)

            # For each call anew: nothing grows here, and who laid out the output sees that rows come once.
            return RowBlocks(self._places.layers, self._places.rows).write(start, activations, put)

    def sync(self) -> None:
        """Bring the blocks to disk, for a process on another machine cannot. Raises WriteError."""
        with reported(self._places.path):
            while self._unsynced:
                with opened(self._unsynced.pop()) as descriptor:
                    sync(descriptor)
