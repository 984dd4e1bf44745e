"""The numbers of a weight, taken straight from their place in the file where they lie there as they are."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import h5py
import numpy as np
from h5py import h5d, h5t

if TYPE_CHECKING:
    from layerprobe.records import Array


class Stored(Protocol):
    """A weight in its file, not yet read: an `h5py.Dataset`, or a variable of a checkpoint."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        ...

    def __getitem__(self, key: tuple[()]) -> Any:
        """Read all of it."""
        ...


class Source(NamedTuple):
    """Where an HDF5 file begins within a file that is open."""

    descriptor: int
    start: int


class Unread(np.ndarray):
    """An array of weights of which only the shape is known, without memory of its own."""


def unread(shape: tuple[int, ...]) -> Unread:
    """Make one, of float32."""
    return np.broadcast_to(np.zeros((), np.float32), shape).view(Unread)


def read(stored: Stored, source: Source | None) -> Array:
    """Read a weight.

    HDF5 reads through a Python file, checks what it sees there and copies it, and a model has hundreds of
    small weights: reading them where HDF5 says that they lie takes a quarter of the time.

    Args:
        stored: The weight.
        source: The file that it is in, where that is an open one.

    Returns:
        The array, as stored.

    Raises:
        OSError: The file ends before the weight does, or cannot be read.
    """
    if source is not None and isinstance(stored, h5py.Dataset):
        array = _read_in_place(stored.id, source)
        if array is not None:
            return array
    array = np.asarray(stored[()])
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        # bfloat16, for which HDF5 has no name: the upper half of a float32.
        return (np.frombuffer(array.tobytes(), "<u2").astype("<u4") << 16).view("<f4").reshape(array.shape)
    return array


def _read_in_place(dataset: h5d.DatasetID, source: Source) -> Array | None:
    """The numbers of a dataset; None where they are in pieces, packed, or not of one of NumPy's types."""
    dtype, offset = dataset.dtype, dataset.get_offset()
    size = math.prod(dataset.shape) * dtype.itemsize
    plain = dtype.kind in "fiu" and h5t.py_create(dtype).equal(dataset.get_type())
    if not plain or offset is None or not size or dataset.get_storage_size() != size:
        return None
    array = np.empty(dataset.shape, dtype)
    rest = array.reshape(-1).view(np.uint8).data
    place = source.start + offset
    while rest:
        count = os.preadv(source.descriptor, [rest], place)
        if not count:
            raise OSError("the file ends within its weights")
        rest, place = rest[count:], place + count
    return array
