"""Files as HDF5 may read them: a part of one, and one whose damaged heaps are found first."""

from __future__ import annotations

import io
import re
import struct
from typing import Any

_HEAP = re.compile(rb"GCOL\x01\0\0\0")
_HEADER = 16
_LARGEST_FIRST_READ = 1 << 16
"""HDF5 reads 4,096 bytes of a heap first, and its size from these; longer reads are of weights."""
_LARGEST_HEAP = 64 << 20


class Window(io.RawIOBase):
    """The bytes `start` to `start + size` of another stream, as a file of their own."""

    def __init__(self, stream: io.BufferedIOBase, start: int, size: int) -> None:
        self._stream, self._start, self._size, self._position = stream, start, size, 0

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether it has places: always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """The place of the next byte."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the part goes."""
        wanted = min(len(buffer), max(0, self._size - self._position))
        self._stream.seek(self._start + self._position)
        count = self._stream.readinto(memoryview(buffer)[:wanted])
        self._position += count
        return count


class GuardedStream(Window):
    """A whole file, whose heaps are checked the first time that their beginning is read.

    HDF5 1.14 never returns from a global heap (where attributes keep texts) with an empty object in its
    middle: H5HG__cache_heap_deserialize then takes steps of size zero, and Python cannot end it. Layout:
    https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html#GlobalHeap
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__(stream, 0, stream.seek(0, io.SEEK_END))
        self._checked: set[int] = set()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes.

        Raises:
            OSError: A heap that begins in it is damaged.
        """
        start = self._position
        count = super().readinto(buffer)
        if count <= _LARGEST_FIRST_READ:
            self._check_heaps(start, count)
        return count

    def _check_heaps(self, start: int, count: int) -> None:
        """Check every heap that begins in, or just before, what was read."""
        before = min(start, len(b"GCOL\x01\0\0"))
        self._stream.seek(start - before)
        for found in _HEAP.finditer(self._stream.read(before + count)):
            place = start - before + found.start()
            if place not in self._checked:
                self._stream.seek(place)
                _check_heap(self._stream, place)
                self._checked.add(place)


def _check_heap(stream: io.BufferedIOBase, place: int) -> None:
    (size,) = struct.unpack("<8xQ", stream.read(_HEADER).ljust(_HEADER, b"\0"))
    if not _HEADER <= size <= _LARGEST_HEAP:
        raise OSError(f"the global heap at {place} claims {size} bytes")
    objects = stream.read(size - _HEADER)
    position = 0
    while position + _HEADER <= len(objects):
        index, length = struct.unpack_from("<H6xQ", objects, position)
        step = length if index == 0 else _HEADER + (length + 7) // 8 * 8
        if step < _HEADER:
            raise OSError(f"the global heap at {place} has an empty object in its middle")
        position += step
