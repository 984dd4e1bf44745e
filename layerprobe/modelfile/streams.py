"""Files as HDF5 may read them: a part of one, and one in which damage is found before HDF5 runs into it."""

from __future__ import annotations

import io
import math
import re
import struct
from typing import Any

_HEAP = re.compile(rb"GCOL\x01\0\0\0")
_ATTRIBUTE = re.compile(rb"(?:model_config|keras_version|backend|name|layer_names\d*|weight_names\d*)\0")
"""The names of the attributes that are ever read."""
_HEADER = 16
_SMALL = 1 << 16
"""HDF5 reads its own structures in pieces of this size or less; longer reads are of weights."""
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
    """A whole file, whose heaps and texts are checked when HDF5 first reads where they begin.

    HDF5 1.14 never returns from a global heap (where attributes keep texts) with an empty object in its
    middle: H5HG__cache_heap_deserialize then takes steps of size zero. And it clears as much memory as an
    attribute says that its text is long, up to 4 GiB, before it looks whether the heap has such a text.
    Layouts: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__(stream, 0, stream.seek(0, io.SEEK_END))
        self._checked: set[int] = set()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes.

        Raises:
            OSError: A heap or an attribute in it is damaged.
        """
        start = self._position
        count = super().readinto(buffer)
        if count <= _SMALL:
            self._check(start, count)
        return count

    def _check(self, start: int, count: int) -> None:
        """Check what begins in a piece that was read, or so shortly before that it reaches into it."""
        before = min(start, 32)
        self._stream.seek(start - before)
        piece = self._stream.read(before + count)
        for pattern, check in ((_HEAP, _check_heap), (_ATTRIBUTE, _check_attribute)):
            for found in pattern.finditer(piece):
                place = start - before + found.start()
                if place not in self._checked:
                    check(self._stream, place, self._size, found[0])
                    self._checked.add(place)


def _check_heap(stream: io.BufferedIOBase, place: int, _: int, __: bytes) -> None:
    """Walk the objects of a global heap: each has 16 bytes of header and a length that is a multiple of 8."""
    stream.seek(place)
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


def _check_attribute(stream: io.BufferedIOBase, place: int, file_size: int, name: bytes) -> None:
    """Hold the lengths that an attribute gives of its texts against the file; `place`: where its name is."""
    for version, header in ((1, 8), (2, 8), (3, 9)):
        if place < header:
            continue
        stream.seek(place - header)
        found, name_size, type_size, space_size = struct.unpack("<BxHHH", stream.read(8).ljust(8, b"\0"))
        if found != version or name_size != len(name):
            continue
        sizes = [name_size, type_size, space_size]
        if version == 1:
            sizes = [(size + 7) // 8 * 8 for size in sizes]
        stream.seek(place + sizes[0])
        kind, space = stream.read(sizes[1]), stream.read(sizes[2])
        if not kind or kind[0] & 15 != _VARIABLE_LENGTH:
            continue
        count = min(_points(space), file_size // _HEADER)
        stored = stream.read(count * _HEADER)
        lengths = [struct.unpack_from("<I", stored, at)[0] for at in range(0, len(stored) - 15, _HEADER)]
        if sum(lengths) > file_size:
            raise OSError(f"the attribute {name[:-1].decode()} claims {sum(lengths)} bytes of text")


def _points(space: bytes) -> int:
    """The number of elements of a dataspace, version 1 or 2; scalars have no dimensions."""
    if len(space) < 4:
        return 0
    rank, first = space[1], 8 if space[0] == 1 else 4
    if len(space) < first + 8 * rank:
        return 0
    return math.prod(struct.unpack_from(f"<{rank}Q", space, first))


_VARIABLE_LENGTH = 9
"""The class of variable-length datatypes, texts among them."""
