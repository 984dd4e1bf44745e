"""The images behind the rows of an output, found again: where they were, or where they moved to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial

from layerprobe.errors import LayerprobeError, SampleError
from layerprobe.sources.files import read_file
from layerprobe.sources.remote import container_of, remote_file
from layerprobe.sources.tar import is_tar, members_of
from layerprobe.sources.tar_stream import compressed_tar, is_compressed_tar
from layerprobe.stores.urls import HIDDEN, is_url

Read = Callable[[], bytes]
"""Gives the bytes of an image; raises SampleError, or what a store that cannot be reached raises."""


class Originals:
    """Finds and reads images by the names of their rows.

    Args:
        beside: The folder of the output, where relative names are looked for too.
        folder: Where to look first; "" where they were.
        started: When the run began, as ISO 8601; "" where that is not known.
    """

    def __init__(self, beside: str, folder: str, started: str) -> None:
        self._beside, self._folder = beside, folder
        try:
            # It is a whole second, rounded down.
            self._started = datetime.fromisoformat(started).timestamp() + 1
        except (ValueError, OverflowError, OSError):
            self._started = float("inf")

    def read_all(self, keys: Mapping[int, str]) -> Iterator[tuple[int, Read]]:
        """Find the images of some rows; nothing is read but what leads to them.

        Args:
            keys: Row -> its name.

        Returns:
            Each row once, in any order, with what reads it.
        """
        archives: dict[str, dict[str, list[int]]] = {}
        for row, key in keys.items():
            archive, inside, member = key.partition("::")
            if inside and (archive == "-" or _is_archive(archive)):
                archives.setdefault(archive, {}).setdefault(member, []).append(row)
            else:
                yield row, self._reading(self._located(key))
        for archive, members in archives.items():
            yield from self._within(archive, members)

    def has_changed(self, key: str) -> bool:
        """Whether the file of a row was written to after the second in which the run began.

        Not known of files that moved.
        """
        archive, inside, _ = key.partition("::")
        path = archive if inside and _is_archive(archive) else key
        try:
            return self._located(path) == path and os.stat(path).st_mtime > self._started
        except (OSError, ValueError):
            return False

    def _located(self, path: str) -> str:
        """Where a file is now, or was."""
        if is_url(path) and not self._folder:
            return path
        parts = [part for part in path.split(os.sep) if part not in ("", ".", "..")]
        candidates = [os.path.join(self._folder, *parts[first:]) for first in range(len(parts))]
        if not self._folder:
            candidates = [path, os.path.join(self._beside, path)]
        return next(filter(_is_there, candidates), path)

    def _reading(self, path: str) -> Read:
        if not is_url(path):
            return partial(read_file, path)
        if HIDDEN in path:
            return partial(_not_there, "the password in its URL is not recorded")
        return remote_file(path).read

    def _images_in(self, archive: str) -> Iterator[tuple[str, Read]]:
        """The names in a tar file, with what reads them."""
        if archive == "-":
            return
        container = container_of(self._located(archive))
        members = members_of(container) if is_tar(archive) else compressed_tar(container)
        start = len(container.name) + len("::")
        yield from ((member.key[start:], member.read) for member in members)

    def _within(self, archive: str, members: dict[str, list[int]]) -> Iterator[tuple[int, Read]]:
        left = dict(members)
        why = "came through a pipe" if archive == "-" else "no longer in the tar file"
        try:
            for name, read in self._images_in(archive):
                for row in left.pop(name, ()):
                    yield row, read
        except LayerprobeError as error:
            why = str(error)
        for rows in left.values():
            yield from ((row, partial(_not_there, why)) for row in rows)


def _is_archive(name: str) -> bool:
    return is_tar(name) or is_compressed_tar(name)


def _not_there(why: str) -> bytes:
    raise SampleError(why)


def _is_there(path: str) -> bool:
    return os.path.lexists(path) if "\0" not in path else False
