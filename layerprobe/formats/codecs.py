"""How chunks of HDF5 are compressed: byte by byte of all values (shuffled), then with one of three methods.

The bytes are those that HDF5's own filters make. They are made here, past HDF5's datasets, so that it can be
done while a run goes on, long before there is a dataset; and gzip, which is slow, in threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from zlib_ng import zlib_ng

from layerprobe.errors import UsageError
from layerprobe.processors import processors
from layerprobe.registry import missing

if TYPE_CHECKING:
    from layerprobe.records import Array

_GZIP_LEVEL, _ZSTD_LEVEL = 2, 1
"""Higher ones take several times as long, for activations that become a hundredth smaller."""
_CODEC_SKIPPED = 0b10
"""Of a chunk's filter mask: the second filter, the one after shuffling, was left out."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to compress, as HDF5 knows it."""

    name: str
    number: int
    """Of its filter; see https://github.com/HDFGroup/hdf5_plugins."""
    options: tuple[int, ...]


METHODS = {
    method.name: method
    for method in (
        Method("gzip", h5py.h5z.FILTER_DEFLATE, (_GZIP_LEVEL,)),
        Method("lz4", 32004, (0,)),
        Method("zstd", 32015, (_ZSTD_LEVEL,)),
    )
}


def method_of(dataset: h5py.Dataset) -> Method | None:
    """Tell how a dataset is compressed, None: not at all. Raises ValueError where it is no `METHODS`."""
    filters = dataset.id.get_create_plist()
    numbers = [filters.get_filter(place)[0] for place in range(filters.get_nfilters())]
    known = {(h5py.h5z.FILTER_SHUFFLE, method.number): method for method in METHODS.values()}
    if not numbers:
        return None
    if tuple(numbers) not in known:
        name = dataset.name.rpartition("/")[2]
        raise ValueError(
            f"dataset {name!r} is compressed with the HDF5 filters {numbers}, which layerprobe does not write"
        )
    return known[tuple(numbers)]


def require(method: Method) -> None:
    """Make a method known to HDF5.

    Raises:
        UnavailableError: The package that has it is missing.
    """
    if method.number == h5py.h5z.FILTER_DEFLATE:
        return
    try:
        import_module("hdf5plugin")
    except ModuleNotFoundError as error:
        if error.name != "hdf5plugin":
            raise
        raise missing(f"{method.name} in HDF5", "hdf5plugin") from error


class Codec:
    """Compresses chunks.

    Args:
        name: A name in `METHODS`.

    Raises:
        UsageError: There is no such method.
        UnavailableError: The package that has it is missing.
    """

    def __init__(self, name: str) -> None:
        if name not in METHODS:
            raise UsageError(f"compress must be one of {', '.join(METHODS)}. Received: {name!r}")
        self.method = METHODS[name]
        require(self.method)
        self._files: dict[int, h5py.File] = {}
        """By size of a chunk: a file in memory, in which HDF5 compresses it."""
        self._threads: ThreadPoolExecutor | None = None

    def create(self, group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, chunk: Any) -> Any:
        """Make the dataset whose chunks are written to it as `compressed` gives them."""
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk(chunk)
        how.set_shuffle()
        how.set_filter(self.method.number, h5py.h5z.FLAG_OPTIONAL, self.method.options)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        how.set_obj_track_times(False)
        kind = h5py.h5t.py_create(dtype, logical=True)
        space = h5py.h5s.create_simple(shape)
        dataset = group[name] = h5py.Dataset(h5py.h5d.create(group.id, None, kind, space, how))
        return dataset

    def compressed(self, chunks: Iterable[Array]) -> Iterator[bytes]:
        """Compress C-contiguous chunks; `unpacked` takes apart what each becomes."""
        if self.method.name != "gzip":
            return map(self._in_hdf5, map(_shuffled, chunks))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(len(processors()), thread_name_prefix="layerprobe")
        return self._threads.map(_deflated, chunks)

    def _in_hdf5(self, shuffled: Array) -> bytes:
        size = len(shuffled)
        if size not in self._files:
            file = h5py.File(f"{id(self)}-{size}", "w", driver="core", backing_store=False, rdcc_nbytes=0)
            how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            how.set_chunk((size,))
            how.set_filter(self.method.number, h5py.h5z.FLAG_OPTIONAL, self.method.options)
            space = h5py.h5s.create_simple((size,))
            h5py.h5d.create(file.id, b"chunk", h5py.h5t.NATIVE_UINT8, space, how)
            self._files[size] = file
        dataset = self._files[size]["chunk"]
        dataset[...] = shuffled
        skipped, data = dataset.id.read_direct_chunk((0,))
        return _packed(data, shuffled, bool(skipped))

    def close(self) -> None:
        """Release memory and threads."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None


def unpacked(piece: bytes) -> tuple[int, memoryview]:
    """Give the filter mask and the bytes of a compressed chunk, as HDF5 takes them."""
    return piece[0], memoryview(piece)[1:]


def _packed(data: bytes, shuffled: Array, skipped: bool) -> bytes:
    """What did not become smaller stays as it is."""
    if skipped or len(data) >= len(shuffled):
        return bytes([_CODEC_SKIPPED]) + shuffled.tobytes()
    return b"\0" + data


def _deflated(chunk: Array) -> bytes:
    shuffled = _shuffled(chunk)
    return _packed(zlib_ng.compress(shuffled.data, _GZIP_LEVEL), shuffled, False)


def _shuffled(chunk: Array) -> Array:
    """All first bytes of the values, then all second ones and so on, as HDF5's filter `shuffle` has them."""
    return np.ascontiguousarray(chunk.reshape(-1).view(np.uint8).reshape(-1, chunk.itemsize).T).reshape(-1)
