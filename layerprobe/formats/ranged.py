"""Arrays of outputs in stores, of which only what is sliced is fetched."""

from __future__ import annotations

import os
import threading
from math import prod
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from layerprobe.formats.lazy_rows import LazyRows
from layerprobe.stores.objects import RemoteStream

if TYPE_CHECKING:
    from layerprobe.formats.reading import ArrayPlace
    from layerprobe.records import Array


def array_in(file: IO[bytes], place: ArrayPlace) -> Array | None:
    """Give an array of which what is sliced is fetched, in a file that lies in a store; None: in another.

    Raises:
        ValueError: The file ends before the array does.
    """
    if not isinstance(file, RemoteStream):
        return None
    if file.seek(0, os.SEEK_END) < place.offset + prod(place.shape) * place.dtype.itemsize:
        raise ValueError("the file ends before its array does")
    return cast("Array", RemoteRows(file.again(), place))  # read as it is sliced


class RemoteRows(LazyRows):
    """The rows of an array, fetched as they are sliced. Threads may share it.

    Args:
        file: That holds the array, and is used by nothing else.
        place: Where in it.
    """

    def __init__(self, file: RemoteStream, place: ArrayPlace) -> None:
        super().__init__(place.shape, place.dtype)
        self._file, self._offset = file, place.offset
        self._lock = threading.Lock()

    def _rows(self, rows: range | Array) -> Array:
        if isinstance(rows, range) and rows.step == 1:
            return self._between(rows.start, max(rows.start, rows.stop))
        found = [self._between(row, row + 1) for row in np.asarray(rows, int).tolist()]
        return np.concatenate(found) if found else self._between(0, 0)

    def _between(self, start: int, stop: int) -> Array:
        """Rows that follow each other."""
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        row = prod(self.shape[1:]) * self.dtype.itemsize
        with self._lock:
            self._file.seek(self._offset + start * row)
            data = self._file.read(found.nbytes)
        found.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
        return found
