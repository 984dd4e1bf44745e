"""Reads a Zarr group that layerprobe wrote."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from layerprobe.errors import OutputFormatError
from layerprobe.formats.lazy_rows import LazyRows
from layerprobe.formats.legible import with_exact
from layerprobe.formats.placement import GROUP_RECORD
from layerprobe.formats.reading import ArrayPlace, OutputReader, reporting_damage
from layerprobe.formats.zarr_files import files_of
from layerprobe.formats.zarr_group import EXACT, RECORD

if TYPE_CHECKING:
    from layerprobe.formats.zarr_files import StoredFiles
    from layerprobe.records import Array

_COLUMNS = ("paths", "status", "error", "fields")
_GROUP = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}


class ZarrReader(OutputReader):
    """Reads a group, of each array the chunks that are needed; see `protocols.Reader`."""

    def __init__(self, path: str) -> None:
        with reporting_damage(path):
            self._files = files_of(path)
            self._metadata = json.loads(self._files.read(GROUP_RECORD))
            attributes = self._metadata["attributes"]
            self._exact: str = attributes[EXACT]
            super().__init__(path, attributes[RECORD])
            # Not what the group says of its arrays in one place, but what they say themselves.
            self._group = zarr.open_group(self._files.store, mode="r", use_consolidated=False)
            self._locate(*self._array("status").shape)
            self.compression = "zstd"
            self.stored_bytes = self._stored_size()

    def _array(self, name: str) -> zarr.Array[Any]:
        if os.path.basename(name) != name:
            raise ValueError(f"{name!r} is not in the group")
        try:
            found = self._group[name]
        except KeyError as error:
            raise FileNotFoundError(f"array {name!r} is missing") from error
        if not isinstance(found, zarr.Array):
            raise ValueError(f"{name!r} is no array")
        return found

    def _place(self, stored: str) -> ArrayPlace:
        array = self._array(stored)
        return ArrayPlace(np.dtype(array.dtype), array.shape, 0)

    def _stored_size(self) -> int:
        """Of all shards, as far as the store tells."""
        folders = tuple(f"{stored}/c." for stored in self._stored.values())
        shards = [name for name in self._files.names() if name.startswith(folders)]
        return sum(max(0, self._files.size(name)) for name in shards)

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        rows = _ShardedRows(self.path, self._files, self._array(stored), place)
        return rows  # type: ignore[return-value]  # read as it is sliced

    def _texts(self, column: str) -> list[str]:
        array = self._array(column)
        _check_files(self.path, self._files, array, range(array.shape[0]))
        return with_exact(list(map(str, np.asarray(array[:]).tolist())), column, self._exact)

    def faults(self) -> Iterator[str]:
        """Compare every file but shards, and look for shards that are missing and for others' files."""
        with reporting_damage(self.path):
            wanted = dict((self.checksums or {}).get("files", {}))
            shards = {
                f"{stored}/{_file(self._array(stored), number)}"
                for stored in self._stored.values()
                for number in _numbers(self._array(stored), range(self._array(stored).shape[0]))
            }
            for name, crc in wanted.items():
                if zlib.crc32(self._files.read(name)) != crc:
                    yield f"{name!r} is not what was written (CRC-32)"
            there = set(self._files.names())
            for name in sorted(shards - there):
                yield f"shard {name!r} is missing"
            for name in sorted(there - shards - set(wanted) - {"zarr.json"}):
                yield f"{name!r} in the folder is not the output's"
            yield from self._group_faults(wanted)

    def _group_faults(self, wanted: dict[str, int]) -> Iterator[str]:
        """Compare what the group says of its arrays in one place with what they say themselves."""
        told = self._metadata
        again: dict[str, Any] = {"metadata": {}, "kind": "inline", "must_understand": False}
        for name in wanted:
            if name.endswith("/zarr.json"):
                again["metadata"][name.removesuffix("/zarr.json")] = json.loads(self._files.read(name))
        attributes = told["attributes"]
        coordinates = " ".join(name for name in _COLUMNS if f"{name}/zarr.json" in wanted)
        if (
            set(told) != _GROUP
            or (told["zarr_format"], told["node_type"]) != (3, "group")
            or set(attributes) != {RECORD, EXACT, "coordinates"}
            or attributes["coordinates"] != coordinates
            or told["consolidated_metadata"] != again
        ):
            yield "'zarr.json' is not what was written"


class _ShardedRows(LazyRows):
    """The rows of an array, of which nothing that is missing is taken for a value."""

    def __init__(self, path: str, files: StoredFiles, array: zarr.Array[Any], place: ArrayPlace) -> None:
        super().__init__(place.shape, place.dtype)
        self._path, self._files, self._array = path, files, array

    def _rows(self, rows: range | Array) -> Array:
        with reporting_damage(self._path):
            _check_files(self._path, self._files, self._array, rows)
            if isinstance(rows, range) and rows.step == 1:
                found = self._array[rows.start : rows.stop]
            else:
                found = self._array.oindex[np.asarray(rows, int)]
            return np.asarray(found, self.dtype).reshape(len(rows), *self.shape[1:])


def _numbers(array: zarr.Array[Any], rows: range | Array) -> list[int]:
    """Which files along the rows have these; none, where rows have no values."""
    if not array.size or not len(rows):
        return []
    step = (array.shards or array.chunks)[0]
    if isinstance(rows, range) and rows.step == 1:
        return list(range(rows.start // step, -(-rows.stop // step)))
    found: list[int] = np.unique(np.asarray(rows, int) // step).tolist()
    return found


def _file(array: zarr.Array[Any], number: int) -> str:
    return f"c.{'.'.join(map(str, (number, *(0 for _ in array.shape[1:]))))}"


def _check_files(path: str, files: StoredFiles, array: zarr.Array[Any], rows: range | Array) -> None:
    """Look whether files are there: zarr takes one that is missing, or empty, for so many fill values.

    Raises:
        OutputFormatError: One is not.
    """
    for number in _numbers(array, rows):
        file = f"{array.basename}/{_file(array, number)}"
        if not files.size(file):
            raise OutputFormatError(
                f"{path!r} was not written by layerprobe, or is damaged: {file!r} is not there."
            )
