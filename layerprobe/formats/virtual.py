"""HDF5 whose datasets are virtual: their rows stay in the files of parts, which have to stay where they are.

Every program with HDF5 reads such a file as if the rows were in it. A part that is gone reads as NaN there (0
where the type has no NaN); `layerprobe.open` says that it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from layerprobe.formats.hdf5 import HDF5Writer, name_layer
from layerprobe.formats.rows import StoredLayer

if TYPE_CHECKING:
    from layerprobe.records import TensorSpec


@dataclass(frozen=True, slots=True)
class PartFile:
    """An HDF5 output that holds some of the rows."""

    path: str
    """From the folder of the virtual file."""
    rows: range
    """Of the whole."""


class VirtualWriter(HDF5Writer):
    """Writes an HDF5 file that refers to others; its blocks are to be adopted, see `protocols.Writer`.

    Args:
        path: Of the output.
        layers: As for any writer, and as in all parts.
        paths: The N keys.
        parts: That have every row once.
    """

    def __init__(
        self, path: str, layers: Sequence[TensorSpec], paths: Sequence[str], parts: Sequence[PartFile]
    ) -> None:
        self._parts = parts
        super().__init__(path, layers, paths)

    def _place_of(self, file: h5py.File, layer: StoredLayer) -> int:
        layout = h5py.VirtualLayout(layer.shape, layer.dtype)
        for part in self._parts:
            shape = (len(part.rows), *layer.shape[1:])
            source = h5py.VirtualSource(_literal(part.path), _literal(layer.stored), shape)
            layout[part.rows.start : part.rows.stop] = source
        fill = np.nan if layer.dtype.kind in "fc" else 0
        name_layer(file.create_virtual_dataset(layer.stored, layout, fillvalue=fill), layer)
        return 0

    def _places_of_rows(self, layout: Mapping[str, int]) -> list[tuple[int, int]]:
        return []


def _literal(name: str) -> str:
    """Spell a name for H5Pset_virtual, to which "%b" means the number of a block."""
    return name.replace("%", "%%")
