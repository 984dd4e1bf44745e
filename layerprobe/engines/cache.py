"""What a run has worked out for later runs, on this user's disk: one file per entry, read as data.

A file is the line `layerprobe cache 1`, a line with the SHA-256 of all that follows, a line of JSON padded
to a multiple of 4,096 bytes, and the parts that the JSON tells the lengths of. Files come under their names
whole, are the user's own, are not written to again, and are dropped when the folder grows over its limit,
those first that were not used for longest. A file that others could have written, or that is damaged, is as
good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerprobe.stores.cache_place import MODELS, cache_folder

LIMIT = 2 << 30
"""Bytes that all entries together may have."""

_MAGIC = b"layerprobe cache 1\n"
_DIGEST = len(_MAGIC) + 65
"""Where what the digest is of begins."""
_PAGE = 4096
_MAX_ABOUT = 64 << 20
_SUFFIX, _UNFINISHED = ".entry", ".part"
_STALE_SECONDS = 24 * 3600
"""An unfinished file of that age is what a killed process left."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, read whole and found undamaged."""

    about: Mapping[str, Any]
    parts: Mapping[str, memoryview]
    """Bytes by name; they stay mapped as long as any of them is referred to."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry as its folder shows it."""

    key: str
    size: int
    """Bytes on disk."""
    used: float
    """When it was last read or written, in seconds since 1970."""
    about: Mapping[str, Any]


class Cache:
    """A folder of entries.

    Args:
        folder: Made when the first entry is kept; "" where there is no place for one.
        limit: Bytes that all entries together may have.
    """

    def __init__(self, folder: str, limit: int = LIMIT) -> None:
        self.folder = folder
        self._limit = limit

    def find(self, key: str) -> Entry | None:
        """The entry of that key, where there is a sound one; a damaged one is removed."""
        with contextlib.suppress(OSError), _opened(self._path(key)) as descriptor:
            entry = _read(descriptor)
            if entry is None:
                os.unlink(self._path(key))
            else:
                with contextlib.suppress(OSError):  # On a disk that only can be read.
                    os.utime(descriptor)
            return entry
        return None

    def keep(self, key: str, about: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
        """Put an entry on disk, in place of another of the same key; then drop what is too much.

        Raises:
            OSError: It cannot be kept: the folder cannot be written or is not the user's own, the disk is
                full, or the entry alone is larger than the limit.
        """
        size = sum(map(len, parts.values()))
        if size > self._limit:
            raise OSError(f"{size >> 20} MiB are more than the cache may hold")
        self._make_folder()
        path = f"{self._path(key)}.{secrets.token_hex(8)}{_UNFINISHED}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _write(file, about, parts)
            os.replace(path, self._path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        self._flush_folder()
        self._shrink(spared=key)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[str]:
        """A folder of the same disk for files on their way into an entry, removed at the end.

        Raises:
            OSError: There can be none.
        """
        self._make_folder()
        with tempfile.TemporaryDirectory(suffix=_UNFINISHED, dir=self.folder) as folder:
            yield folder

    def entries(self) -> list[Listed]:
        """What there is, last used first; files that are not the user's own, or no entries, are left out."""
        found = []
        for name in self._names(_SUFFIX):
            path = os.path.join(self.folder, name)
            with contextlib.suppress(OSError), _opened(path) as descriptor:
                about = _read_about(descriptor)
                status = os.fstat(descriptor)
                if about is not None:
                    key = name.removesuffix(_SUFFIX)
                    found.append(Listed(key, status.st_size, status.st_mtime, about[0]))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Remove all entries, damaged and unfinished ones too, and fetched models; gives how many there were.

        Raises:
            OSError: One cannot be removed.
        """
        names = [*self._names(_SUFFIX), *self._names(_UNFINISHED), *self._names(MODELS)]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                _remove(os.path.join(self.folder, name))
        return len(names)

    def _path(self, key: str) -> str:
        if not self.folder:
            raise FileNotFoundError
        return os.path.join(self.folder, key + _SUFFIX)

    def _names(self, suffix: str) -> list[str]:
        try:
            return [name for name in os.listdir(self.folder) if name.endswith(suffix)]
        except OSError:
            return []

    def _make_folder(self) -> None:
        if not self.folder:
            raise OSError("there is no home for it: set LAYERPROBE_CACHE to a folder")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if not _only_ours(os.stat(self.folder)):
            raise OSError(f"{self.folder} is another user's, or others may write to it")

    def _flush_folder(self) -> None:
        """Have the new name on disk, where the system knows folders as files."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _shrink(self, spared: str) -> None:
        """Drop what a killed process left, then entries, those longest unused first, down to the limit."""
        for name in self._names(_UNFINISHED):
            path = os.path.join(self.folder, name)
            with contextlib.suppress(OSError):
                if time.time() - os.stat(path).st_mtime > _STALE_SECONDS:
                    _remove(path)
        files = []
        for name in self._names(_SUFFIX):
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(self.folder, name))
                files.append((name == spared + _SUFFIX, status.st_mtime, status.st_size, name))
        total = sum(size for _, _, size, _ in files)
        for _, _, size, name in sorted(files):
            if total <= self._limit:
                break
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, name))
            total -= size


def user_cache() -> Cache | None:
    """This user's cache: $LAYERPROBE_CACHE, or the place that the system has for such things.

    Returns:
        None where $LAYERPROBE_CACHE is empty: the user wants none.
    """
    folder = cache_folder()
    return None if folder is None else Cache(folder)


_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open an entry for reading. Raises OSError unless it is a file of the user's own."""
    descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _only_ours(status):
            raise OSError(f"{path} is not a file of this user's own")
        yield descriptor
    finally:
        os.close(descriptor)


def _only_ours(status: os.stat_result) -> bool:
    """Whether nobody but this user can have written it."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _remove(path: str) -> None:
    """Remove a file, or a folder that `workspace` made."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _write(file: Any, about: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
    """Write an entry and have it on disk."""
    lengths = {name: len(data) for name, data in parts.items()}
    text = json.dumps({"about": about, "parts": lengths}).encode()
    text = text.ljust(-(-(_DIGEST + len(text) + 1) // _PAGE) * _PAGE - _DIGEST - 1) + b"\n"
    digest = hashlib.sha256(text)
    for data in parts.values():
        digest.update(data)
    file.write(_MAGIC + digest.hexdigest().encode() + b"\n" + text)
    for data in parts.values():
        file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _read(descriptor: int) -> Entry | None:
    """The whole entry; None where a byte of it is not what was written."""
    described = _read_about(descriptor)
    if described is None:
        return None
    about, lengths, start = described
    # A private copy, of which nothing is copied: OpenVINO takes only memory that could be written to.
    mapped = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    if len(mapped) != start + sum(lengths.values()):
        return None
    if hashlib.sha256(mapped[_DIGEST:]).hexdigest().encode() != mapped[len(_MAGIC) : _DIGEST - 1]:
        return None
    parts = {}
    for name, length in lengths.items():
        parts[name] = mapped[start : start + length]
        start += length
    return Entry(about, parts)


def _read_about(descriptor: int) -> tuple[dict[str, Any], dict[str, int], int] | None:
    """What an entry says of itself, the lengths of its parts, and where they begin; None for other files."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return None
        file.seek(_DIGEST)
        line = file.readline(_MAX_ABOUT)
    try:
        header = json.loads(line)
        lengths = {str(name): int(length) for name, length in header["parts"].items()}
        return dict(header["about"]), lengths, _DIGEST + len(line)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
