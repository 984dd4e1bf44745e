"""Lists of paths: text, a path a line, or JSON lines; read as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO

from layerprobe.errors import AccessError, NoInputError, UsageError
from layerprobe.sources.files import reason
from layerprobe.sources.jsonlines import MAX_OBJECT, Listed, begins_json_lines, read_object
from layerprobe.sources.remote import remote_file
from layerprobe.sources.tar_stream import Rejoined
from layerprobe.stores.urls import beside, is_url

MAX_ENTRY = 2**16
"""Bytes of one path in a list; a longer one means that the file is no list."""


def entries_of(name: str, nul: bool) -> Iterator[str | Listed]:
    """Read a list.

    Args:
        name: Of the list; of one in a store the URL, and what it names is named from its place.
        nul: Whether NUL ends its paths, rather than the end of a line.

    Raises:
        NoInputError: It cannot be read.
        AccessError: The system or the store does not let us.
        UnavailableError: The store fails.
        UsageError: It is no list.
    """
    if is_url(name):
        place = remote_file(name)
        with place.open() as stream:
            for entry in listed_in(stream, nul, f"list {place.name!r}"):
                yield _beside(name, entry)
        return
    try:
        with open(name, "rb") as file:  # may be a pipe, as in `--from-file <(find ...)`
            yield from listed_in(file, nul, f"list {name!r}")
    except PermissionError as error:
        raise AccessError(f"list {name!r} cannot be read: {reason(error)}.") from error
    except OSError as error:
        raise NoInputError(f"list {name!r} cannot be read: {reason(error)}.") from error


def _beside(url: str, entry: str | Listed) -> str | Listed:
    if isinstance(entry, Listed):
        assert isinstance(entry.file, str)
        return Listed(beside(url, entry.file), entry.fields)
    return beside(url, entry)


def listed_in(stream: IO[bytes] | Rejoined, nul: bool, where: str) -> Iterator[str | Listed]:
    """The paths of a list, read as they are asked for; of JSON lines with what they say."""
    blocks = _blocks(stream, where)
    first = next(blocks, b"")
    if nul:
        yield from _decoded(_split(chain([first], blocks), b"\0", MAX_ENTRY, where), nul)
        return
    first = first.removeprefix(b"\xef\xbb\xbf")
    if begins_json_lines(first):
        for number, line in enumerate(_split(chain([first], blocks), b"\n", MAX_OBJECT, where), 1):
            if line.strip():
                path, fields = read_object(os.fsdecode(line), number, where)
                yield Listed(path, fields) if fields else path
        return
    for entry in _decoded(_split(chain([first], blocks), b"\n", MAX_ENTRY, where), nul):
        if "\0" in entry:
            raise UsageError(f"{where} holds NUL bytes: add --null if NUL ends its paths.")
        yield entry


def _split(blocks: Iterable[bytes], end: bytes, longest: int, where: str) -> Iterator[bytes]:
    """What stands before, between and after the ends."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(end)
        yield from whole
        if len(rest) > longest:
            raise UsageError(f"{where} is no list of paths: one of them has over {longest} bytes.")
    yield rest


def _blocks(stream: IO[bytes] | Rejoined, where: str) -> Iterator[bytes]:
    try:
        while block := stream.read(MAX_ENTRY):
            yield block
    except OSError as error:
        raise NoInputError(f"{where} cannot be read: {reason(error)}.") from error


def _decoded(entries: Iterable[bytes], nul: bool) -> Iterator[str]:
    for entry in entries:
        if not nul:
            entry = entry.removesuffix(b"\r")  # a list from Windows
        if entry:
            yield os.fsdecode(entry)
