"""Reads a Zarr group that layerprobe wrote."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from layerprobe.errors import OutputFormatError
from layerprobe.formats.lazy_rows import LazyRows
from layerprobe.formats.legible import with_exact
from layerprobe.formats.reading import ArrayPlace, OutputReader, reporting_damage
from layerprobe.formats.zarr_group import EXACT, RECORD
from layerprobe.stores.urls import is_url, shown

if TYPE_CHECKING:
    from layerprobe.records import Array

_COLUMNS = ("paths", "status", "error", "fields")
_GROUP = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}


class ZarrReader(OutputReader):
    """Reads a group, of each array the chunks that are needed; see `protocols.Reader`."""

    def __init__(self, path: str) -> None:
        if is_url(path):
            raise OutputFormatError(
                f"{shown(path)!r} is a Zarr group in a store: copy it here, or open it with xarray or zarr."
            )
        with reporting_damage(path):
            with open(os.path.join(path, "zarr.json"), "rb") as file:
                self._metadata = json.load(file)
            attributes = self._metadata["attributes"]
            self._exact: str = attributes[EXACT]
            super().__init__(path, attributes[RECORD])
            # Not what the group says of its arrays in one place, but what they say themselves.
            self._group = zarr.open_group(LocalStore(path, read_only=True), mode="r", use_consolidated=False)
            self._locate(*self._array("status").shape)
            self.compression = "zstd"
            self.stored_bytes = sum(map(self._stored_size, self._stored.values()))

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

    def _stored_size(self, stored: str) -> int:
        with os.scandir(os.path.join(self.path, stored)) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.name.startswith("c."))

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        rows = _ShardedRows(self.path, stored, self._array(stored), place)
        return rows  # type: ignore[return-value]  # read as it is sliced

    def _texts(self, column: str) -> list[str]:
        array = self._array(column)
        _check_files(self.path, column, array, range(array.shape[0]))
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
                with open(os.path.join(self.path, name), "rb") as file:
                    if zlib.crc32(file.read()) != crc:
                        yield f"{name!r} is not what was written (CRC-32)"
            there = set(files_in(self.path))
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
                with open(os.path.join(self.path, name), "rb") as file:
                    again["metadata"][name.removesuffix("/zarr.json")] = json.load(file)
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


def files_in(folder: str) -> Iterator[str]:
    """Give the files in a folder and those within it, by their names from there."""
    for place, _, names in os.walk(folder):
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in names)


class _ShardedRows(LazyRows):
    """The rows of an array, of which nothing that is missing is taken for a value."""

    def __init__(self, path: str, name: str, array: zarr.Array[Any], place: ArrayPlace) -> None:
        super().__init__(place.shape, place.dtype)
        self._path, self._name, self._array = path, name, array

    def _rows(self, rows: range | Array) -> Array:
        with reporting_damage(self._path):
            _check_files(self._path, self._name, self._array, rows)
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


def _check_files(path: str, name: str, array: zarr.Array[Any], rows: range | Array) -> None:
    """Look whether files are there: zarr takes one that is missing, or empty, for so many fill values.

    Raises:
        OutputFormatError: One is not.
    """
    for number in _numbers(array, rows):
        file = f"{name}/{_file(array, number)}"
        place = os.path.join(path, file)
        if not os.path.isfile(place) or not os.path.getsize(place):
            raise OutputFormatError(
                f"{path!r} was not written by layerprobe, or is damaged: {file!r} is not there."
            )
