"""The rows of compressed HDF5 datasets, decompressed as they are sliced."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import h5py
import numpy as np

from layerprobe.formats.lazy_rows import LazyRows
from layerprobe.formats.reading import reporting_damage
from layerprobe.formats.remote import open_for_reading

if TYPE_CHECKING:
    from layerprobe.records import Array


class OpenFile:
    """An HDF5 file that is read; closed with its last user."""

    def __init__(self, path: str) -> None:
        with ExitStack() as on_error:
            self.bytes = on_error.enter_context(open_for_reading(path))
            # Given bytes rather than a name, HDF5 locks nothing and finds no other file that a link may name.
            self.hdf5 = h5py.File(self.bytes, "r")
            on_error.pop_all()
        # Not by `__del__`, which may come when the program ends and half of h5py is gone already.
        self.close = weakref.finalize(self, _close, self.hdf5, self.bytes)
        """Release the file; a second call does nothing."""


def _close(hdf5: h5py.File, file: IO[bytes]) -> None:
    hdf5.close()
    file.close()


class CompressedRows(LazyRows):
    """The rows of a compressed dataset; they stay readable when their reader is closed."""

    def __init__(self, path: str, opened: OpenFile, dataset: h5py.Dataset) -> None:
        super().__init__(dataset.shape, dataset.dtype)
        self._path, self._opened, self._dataset = path, opened, dataset

    def _rows(self, rows: range | Array) -> Array:
        with reporting_damage(self._path):
            if isinstance(rows, range) and rows.step == 1:
                return np.asarray(self._dataset[rows.start : max(rows.start, rows.stop)])
            wanted, places = np.unique(np.asarray(rows, int), return_inverse=True)
            found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
            for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > 1) + 1):
                if len(run):
                    found[run[0] : run[-1] + 1] = self._dataset[wanted[run[0]] : wanted[run[-1]] + 1]
            return found[places]
