"""Lists that are tables: which column names the images, and what is kept of the others. CSV is read here."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from layerprobe.errors import SampleError, UsageError
from layerprobe.sources.jsonlines import Listed

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "url")
"""Names of the column that says where an image is, the likeliest first."""
CSV_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row of a table that names no image; see `files.Readable`."""

    key: str
    fault: str
    far = False

    def read(self) -> bytes:
        """Raise SampleError, with the reason."""
        raise SampleError(self.fault)

    def state(self) -> bytes:
        """It has no file."""
        return b""


def choose_column(where: str, columns: Sequence[str], asked: str | None, known: Sequence[str]) -> str:
    """Find the column of the images.

    Args:
        where: The table, for messages.
        columns: Its columns.
        asked: What the user says.
        known: Names that are taken where the user says nothing, the first that is there.

    Raises:
        UsageError: There is none.
    """
    if asked is not None and asked in columns:
        return asked
    by_small = {name.strip().lower(): name for name in reversed(columns)}
    found = next((by_small[name] for name in known if name in by_small), None)
    if asked is None and found is not None:
        return found
    listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    what = "no column that names images" if asked is None else f"no column {asked!r}"
    raise UsageError(f"{where} has {what}: say which with --column, of {listed or 'none'}.")


def csv_rows(stream: IO[bytes], name: str, where: str, column: str | None) -> Iterator[str | Listed]:
    """Read a table of texts, whose first line has the names of its columns.

    Args:
        stream: UTF-8, undecodable bytes as lone surrogates; separated by tabs if `name` ends so, else by
            commas, or by semicolons where the first line has no comma.
        name: Of the table; rows without an image are called `name[17]`.
        where: It, for messages.
        column: Of the paths; None: see `PATH_COLUMNS`.

    Raises:
        UsageError: It is no such table.
    """
    with io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as text:
        first = text.readline()
        if name.lower().endswith(".tsv"):
            separator = "\t"
        else:
            separator = ";" if ";" in first and "," not in first else ","
        columns = next(csv.reader([first], delimiter=separator), [])
        place = columns.index(choose_column(where, columns, column, PATH_COLUMNS))
        rows = csv.reader(text, delimiter=separator, strict=True)
        try:
            filled = (row for row in rows if row)
            for number, row in enumerate(filled):
                yield _csv_row(row, columns, place, f"{name}[{number}]")
        except csv.Error as error:
            raise UsageError(f"{where}, line {rows.line_num + 1}, is no line of a table: {error}.") from error


def _csv_row(row: list[str], columns: Sequence[str], place: int, key: str) -> str | Listed:
    if len(row) != len(columns):
        fault = f"the row has {len(row)} values, for {len(columns)} columns"
        return Listed(Unreadable(key, fault), "")
    fields = {name: value for at, (name, value) in enumerate(zip(columns, row, strict=True)) if at != place}
    return listed(row[place], fields, key, columns[place])


def listed(path: object, fields: dict[str, Any], key: str, column: str) -> Listed:
    """Make an entry of a row that has a path, or should have one."""
    said = json.dumps(plain(fields), default=str) if fields else ""
    if not isinstance(path, str):
        return Listed(
            Unreadable(key, f"no path: {column!r} is {'empty' if path is None else 'no text'}"), said
        )
    if not path or "\0" in path:
        return Listed(Unreadable(key, f"no path: {column!r} is {'NUL' if path else 'empty'}"), said)
    return Listed(path, said)


def plain(value: object) -> object:
    """What JSON can hold of a value: bytes it cannot, nor NaN, which becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items() if not isinstance(each, bytes)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
