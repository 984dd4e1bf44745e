"""TensorFlow checkpoints read without TensorFlow: which variables there are, and their numbers.

`variables.index` is a sorted table (the format of LevelDB) from names to where the bytes are; the bytes are
those of the tensors, one after the other, in `variables.data-00000-of-00001`.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto
https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.errors import ModelError
from layerprobe.modelfile.protobuf import messages, number, text, varint

if TYPE_CHECKING:
    from layerprobe.records import Array

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MAX_INDEX_BYTES = 64 << 20
_MAX_SHARDS = 1000
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_DTYPES = {
    **{1: "<f4", 2: "<f8", 3: "<i4", 4: "<u1", 5: "<i2", 6: "<i1", 9: "<i8", 10: "?", 14: "<V2", 17: "<u2"},
    **{19: "<f2", 22: "<u4", 23: "<u8"},
}
"""TensorFlow's numbers for the dtypes that weights can have; bfloat16 as two bytes."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One variable of a checkpoint; `tensor[()]` reads it."""

    shape: tuple[int, ...]
    dtype: str
    path: str
    offset: int
    size: int

    def __getitem__(self, key: tuple[()]) -> Array:
        """Read all of it.

        Raises:
            ModelError: The file is shorter than its index says.
        """
        if self.size != math.prod(self.shape) * np.dtype(self.dtype).itemsize:
            raise ModelError(f"{self.path}: a variable's size does not fit its shape: the file is damaged.")
        data = _read(self.path, self.offset, self.size)
        return np.frombuffer(data, self.dtype).reshape(self.shape)


class Checkpoint:
    """The variables of a SavedModel, by their place in its tree of objects."""

    def __init__(self, folder: str) -> None:
        """Read the index.

        Args:
            folder: `variables/` of the SavedModel.

        Raises:
            ModelError: The index is missing or damaged.
        """
        self._folder = folder
        self.place = os.path.join(folder, "variables.index")
        self._entries = dict(_table(_read(self.place, 0, None), self.place))
        header = self._entries.pop("", memoryview(b""))
        self._shards = max(1, number(header, 1, self.place))

    def verify(self) -> None:
        """Look whether all files are there.

        Raises:
            ModelError: One is missing.
        """
        for shard in range(min(self._shards, _MAX_SHARDS)):
            _read(self._shard(shard), 0, 0)

    def find(self, *path: str) -> int | None:
        """The object at the end of a path of attributes, from the model itself; None if there is none."""
        node = 0
        for name in path:
            following = self._objects[node][0].get(name) if node < len(self._objects) else None
            if following is None:
                return None
            node = following
        return node

    def variable(self, *path: str) -> StoredTensor | None:
        """The variable at the end of a path of attribute names; None if there is none."""
        node = self.find(*path)
        key = self._objects[node][1] if node is not None and node < len(self._objects) else ""
        return self._tensor(key) if key in self._entries else None

    def _tensor(self, key: str) -> StoredTensor:
        entry, place = self._entries[key], self.place
        dtype = number(entry, 1, place)
        if dtype not in _DTYPES or any(True for _ in messages(entry, 7, place)):
            raise ModelError(f"{place}: the variable {key[:100]!r} is of a kind that no layer has.")
        dimensions = [number(d, 1, place) for s in messages(entry, 2, place) for d in messages(s, 2, place)]
        path, offset, size = self._location(entry)
        return StoredTensor(tuple(dimensions), _DTYPES[dtype], path, offset, size)

    def _location(self, entry: memoryview) -> tuple[str, int, int]:
        path = self._shard(number(entry, 3, self.place))
        return path, number(entry, 4, self.place), number(entry, 5, self.place)

    def _shard(self, shard: int) -> str:
        return os.path.join(self._folder, f"variables.data-{shard:05d}-of-{self._shards:05d}")

    @cached_property
    def _objects(self) -> list[tuple[dict[str, int], str]]:
        """For each object: its attributes by name, and the key of the variable that it is."""
        if _OBJECTS not in self._entries:
            raise ModelError(f"{self.place} has no tree of objects: it is a checkpoint of TensorFlow 1.")
        path, offset, size = self._location(self._entries[_OBJECTS])
        data = memoryview(_read(path, offset, size))
        length, position = varint(data, 0, path)
        graph = data[position + 4 : position + 4 + length]  # After a checksum of the length.
        objects = []
        for node in messages(graph, 1, path):
            children = {text(c, 2, path): number(c, 1, path) for c in messages(node, 1, path)}
            keys = [text(attribute, 3, path) for attribute in messages(node, 2, path)]
            objects.append((children, keys[0] if keys else ""))
        return objects


def _read(path: str, offset: int, size: int | None) -> bytes:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{path} is not a regular file.")
            wanted = status.st_size if size is None else size
            if offset + wanted > status.st_size or (size is None and wanted > _MAX_INDEX_BYTES):
                raise ModelError(f"{path} is truncated: fetch or save the model again.")
            file.seek(offset)
            return file.read(wanted)
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: the SavedModel is incomplete.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error


def _table(data: bytes, place: str) -> Iterator[tuple[str, memoryview]]:
    """The entries of a sorted table: a block of handles to blocks of entries."""
    view = memoryview(data)
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise ModelError(f"{place} is no index of a TensorFlow checkpoint, or truncated.")
    footer = view[-_FOOTER:]
    position = 0
    for _ in range(2):  # The first handle is that of the statistics, which are not needed.
        _, position = varint(footer, position, place)
    for _, handle in _block(view, footer[position:], place):
        for key, value in _block(view, handle, place):
            yield key.decode("utf-8", "replace"), value


def _block(view: memoryview, handle: memoryview, place: str) -> Iterator[tuple[bytes, memoryview]]:
    """The entries of one block; each key is written as what differs from the one before."""
    offset, position = varint(handle, 0, place)
    size, _ = varint(handle, position, place)
    if offset + size + 5 > len(view) or size < 4:
        raise ModelError(f"{place} is damaged: fetch or save the model again.")
    if view[offset + size] != 0:
        raise ModelError(f"{place} is compressed, which TensorFlow does not do: save the model again.")
    block = view[offset : offset + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 - 4 * restarts
    position, key = 0, b""
    while position < end:
        shared, position = varint(block, position, place)
        unshared, position = varint(block, position, place)
        length, position = varint(block, position, place)
        key = key[:shared] + bytes(block[position : position + unshared])
        position += unshared
        yield key, block[position : position + length]
        position += length
