"""An output compared with what it says of itself, part by part."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.errors import LayerprobeError
from layerprobe.formats.schema import stored_dtype, text_checksums

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Array

CHUNK_BYTES = 8 << 20
"""So much of a layer is in memory at once, or one row."""
LISTED = 5
"""So many rows or ranges are named."""


class Checking:
    """One output, checked part by part; what is damaged in one place is no reason not to look at others."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.rows = self.failed = self.compared = 0
        self._bad = np.zeros(0, bool)

    def check(self) -> None:
        """Look at everything."""
        for step in (self._record, self._columns, self._structure):
            try:
                step()
            except LayerprobeError as error:
                self.problems.append(str(error))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                self.problems.append(f"what it says of itself cannot be understood: {error}")
        for name in self._reader:
            try:
                self._layer(name)
            except LayerprobeError as error:
                self.problems.append(str(error))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                self.problems.append(f"layer {name!r}: its checksums cannot be understood: {error}")

    def _record(self) -> None:
        # A record with checksums has one of itself, be it that this is what was damaged.
        if self._reader.intact is False or (
            self._reader.intact is None and self._reader.checksums is not None
        ):
            self.problems.append("its provenance is not what was written (CRC-32)")
        if self._reader.checksums is None:
            self.notes.append("an earlier version wrote it, without checksums: its values cannot be verified")
        told = {layer["name"]: layer for layer in self._reader.provenance["layers"]}
        if list(told) != list(self._reader):
            self.problems.append("its layers are not those of its provenance")
        for name, layer in told.items():
            array, dtype = self._reader[name], stored_dtype(layer["dtype"], name)
            if list(array.shape[1:]) != list(layer["shape"]) or array.dtype != dtype:
                self.problems.append(
                    f"layer {name!r}: {layer['dtype']} of {layer['shape']} was written, "
                    f"{array.dtype} of {list(array.shape[1:])} is there"
                )

    def _columns(self) -> None:
        reader = self._reader
        columns = {"paths": reader.paths, "status": reader.status, "error": reader.error}
        counts = {len(texts) for texts in columns.values()} | {len(reader[name]) for name in reader}
        self.rows, self.failed = len(reader.paths), reader.status.count("failed")
        self._bad = np.array([status != "ok" for status in reader.status], bool)
        inputs = reader.provenance["inputs"]
        if counts != {self.rows} or inputs["rows"] != self.rows:
            self.problems.append(f"{inputs['rows']} rows were written, {sorted(counts)} are there")
        if inputs.get("failed", self.failed) != self.failed:
            self.problems.append(f"{inputs['failed']} rows failed, {self.failed} say so")
        odd = [row for row, status in enumerate(reader.status) if status not in ("ok", "failed")]
        odd += [
            row
            for row, (status, error) in enumerate(zip(reader.status, reader.error, strict=False))
            if (status == "failed") != bool(error)
        ]
        if odd:
            where = listed(np.array(sorted(set(odd))))
            self.problems.append(f"status and error do not fit each other in {where}")
        if reader.checksums is not None:
            self._texts(columns, reader.checksums["texts"])

    def _texts(self, columns: dict[str, list[str]], wanted: Mapping[str, int]) -> None:
        # Of fields an earlier version kept no checksum in JSON lines and tar files.
        fields = self._reader.fields_texts
        if "fields" in wanted and fields is None:
            self.problems.append("'fields' is missing")
        elif "fields" in wanted and fields is not None:
            columns = columns | {"fields": fields}
            if len(fields) != self.rows:
                self.problems.append(f"{self.rows} rows were written, {len(fields)} have 'fields'")
        for name, found in text_checksums(columns).items():
            if found != wanted[name]:
                self.problems.append(f"{name!r} is not what was written (CRC-32)")

    def _structure(self) -> None:
        self.problems += self._reader.faults()

    def _layer(self, name: str) -> None:
        array, rows = self._reader[name], len(self._reader[name])
        starts, wanted = [0] if rows else [], []
        if self._reader.checksums is not None:
            starts, wanted = self._reader.checksums["rows"], self._reader.checksums["crc32"][name]
        step = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
        filled, nan, infinite = [], [], []
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], rows], strict=True)):
            checksum = 0
            for first in range(start, stop, step):
                chunk = array[first : min(first + step, stop)]
                checksum = zlib.crc32(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data, checksum)
                bad = self._bad[first : first + len(chunk)]
                filled.append(first + np.flatnonzero(_holds_values(chunk, bad)))
                nan.append(first + np.flatnonzero(_any(np.isnan(chunk)) & ~bad))
                infinite.append(first + np.flatnonzero(_any(np.isinf(chunk)) & ~bad))
            if wanted:
                self.compared += 1
                if checksum != wanted[number]:
                    self.problems.append(
                        f"layer {name!r}: rows {start} to {stop - 1} are not what was written (CRC-32)"
                    )
        self._tell(name, filled, nan, infinite)

    def _tell(self, name: str, filled: list[Array], nan: list[Array], infinite: list[Array]) -> None:
        if len(rows := np.concatenate([*filled, np.zeros(0, int)])):
            self.problems.append(f"layer {name!r}: {listed(rows)} failed, and yet there are values")
        for what, found in (("NaN", nan), ("infinite values", infinite)):
            if len(rows := np.concatenate([*found, np.zeros(0, int)])):
                self.notes.append(f"layer {name!r}: {what} in {listed(rows)}")


def _holds_values(chunk: Array, bad: Array) -> Array:
    """(n,) whether a row that failed holds something else than NaN, or 0 where the type has no NaN."""
    values = np.asarray(chunk[bad])
    empty = np.isnan(values) if values.dtype.kind in "fc" else values == 0
    holds = np.zeros(len(chunk), bool)
    holds[bad] = _any(~empty)
    return holds


def _any(flags: Array) -> Array:
    """(n, ...) -> (n,)"""
    if not flags.size:
        return np.zeros(len(flags), bool)
    return np.asarray(flags.reshape(len(flags), -1).any(1))


def listed(rows: Array) -> str:
    """Name rows, the first few of many."""
    told = ", ".join(map(str, rows[:LISTED].tolist())) + (", ..." if len(rows) > LISTED else "")
    return f"row {told}" if len(rows) == 1 else f"{len(rows):,} rows ({told})"
