"""Rows have their places from the beginning: what the writers of such outputs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from layerprobe.formats.pending import PendingFile
from layerprobe.formats.places import RowPlaces
from layerprobe.formats.rows import RowBlocks, check_layout, stored_layers

if TYPE_CHECKING:
    from layerprobe.formats.rows import StoredLayer
    from layerprobe.formats.schema import NameRules
    from layerprobe.records import Array, TensorSpec, WrittenBlock


class LaidOutWriter(ABC):
    """Begins an output, or goes on with one; see `protocols.Writer`.

    Args:
        path: Of the output.
        layers: With every size known.
        paths: What the N rows are called.
        resume: The layout of an earlier writer, whose rows are there and stay.

    Raises:
        OutputError: It cannot be created.
        ResumeError: The rows of the earlier writer are elsewhere, or gone.
        UnrecordableLayerError: The format cannot hold a layer's values.
        WriteError: There is not enough space.
    """

    rules: ClassVar[NameRules]
    """For the names of layers in the output."""
    file_format: ClassVar[str]
    """A name in `registry.WRITERS`."""
    layout: dict[str, int]
    """A number for each layer, on which the places of its rows depend."""

    def __init__(
        self,
        path: str,
        layers: Sequence[TensorSpec],
        paths: Sequence[str],
        resume: Mapping[str, int] | None = None,
    ) -> None:
        self._specs, self._paths = layers, paths
        self._layers = stored_layers(layers, len(paths), self.rules)
        self._blocks = RowBlocks(self._layers, len(paths))
        self.layout = self._lay_out(resume)
        check_layout(path, self.layout, resume)
        self._open(path, resume is not None)
        with ExitStack() as on_error:
            on_error.callback(self.abort if resume is None else self.suspend)
            self._begin(resume)
            on_error.pop_all()

    @abstractmethod
    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        """Find the layout, before anything is touched."""

    @abstractmethod
    def _open(self, path: str, resume: bool) -> None:
        """Make what the rows go to, or open what is there. Raises OutputError."""

    @abstractmethod
    def _begin(self, resume: Mapping[str, int] | None) -> None:
        """Write all that comes before the rows; those of an earlier writer stay as they are."""

    @abstractmethod
    def suspend(self) -> None:
        """Leave the output unfinished."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what was written."""


class LaidOutFile(LaidOutWriter):
    """All that `protocols.PlacedWriter` asks, but for `commit`, of an output that is one file.

    Its `layout` says where in the file each layer's rows begin.
    """

    _file: PendingFile

    def _open(self, path: str, resume: bool) -> None:
        self._file = PendingFile(path, self.file_format, resume=resume)

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
