"""Files, folders, globs, tar files and lists of paths, as typed -> one source of images."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import IO

from layerprobe.errors import AccessError, NoInputError, UsageError
from layerprobe.images.signatures import HEAD
from layerprobe.sources.file_source import FileSource
from layerprobe.sources.files import Readable, reason
from layerprobe.sources.folder import images_in
from layerprobe.sources.jsonlines import MAX_OBJECT, Listed, begins_json_lines, read_object
from layerprobe.sources.tar import is_tar, members_of
from layerprobe.sources.tar_stream import (
    Rejoined,
    TarStream,
    begins_tar,
    compressed_tar,
    is_compressed_tar,
    piped_tar,
)

MAX_ENTRY = 2**16
"""Bytes of one path in a list; a longer one means that the file is no list."""

Name = str | bytes | os.PathLike[str]
_File = str | Readable | TarStream


def image_source(
    inputs: Sequence[Name],
    *,
    lists: Sequence[Name] = (),
    nul: bool = False,
    stdin: IO[bytes] | None = None,
    limit: int | None = None,
) -> FileSource:
    """Expand what the user typed to image files; none of them is opened but to see whether it is an image.

    A file that is named, or matched by a pattern, or in a list is a row, whatever it is; of folders see
    `images_in`, of tar files, which their suffix tells, `members_of`, of compressed ones `TarStream`. Rows
    keep the order of the inputs, then of the lists; what is named twice is two rows.

    Args:
        inputs: Files; folders; patterns with `*`, `?`, `[...]` and `**` (only where no file has that very
            name); `-` for a list from `stdin`, or a tar file, which its content tells.
        lists: Files that hold a path a line, from the working directory, or an object with a path; empty
            lines are skipped.
        nul: Paths in lists end with NUL instead, so that they may hold any other byte.
        stdin: Where the list, or tar file, of `-` comes from.
        limit: Only this many rows, the first ones.

    Raises:
        NoInputError: An input or list does not exist, a pattern matches nothing, or there is not one image.
        AccessError: A folder or list that was named cannot be read.
        UsageError: A list is none, or there is no `stdin` for `-`.
    """
    given = [os.fsdecode(name) for name in inputs]
    if given.count("-") > (stdin is not None):
        raise UsageError("`-` reads a list from standard input, once.")
    files: list[_File | Listed] = []
    empty: list[str] = []

    def take(more: Iterable[_File | Listed]) -> int:
        before = len(files)
        within = chain.from_iterable(map(_files_of, more))
        files.extend(islice(within, None if limit is None else limit - before))
        return len(files) - before

    for name in given:
        if name == "-" and stdin is not None:
            take(_piped(stdin, nul))
        elif not os.path.isdir(name):
            take(_named(name))
        elif not take(_folder(name)) and len(files) != limit:
            empty.append(name)
            files.append(name)
    for name in map(os.fsdecode, lists):
        take(_list(name, nul))
    if len(files) == len(empty):
        places = ", ".join(repr(name) for name in [*given, *map(os.fsdecode, lists)][:5])
        raise NoInputError(f"no images found in {places or 'an empty list of inputs'}.")
    return FileSource(files)


def _files_of(given: _File | Listed) -> Iterable[_File | Listed]:
    """What a name stands for: itself, or what is in the tar file."""
    if isinstance(given, Listed):
        return (Listed(file, given.fields) for file in _within(given.file))
    return _within(given)


def _within(file: _File) -> Iterable[_File]:
    if isinstance(file, str) and is_tar(file):
        return members_of(file)
    return (compressed_tar(file),) if isinstance(file, str) and is_compressed_tar(file) else (file,)


def _piped(stdin: IO[bytes], nul: bool) -> Iterable[_File | Listed]:
    head = stdin.read(HEAD)
    if begins_tar(head):
        return (piped_tar(head, stdin),)
    return _entries(Rejoined(head, stdin), nul, "standard input")


def _folder(name: str) -> Iterator[str]:
    try:
        yield from images_in(name)
    except PermissionError as error:
        raise AccessError(f"folder {name!r} cannot be listed: {reason(error)}.") from error


def _named(name: str) -> list[str]:
    """The file of that name, or the files that match it."""
    try:
        os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return [name]
    except ValueError:
        raise UsageError(f"a path cannot hold a NUL byte. Received: {name!r}") from None
    else:
        return [name]
    if not glob.has_magic(name):
        raise NoInputError(f"no such file: {name!r}.")
    matches = sorted(filter(_is_no_loop, glob.iglob(name, recursive=True)), key=os.fsencode)
    files: list[str] = []
    for match in matches:
        if not os.path.isdir(match):
            files.append(match)
        elif "**" not in name:  # where it is, what the folder holds matches by itself
            files.extend(_folder(match))
    if not files:
        raise NoInputError(f"no file matches {name!r}.")
    return files


def _list(name: str, nul: bool) -> Iterator[str | Listed]:
    try:
        with open(name, "rb") as file:  # may be a pipe, as in `--from-file <(find ...)`
            yield from _entries(file, nul, f"list {name!r}")
    except PermissionError as error:
        raise AccessError(f"list {name!r} cannot be read: {reason(error)}.") from error
    except OSError as error:
        raise NoInputError(f"list {name!r} cannot be read: {reason(error)}.") from error


def _entries(stream: IO[bytes] | Rejoined, nul: bool, where: str) -> Iterator[str | Listed]:
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


def _is_no_loop(path: str) -> bool:
    """Whether no folder on the way holds itself, through a link to a folder above it."""
    parts = path.split(os.sep)[:-1]
    folders = [os.path.realpath(os.sep.join(parts[: end + 1]) or os.sep) for end in range(len(parts))]
    named = [folder for folder, part in zip(folders, parts, strict=True) if part not in ("", ".", "..")]
    return len(set(named)) == len(named)
