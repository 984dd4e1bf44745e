"""Whether an output is what it says: its structure, its checksums, and the rows that failed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import LayerprobeError, NoInputError, OutputFormatError
from layerprobe.formats.opening import open_output
from layerprobe.formats.placement import journal_name
from layerprobe.formats.schema import stored_dtype, text_checksums
from layerprobe.run.journal import written_rows

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Array

CHUNK_BYTES = 8 << 20
"""So much of a layer is in memory at once, or one row."""
LISTED = 5
"""So many rows or ranges are named."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found."""

    path: str
    rows: int
    failed: int
    checksums: int
    """How many checksums of rows were compared."""
    problems: tuple[str, ...]
    """Why it is not what it says; empty: it is."""
    notes: tuple[str, ...]
    """What else to know, such as values that are not finite."""


def verify(path: str | os.PathLike[str]) -> Verification:
    """Read a whole output and compare it with what it says of itself.

    Raises:
        NoInputError: There is no output, finished or not.
        AccessError: Reading it is denied.
    """
    path = os.fspath(path)
    unfinished = _unfinished(path)
    try:
        reader = open_output(path)
    except NoInputError:
        if unfinished is None:
            raise
        return Verification(path, 0, 0, 0, (unfinished,), ())
    except OutputFormatError as error:
        return Verification(path, 0, 0, 0, (str(error),), ())
    with reader:
        checking = _Checking(reader)
        checking.check()
        notes = checking.notes if unfinished is None else [*checking.notes, f"beside it, {unfinished}"]
        return Verification(
            path,
            checking.rows,
            checking.failed,
            checking.compared,
            tuple(dict.fromkeys(checking.problems)),
            tuple(notes),
        )


def _unfinished(path: str) -> str | None:
    """Which rows an unfinished output lacks; None: there is none."""
    try:
        found = written_rows(journal_name(path))
    except LayerprobeError:
        return None
    if found is None:
        return None
    head, ranges = found
    first, last = head.signature.get("rows", (0, None))
    rows = None if last is None else last - first
    told = f"an output is unfinished: {_covered(ranges)} rows are on disk"
    if not isinstance(rows, int):
        return f"{told}; go on with --resume"
    gaps = list(_gaps(ranges, rows))
    listed = ", ".join(gaps[:LISTED]) + (", ..." if len(gaps) > LISTED else "")
    return f"{told}, of {rows}; missing: {listed or 'none'}; go on with --resume"


def _covered(ranges: list[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)


def _gaps(ranges: list[tuple[int, int]], rows: int) -> Iterator[str]:
    end = 0
    for start, stop in [*ranges, (rows, rows)]:
        if start > end:
            yield f"{end} to {start - 1}"
        end = max(end, stop)


class _Checking:
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
            listed = _listed(np.array(sorted(set(odd))))
            self.problems.append(f"status and error do not fit each other in {listed}")
        if reader.checksums is not None:
            for name, found in text_checksums(columns).items():
                if found != reader.checksums["texts"][name]:
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
            self.problems.append(f"layer {name!r}: {_listed(rows)} failed, and yet there are values")
        for what, found in (("NaN", nan), ("infinite values", infinite)):
            if len(rows := np.concatenate([*found, np.zeros(0, int)])):
                self.notes.append(f"layer {name!r}: {what} in {_listed(rows)}")


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


def _listed(rows: Array) -> str:
    told = ", ".join(map(str, rows[:LISTED].tolist())) + (", ..." if len(rows) > LISTED else "")
    return f"row {told}" if len(rows) == 1 else f"{len(rows):,} rows ({told})"


def as_plain(found: Verification) -> Mapping[str, Any]:
    """As JSON has it."""
    return {
        "path": found.path,
        "ok": not found.problems,
        "rows": found.rows,
        "failed": found.failed,
        "checksums": found.checksums,
        "problems": list(found.problems),
        "notes": list(found.notes),
    }
