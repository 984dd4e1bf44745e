"""Lists of images: text, a path a line, JSON lines, or tables; read as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO

from layerprobe.errors import AccessError, NoInputError, UsageError
from layerprobe.sources.files import Container, LocalFile, reason
from layerprobe.sources.jsonlines import MAX_OBJECT, Listed, begins_json_lines, read_object
from layerprobe.sources.parquet import SUFFIXES as PARQUET_SUFFIXES
from layerprobe.sources.parquet import parquet_rows
from layerprobe.sources.remote import container_of
from layerprobe.sources.tables import CSV_SUFFIXES, csv_rows
from layerprobe.sources.tar_stream import Rejoined
from layerprobe.stores.urls import beside, is_url, path_of, shown

MAX_ENTRY = 2**16
"""Bytes of one path in a list; a longer one means that the file is no list."""


def entries_of(name: str, nul: bool, column: str | None = None) -> Iterator[str | Listed]:
    """Read a list: text, JSON lines, or as its suffix says CSV or Parquet.

    Args:
        name: Of the list; of one in a store the URL, and what it names is named from its place.
        nul: Whether NUL ends its paths, rather than the end of a line.
        column: Of a table, which names the images.

    Raises:
        NoInputError: It cannot be read.
        AccessError: The system or the store does not let us.
        UnavailableError: The store fails, or a package is missing.
        UsageError: It is no list, or of another kind than `nul` and `column` say.
    """
    suffix = os.path.splitext(path_of(name))[1].lower()
    is_table = suffix in (*CSV_SUFFIXES, *PARQUET_SUFFIXES)
    if nul and is_table:
        raise UsageError(f"--null is about lists of paths: {shown(name)!r} is a table.")
    if column is not None and not is_table:
        raise UsageError(f"--column is about tables, .csv and .parquet: {shown(name)!r} is none.")
    entries = _entries(container_of(name), suffix, nul, column)
    yield from (_beside(name, entry) for entry in entries) if is_url(name) else entries


def _entries(place: Container, suffix: str, nul: bool, column: str | None) -> Iterator[str | Listed]:
    where = f"list {place.name!r}"
    try:
        if suffix in PARQUET_SUFFIXES:
            yield from parquet_rows(place, where, column)
            return
        # A list here may be a pipe, as in `--from-file <(find ...)`.
        with open(place.name, "rb") if isinstance(place, LocalFile) else place.open() as stream:
            if suffix in CSV_SUFFIXES:
                yield from csv_rows(stream, place.name, where, column)
            else:
                yield from listed_in(stream, nul, where)
    except PermissionError as error:
        raise AccessError(f"{where} cannot be read: {reason(error)}.") from error
    except OSError as error:
        raise NoInputError(f"{where} cannot be read: {reason(error)}.") from error


def _beside(url: str, entry: str | Listed) -> str | Listed:
    if isinstance(entry, str):
        return beside(url, entry)
    return Listed(beside(url, entry.file), entry.fields) if isinstance(entry.file, str) else entry


def listed_in(stream: IO[bytes] | Rejoined, nul: bool, where: str) -> Iterator[str | Listed]:
    """The paths of a list, read as they are asked for; of JSON lines with what they say."""
    blocks = _blocks(stream, where)
    first = next(blocks, b"")
    if nul:
        for some in _split(chain([first], blocks), b"\0", MAX_ENTRY, where):
            yield from filter(None, _decoded(some, b"\0"))
        return
    first = first.removeprefix(b"\xef\xbb\xbf")
    if begins_json_lines(first):
        lines = chain.from_iterable(_split(chain([first], blocks), b"\n", MAX_OBJECT, where))
        for number, line in enumerate(lines, 1):
            if line.strip():
                path, fields = read_object(os.fsdecode(line), number, where)
                yield Listed(path, fields) if fields else path
        return
    for some in _split(chain([first], blocks), b"\n", MAX_ENTRY, where):
        if any(b"\0" in entry for entry in some):
            raise UsageError(f"{where} holds NUL bytes: add --null if NUL ends its paths.")
        # A list from Windows has "\r" too.
        yield from filter(None, (entry.removesuffix("\r") for entry in _decoded(some, b"\n")))


def _split(blocks: Iterable[bytes], end: bytes, longest: int, where: str) -> Iterator[list[bytes]]:
    """What stands before, between and after the ends, many at a time."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(end)
        yield whole
        if len(rest) > longest:
            raise UsageError(f"{where} is no list of paths: one of them has over {longest} bytes.")
    yield [rest]


def _blocks(stream: IO[bytes] | Rejoined, where: str) -> Iterator[bytes]:
    try:
        while block := stream.read(MAX_ENTRY):
            yield block
    except OSError as error:
        raise NoInputError(f"{where} cannot be read: {reason(error)}.") from error


def _decoded(entries: list[bytes], end: bytes) -> list[str]:
    """Each decoded, all in one step: none of them holds the end."""
    return os.fsdecode(end.join(entries)).split(os.fsdecode(end)) if entries else []
