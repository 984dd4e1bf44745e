"""Rows of arrays in `.npy`, `.npz` and HDF5 files, read as they are asked for.

Nothing in a file is run or followed elsewhere: no pickles, no HDF5 links, virtual or external datasets.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import h5py
import numpy as np

from layerprobe.errors import AccessError, LayerprobeError, NoInputError, SampleError, UsageError
from layerprobe.records import Sample
from layerprobe.sources.files import Container, LocalFile, open_regular, reason
from layerprobe.sources.remote import container_of
from layerprobe.stores.urls import is_url, path_of, shown

if TYPE_CHECKING:
    from layerprobe.records import Array

MAX_UNPACKED = 4 * 2**30
"""Bytes of a compressed `.npz` member, which has to be held in memory as a whole."""

CHUNK_CACHE = 64 * 2**20
"""Bytes that HDF5 keeps unpacked, so that neighbouring rows of one chunk cost one decompression."""

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
_NPY, _ZIP, _HDF5 = b"\x93NUMPY", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, 512, 1024, 2048)
"""Where HDF5's signature may stand; MATLAB puts it at 512."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """One array in a file."""

    label: str
    """As the user typed it."""
    rows: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], Array]
    """First row, and one after the last -> (n, *row_shape). Raises SampleError."""
    place: Container

    def row(self, row: int) -> Array:
        """Read one row -> (*row_shape). Raises SampleError."""
        return np.asarray(self.read(row, row + 1)[0])

    @property
    def far(self) -> bool:
        """Whether it is read through a network."""
        return self.place.far


class ArraySource:
    """The rows of one array after another, as if they were concatenated."""

    kind = "arrays"

    row_shape: tuple[int, ...]
    """Of one sample, without the axis of rows."""

    dtype: np.dtype[Any]
    """That holds every array's values."""

    def __init__(self, arrays: Sequence[_Stored]) -> None:
        self._arrays = arrays
        self._ends = list(accumulate(array.rows for array in arrays))
        self.far = any(array.far for array in arrays)
        """Whether any of them are read through a network."""
        self.row_shape = arrays[0].row_shape
        self.dtype = np.result_type(*(array.dtype for array in arrays))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Sample]:
        return self.rows(0, len(self))

    def rows(self, start: int, stop: int) -> Iterator[Sample]:
        """Samples `start` to `stop` - 1; see `protocols.Source`."""
        for array, first, last in self._found(start, stop):
            for row in range(first, last):
                key = f"{array.label}[{row}]"
                yield Sample(start, key, partial(array.row, row), array.place.state)
                start += 1

    def values(self, start: int, stop: int) -> Iterator[Array]:
        """The values of samples `start` to `stop` - 1, many at a time; see `protocols.Source`."""
        return (array.read(first, last) for array, first, last in self._found(start, stop))

    def names(self, start: int, stop: int) -> list[tuple[str, str]]:
        """Key and fields of each of the samples `start` to `stop` - 1; see `protocols.Source`."""
        return [
            (f"{array.label}[{row}]", "")
            for array, first, last in self._found(start, stop)
            for row in range(first, last)
        ]

    def states(self, start: int, stop: int) -> list[bytes]:
        """Which version of its file each of the samples `start` to `stop` - 1 has; see `protocols.Source`."""
        found: list[bytes] = []
        for array, first, last in self._found(start, stop):
            found += [array.place.state()] * (last - first)
        return found

    def _found(self, start: int, stop: int) -> Iterator[tuple[_Stored, int, int]]:
        """The arrays that hold these samples, and in each the first row and one after the last."""
        for array, end in zip(self._arrays, self._ends, strict=True):
            begin = end - array.rows
            first, last = max(start - begin, 0), min(stop, end) - begin
            if first < last:
                yield array, first, last


def is_array(text: str) -> bool:
    """Whether an input names an array file by content, of a URL by suffix, or the "::" of a name in it."""
    path, inner = _split(text)
    if inner is not None:
        return True
    if is_url(path):  # A request for each of a thousand images would be too much.
        return path_of(path).lower().endswith(SUFFIXES)
    try:
        with open_regular(path) as file:
            return _kind(file) is not None
    except (OSError, ValueError, SampleError):
        return False


