"""Files, folders, globs, tar files and lists of paths, as typed -> one source of images."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import IO

from layerprobe.errors import AccessError, NoInputError, UsageError
from layerprobe.sources.files import FileSource, reason
from layerprobe.sources.folder import images_in
from layerprobe.sources.tar import TarMember, is_tar, members_of

MAX_ENTRY = 2**16
"""Bytes of one path in a list; a longer one means that the file is no list."""

Name = str | bytes | os.PathLike[str]


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
    `images_in`, of tar files, which their suffix tells, `members_of`. Rows keep the order of the inputs, then
    of the lists; what is named twice is two rows.

    Args:
        inputs: Files; folders; patterns with `*`, `?`, `[...]` and `**` (only where no file has that very
            name); `-` for a list from `stdin`.
        lists: Files that hold a path a line, from the working directory; empty lines are skipped.
        nul: Paths in lists end with NUL instead, so that they may hold any other byte.
        stdin: Where the list of `-` comes from.
        limit: Only this many rows, the first ones.

    Raises:
        NoInputError: An input or list does not exist, a pattern matches nothing, or there is not one image.
        AccessError: A folder or list that was named cannot be read.
        UsageError: A list is none, or there is no `stdin` for `-`.
    """
    given = [os.fsdecode(name) for name in inputs]
    if given.count("-") > (stdin is not None):
        raise UsageError("`-` reads a list from standard input, once.")
    files: list[str | TarMember] = []
    empty: list[str] = []

    def take(more: Iterable[str]) -> int:
        before = len(files)
        within = chain.from_iterable(map(_files_of, more))
        files.extend(islice(within, None if limit is None else limit - before))
        return len(files) - before

    for name in given:
        if name == "-" and stdin is not None:
            take(_entries(stdin, nul, "standard input"))
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


def _files_of(path: str) -> Iterable[str | TarMember]:
    return members_of(path) if is_tar(path) else (path,)


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


def _list(name: str, nul: bool) -> Iterator[str]:
    try:
        with open(name, "rb") as file:  # may be a pipe, as in `--from-file <(find ...)`
            yield from _entries(file, nul, f"list {name!r}")
    except PermissionError as error:
        raise AccessError(f"list {name!r} cannot be read: {reason(error)}.") from error
    except OSError as error:
        raise NoInputError(f"list {name!r} cannot be read: {reason(error)}.") from error


def _entries(stream: IO[bytes], nul: bool, where: str) -> Iterator[str]:
    """The paths of a list, read as they are asked for."""
    end = b"\0" if nul else b"\n"
    rest = b""
    for number, block in enumerate(_blocks(stream, where)):
        if not nul:
            if number == 0:
                block = block.removeprefix(b"\xef\xbb\xbf")
            if b"\0" in block:
                raise UsageError(f"{where} holds NUL bytes: add --null if NUL ends its paths.")
        *whole, rest = (rest + block).split(end)
        yield from _decoded(whole, nul)
        if len(rest) > MAX_ENTRY:
            raise UsageError(f"{where} is no list of paths: one of them has over {MAX_ENTRY} bytes.")
    yield from _decoded([rest], nul)


def _blocks(stream: IO[bytes], where: str) -> Iterator[bytes]:
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
