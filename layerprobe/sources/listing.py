"""Files, folders, globs, tar files and lists of paths, as typed -> one source of images."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import IO

from layerprobe.columns import Packed
from layerprobe.errors import AccessError, NoInputError, UsageError
from layerprobe.images.signatures import HEAD, IMAGE_SUFFIXES
from layerprobe.sources.braces import has_braces, names_of
from layerprobe.sources.file_source import FileSource
from layerprobe.sources.files import Container, LocalFile, Readable, reason
from layerprobe.sources.folder import images_in
from layerprobe.sources.jsonlines import Listed
from layerprobe.sources.lists import entries_of, listed_in
from layerprobe.sources.remote import RemoteFile, images_below, named_at, remote_file
from layerprobe.sources.tar import is_tar, members_of
from layerprobe.sources.tar_stream import (
    Rejoined,
    TarStream,
    begins_tar,
    compressed_tar,
    is_compressed_tar,
    piped_tar,
)
from layerprobe.stores.urls import is_url, path_of, shown, without_file

_PLAIN = tuple(sorted(IMAGE_SUFFIXES))
"""Endings of which most names are: nothing else that is looked for has them."""

Name = str | bytes | os.PathLike[str]
_File = str | Readable | TarStream


def image_source(
    inputs: Sequence[Name],
    *,
    lists: Sequence[Name] = (),
    nul: bool = False,
    column: str | None = None,
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
        lists: Files that hold a path a line, from the working directory, or an object with a path (empty
            lines are skipped), or tables. Names with braces stand for several.
        nul: Paths in lists end with NUL instead, so that they may hold any other byte.
        column: Of lists that are tables, which names the images.
        stdin: Where the list, or tar file, of `-` comes from.
        limit: Only this many rows, the first ones.

    Raises:
        NoInputError: An input or list does not exist, a pattern matches nothing, or there is not one image.
        AccessError: A folder or list that was named cannot be read.
        UsageError: A list is none, or there is no `stdin` for `-`.
    """
    given = [without_file(os.fsdecode(name)) for name in inputs]
    listed = [without_file(os.fsdecode(name)) for name in lists]
    if given.count("-") > (stdin is not None):
        raise UsageError("`-` reads a list from standard input, once.")
    files: Packed[_File | Listed] = Packed()
    empty: list[str] = []

    def take(more: Iterable[_File | Listed], of_folder: bool = False) -> int:
        before = len(files)
        within = more if of_folder else chain.from_iterable(map(_files_of, more))
        files.extend(islice(within, None if limit is None else limit - before))
        return len(files) - before

    for name in given:
        if name == "-" and stdin is not None:
            take(_piped(stdin, nul))
        elif (named := _named(name)) is not None:
            take(named)
        elif not take(_folder(name), of_folder=not is_url(name)) and len(files) != limit:
            empty.append(name)
            files.append(remote_file(name) if is_url(name) else name)
    for name in listed:
        many = has_braces(name) and (is_url(name) or not os.path.lexists(name))
        for each in names_of(name) if many else [name]:
            take(entries_of(each, nul, column))
    if len(files) == len(empty):
        places = ", ".join(repr(shown(name)) for name in [*given, *listed][:5])
        raise NoInputError(f"no images found in {places or 'an empty list of inputs'}.")
    return FileSource(files)


def _files_of(given: _File | Listed) -> Iterable[_File | Listed]:
    """What a name stands for: itself, or what is in the tar file."""
    if isinstance(given, str) and given.endswith(_PLAIN) and "://" not in given:
        return (given,)
    if isinstance(given, Listed):
        return (Listed(file, given.fields) for file in _within(given.file))
    return _within(given)


def _within(given: _File) -> Iterable[_File]:
    file = remote_file(given) if isinstance(given, str) and is_url(given) else given
    container: Container
    if isinstance(file, str):
        name, container = file, LocalFile(file)
    elif isinstance(file, RemoteFile):
        name, container = path_of(file.url), file
    else:
        return (file,)
    if is_tar(name):
        return members_of(container)
    return (compressed_tar(container),) if is_compressed_tar(name) else (file,)


def _piped(stdin: IO[bytes], nul: bool) -> Iterable[_File | Listed]:
    head = stdin.read(HEAD)
    if begins_tar(head):
        return (piped_tar(head, stdin),)
    return listed_in(Rejoined(head, stdin), nul, "standard input")


def _folder(name: str) -> Iterator[_File]:
    if is_url(name):
        yield from images_below(name)
        return
    try:
        yield from images_in(name)
    except PermissionError as error:
        raise AccessError(f"folder {name!r} cannot be listed: {reason(error)}.") from error


def _named(name: str) -> Iterable[_File] | None:
    """The file of that name, or the files that it stands for; None for a folder."""
    if is_url(name):
        return named_at(name)
    if os.path.isdir(name):
        return None
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
    if has_braces(name):
        return chain.from_iterable(_named(each) or _folder(each) for each in names_of(name))
    if not glob.has_magic(name):
        raise NoInputError(f"no such file: {name!r}.")
    return _matching(name)


def _matching(pattern: str) -> list[_File]:
    """The files that match a pattern, and what is in the folders that do."""
    matches = sorted(filter(_is_no_loop, glob.iglob(pattern, recursive=True)), key=os.fsencode)
    files: list[_File] = []
    for match in matches:
        if not os.path.isdir(match):
            files.append(match)
        elif "**" not in pattern:  # where it is, what the folder holds matches by itself
            files.extend(_folder(match))
    if not files:
        raise NoInputError(f"no file matches {pattern!r}.")
    return files


def _is_no_loop(path: str) -> bool:
    """Whether no folder on the way holds itself, through a link to a folder above it."""
    parts = path.split(os.sep)[:-1]
    folders = [os.path.realpath(os.sep.join(parts[: end + 1]) or os.sep) for end in range(len(parts))]
    named = [folder for folder, part in zip(folders, parts, strict=True) if part not in ("", ".", "..")]
    return len(set(named)) == len(named)