def array_source(files: Sequence[str]) -> ArraySource:
    """Open array files; their rows are the samples.

    Args:
        files: `x.npy`; `x.npz::name` and `x.h5::group/dataset`, or without the name where there is one array.
            What a file is its content decides, not its suffix. Numbers and truth values only.

    Raises:
        NoInputError: A file does not exist, or there is not one row.
        AccessError: A file may not be read.
        UsageError: A file is no array file, broken, or unlike the others in row shape or kind of numbers.
    """
    arrays = [_open(text) for text in files]
    first = arrays[0]
    for other in arrays[1:]:
        if (other.row_shape, other.dtype.kind) != (first.row_shape, first.dtype.kind):
            raise UsageError(
                f"arrays that are read as one need equal rows: {first.label!r} has {first.dtype} of shape "
                f"{first.row_shape}, {other.label!r} has {other.dtype} of shape {other.row_shape}."
            )
    source = ArraySource(arrays)
    if not len(source):
        raise NoInputError(f"no rows in {', '.join(repr(array.label) for array in arrays)}.")
    return source


def _split(text: str) -> tuple[str, str | None]:
    """The path, and the name inside the file where there is one; a file of that very name goes first."""
    path, mark, inner = text.partition("::")
    return (text, None) if not mark or os.path.lexists(text) else (path, inner)


def _kind(file: BinaryIO) -> str | None:
    """ "npy", "npz" or "hdf5", by content."""
    head = file.read(_USER_BLOCKS[-1] + len(_HDF5))
    file.seek(0)
    if head.startswith(_NPY):
        return "npy"
    if any(head.startswith(_HDF5, at) for at in _USER_BLOCKS):
        return "hdf5"
    if head.startswith(_ZIP) and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return "npz" if any(name.endswith(".npy") for name in archive.namelist()) else None
    return None


def _open(text: str) -> _Stored:
    path, inner = _split(text)
    label, place = shown(text), container_of(path)
    try:
        with place.open() as file:
            kind = _kind(file)
            if kind == "hdf5":
                return _open_hdf5(label, place, inner)
            if kind == "npz":
                return _open_npz(label, place, file, inner)
            if kind == "npy" and inner is None:
                end = file.seek(0, os.SEEK_END)
                file.seek(0)
                return _stored(label, place, file, end)
    except FileNotFoundError as error:
        raise NoInputError(f"no such file: {path!r}.") from error
    except PermissionError as error:
        raise AccessError(f"{path!r} cannot be read: {reason(error)}.") from error
    except (LayerprobeError, MemoryError) as error:
        if not isinstance(error, SampleError):
            raise
        raise UsageError(f"{label!r} is not an array that can be read: {error}.") from error
    except Exception as error:  # three parsers, fed with strangers' bytes
        words = " ".join(str(error).split())
        raise UsageError(f"{label!r} is not an array that can be read: {words[:200]}.") from error
    raise UsageError(f"{label!r} is no array file: expected .npy, .npz::name or .h5::dataset.")


def _stored(label: str, place: Container, file: BinaryIO, end: int) -> _Stored:
    """The array whose `.npy` header begins where `file` stands and whose values reach to `end` at most."""
    shape, fortran, dtype = _header(label, file, end)
    read: Callable[[int, int], Array]
    if fortran and len(shape) > 1 and shape[0]:  # rows lie scattered over the file
        if not isinstance(place, LocalFile):
            raise UsageError(
                f"{label!r} is in Fortran's order, in which rows lie scattered: fetch it, or save it in C's."
            )
        read = partial(_copy_rows, np.memmap(place.name, dtype, "r", file.tell(), shape, "F"))
    else:
        read = partial(_read_rows, place, file.tell(), shape[1:], dtype)
    return _Stored(label, shape[0], shape[1:], dtype, read, place)


def _header(label: str, file: IO[bytes], end: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a `.npy` header: shape, whether in Fortran's order, dtype. `end` is where the values may reach."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # 3.0 is for structures with field names beyond Latin-1
        raise UsageError(f"{label!r} holds structures: expected real numbers or truth values.")
    _check(label, shape, dtype)
    there = end - file.tell()
    if there < dtype.itemsize * math.prod(shape):
        raise UsageError(f"{label!r} is truncated: {there} bytes of values for {dtype} of shape {shape}.")
    return shape, fortran, dtype


def _read_rows(
    place: Container, start: int, shape: tuple[int, ...], dtype: np.dtype[Any], first: int, last: int
) -> Array:
    # Not through a memory map: its pages would count as this process's memory, and a file that shrinks
    # meanwhile would end the process.
    size = dtype.itemsize * math.prod(shape)
    values = place.read_at(start + first * size, (last - first) * size)
    if len(values) < (last - first) * size:
        raise SampleError("the file has become shorter")
    return np.frombuffer(values, dtype).reshape(-1, *shape)


def _copy_rows(array: Array, first: int, last: int) -> Array:
    return np.array(array[first:last])


def _check(label: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise UsageError(f"{label!r} holds {dtype}: expected real numbers or truth values.")
    if not shape or min(shape) < 0 or 0 in shape[1:]:
        raise UsageError(f"{label!r} has shape {shape}: expected (rows, ...) and something in each row.")


def _open_npz(label: str, place: Container, file: BinaryIO, inner: str | None) -> _Stored:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        member = archive.getinfo(_choose(label, inner, names) + ".npy")
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            file.seek(member.header_offset + 26)  # local header, APPNOTE.TXT 4.3.7: 30 bytes, of which the
            name, extra = struct.unpack("<HH", file.read(4))  # last are the lengths of two fields behind it
            start = file.seek(member.header_offset + 30 + name + extra)
            return _stored(label, place, file, start + member.file_size)
        if member.file_size > MAX_UNPACKED:
            raise UsageError(
                f"{label!r} is compressed and has {member.file_size} bytes: save it with numpy.savez or as "
                ".npy, so that rows can be read one by one."
            )
        with archive.open(member) as unpacked:
            shape, fortran, dtype = _header(label, unpacked, member.file_size)
            array = np.frombuffer(unpacked.read(), dtype, math.prod(shape))
    array = array.reshape(shape, order="F" if fortran else "C")
    return _Stored(label, shape[0], shape[1:], dtype, partial(_copy_rows, array), place)


def _open_hdf5(label: str, place: Container, inner: str | None) -> _Stored:
    # It stays open as long as its rows may be asked for.
    of = place.name if isinstance(place, LocalFile) else place.open()
    file = h5py.File(of, "r", rdcc_nbytes=CHUNK_CACHE)
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    dataset = file[_choose(label, None if inner is None else inner.strip("/"), names)]
    if dataset.is_virtual or dataset.external:
        raise UsageError(f"{label!r} keeps its values in other files, which are not opened.")
    if dataset.shape is None:
        raise UsageError(f"{label!r} is empty: expected an array whose first axis counts the rows.")
    _check(label, dataset.shape, dataset.dtype)
    read = partial(_dataset_rows, dataset)
    return _Stored(label, dataset.shape[0], dataset.shape[1:], dataset.dtype, read, place)


def _dataset_rows(dataset: h5py.Dataset, first: int, last: int) -> Array:
    try:
        return np.asarray(dataset[first:last])
    except (OSError, RuntimeError) as error:
        raise SampleError(" ".join(str(error).split())) from error


def _choose(label: str, inner: str | None, names: Sequence[str]) -> str:
    """The name inside a file that is meant."""
    if inner is None and len(names) == 1:
        return names[0]
    if inner is not None and inner in names:
        return inner
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    asked = "no such array in" if inner is not None else "say which array, as in FILE::NAME, of"
    raise UsageError(f"{asked} {label!r}: it has {listed or 'none'}.")
