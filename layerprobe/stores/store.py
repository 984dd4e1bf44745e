"""One store that fsspec reaches: what is in it, and its bytes, each request repeated where that may help."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from layerprobe.errors import AccessError, NoInputError, UnavailableError, UsageError
from layerprobe.stores.attempts import (
    Attempts,
    DeniedError,
    MissingError,
    NoRangesError,
    StoreError,
    meaning,
)
from layerprobe.stores.servers import CONNECT_SECONDS, server_of
from layerprobe.stores.urls import WEB, protocol_of, shown

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

THREADS = 16
"""So many requests are under way at a time: a store takes long for each, and can do many."""

READ_SECONDS = 20
"""How long nothing may come through a connection."""

EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "abfs"),
    **dict.fromkeys(("http", "https"), "http"),
    "hf": "hf",
}
"""Protocol -> the extra of this package that brings what it needs."""

_TALKATIVE = ("adlfs", "azure", "gcsfs", "google")
"""Loggers that write whole tracebacks to standard error where nobody has said what to do with their words."""
_SILENT = logging.NullHandler()

_VERSIONS = (
    *("ETag", "etag", "e_tag", "md5Hash", "generation", "content_md5", "sha256", "blob_id", "oid"),
    *("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "modified", "created"),
)
"""Where the file systems of fsspec tell that an object is another than before, the surest first."""


@dataclass(frozen=True, slots=True)
class Found:
    """One object, or folder of such, as its store tells it."""

    path: str
    """As fsspec calls it within its store."""
    is_folder: bool
    size: int | None
    """In bytes; None where the store does not say."""
    version: bytes
    """Another one when the object was changed; b"" where the store does not say."""


class Store:
    """A file system of fsspec. All threads share it.

    Args:
        protocol: As it is called in URLs.
        system: The file system.
        attempts: Those that are made at it; None: none was made yet.
    """

    def __init__(self, protocol: str, system: AbstractFileSystem, attempts: Attempts | None = None) -> None:
        self.protocol, self.system = protocol, system
        self.attempts = attempts or Attempts(f"{protocol}://")

    def find(self, path: str) -> Found:
        """Ask for one object or folder. Raises StoreError."""
        if self.protocol in WEB and path.endswith("/"):
            return Found(path, True, None, b"")
        return self._found(self.attempts(lambda: self.system.info(path)))

    def entries(self, folder: str) -> list[Found]:
        """List what is in a folder, not deeper, in the order of the names' bytes. Raises StoreError."""
        listed = self.attempts(lambda: self.system.ls(folder, detail=True, **self._anew()))
        within = map(self._found, listed)
        top = folder.rstrip("/")  # A store may keep an empty object of that name, as the folder's place.
        return sorted(
            (found for found in within if found.path.rstrip("/") != top),
            key=lambda found: os.fsencode(found.path.rstrip("/")),
        )

    def matching(self, pattern: str) -> list[Found]:
        """Find what matches a pattern, in the order of the names' bytes. Raises StoreError."""
        listed = self.attempts(lambda: self.system.glob(pattern, detail=True))
        return sorted(map(self._found, listed.values()), key=lambda found: os.fsencode(found.path))

    def read(self, path: str, size: int | None = None) -> bytes:
        """Read a whole object, of `size` bytes if that is known. Raises StoreError."""
        if size is not None and self.protocol not in WEB:
            return self.read_range(path, 0, size) if size else b""
        data: bytes = self.attempts(lambda: self.system.cat_file(path))
        return data

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Read some bytes of an object that has them.

        Raises:
            StoreError: A kind of it.
            NoRangesError: This store gives whole objects only.
        """

        def part() -> bytes:
            data = self._part(path, start, stop)
            if len(data) > stop - start:
                raise NoRangesError("the store gives whole objects only")
            if len(data) < stop - start:
                raise StoreError(f"{len(data)} of {stop - start} bytes came")
            return data

        return self.attempts(part) if stop > start else b""

    def _part(self, path: str, start: int, stop: int) -> bytes:
        if self.protocol not in WEB:
            data: bytes = self.system.cat_file(path, start=start, end=stop)
            return data
        # A server without ranges sends all there is: here no more of that is read than is wanted.
        with self.system.open(path, block_size=stop - start, cache_type="none", size=stop) as file:
            file.seek(start)
            try:
                data = file.read(stop - start)
            except ValueError as error:
                raise NoRangesError("the store gives whole objects only") from error
            return data

    def _found(self, info: Mapping[str, Any]) -> Found:
        size = info.get("size")
        told = next((info[name] for name in _VERSIONS if info.get(name)), None)
        version = b"" if told is None else f"{size}:{told}".encode("utf-8", "backslashreplace")
        is_folder = info.get("type") == "directory"
        return Found(str(info["name"]), is_folder, None if size is None else int(size), version)

    def _anew(self) -> dict[str, bool]:
        """Have s3fs and its like list again, instead of what they remember."""
        return {} if self.protocol in (*WEB, "memory", "file") else {"refresh": True}


def store_of(url: str) -> tuple[Store, str]:
    """Find the store of a URL, and what fsspec calls the object in it.

    Raises:
        UsageError: There are no such URLs.
        AccessError: The store wants to know who asks.
        UnavailableError: A package is not installed, or a store that is connected to at once does not answer.
    """
    system, path = _opened(url, _options)
    protocol = protocol_of(url)
    if protocol in WEB:  # One file system has all servers, of which one may be gone.
        return Store(protocol, system, server_of(url)), path
    return _store(protocol, system), path


def writing_store(url: str) -> tuple[Store, str]:
    """Find a store as `store_of`, as a file system of its own that repeats the parts of an upload itself."""
    system, path = _opened(url, lambda *_: {"skip_instance_cache": True, "use_listings_cache": False})
    return Store(protocol_of(url), system), path


def _opened(url: str, options: Callable[[str, Any], dict[str, Any]]) -> tuple[AbstractFileSystem, str]:
    protocol = protocol_of(url)
    if protocol in ("s3", "s3a") and "@" in url.partition("://")[2].partition("/")[0]:
        raise UsageError(
            f"{shown(url)!r} has a user or password in it, which {protocol}:// does not take: give them as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws."
        )
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise _missing(protocol, url) from error
    for name in _TALKATIVE:
        logging.getLogger(name).addHandler(_SILENT)
    try:
        system, path = url_to_fs(url, **options(protocol, fsspec.config.conf))
    except ImportError as error:
        raise _missing(protocol, url) from error
    except ValueError as error:
        words = " ".join(str(error).split())
        if "credential" in words.lower():  # so Azure's says that it does not know the account
            raise AccessError(
                f"{shown(url)!r} cannot be reached ({words[:160].rstrip('!.')}): give them in the "
                "environment or in fsspec's configuration."
            ) from error
        raise UsageError(f"{shown(url)!r} is no URL that fsspec knows ({words[:120]}).") from error
    except Exception as error:  # some connect at once, and each has classes of its own: `meaning` knows them
        found = meaning(error)
        if isinstance(found, DeniedError):
            raise AccessError(f"{shown(url)!r} cannot be reached: {found}.") from error
        raise UnavailableError(f"{shown(url)!r} cannot be reached: {found}; try again later.") from error
    return system, path


@lru_cache(64)
def _store(protocol: str, system: AbstractFileSystem) -> Store:
    if protocol in ("s3", "s3a"):
        system.retries = 1  # What is repeated, and for how long, `Attempts` decides.
    return Store(protocol, system)


def _options(protocol: str, configured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the file system of a protocol is made with, where the user's configuration of fsspec is silent."""
    if protocol in WEB:
        import aiohttp

        timeout = aiohttp.ClientTimeout(None, CONNECT_SECONDS, READ_SECONDS, CONNECT_SECONDS)
        own: dict[str, Any] = {"client_kwargs": {"timeout": timeout}}
    elif protocol in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        own = {
            "config_kwargs": {**limits, "retries": {"total_max_attempts": 1}, "max_pool_connections": 50},
            "max_concurrency": 1,  # else it asks for the size of every object before it reads it
            "use_listings_cache": False,
        }
    else:
        own = {}
    given = configured.get("s3" if protocol == "s3a" else protocol, {})
    return {name: value for name, value in own.items() if name not in given}


def _missing(protocol: str, url: str) -> UnavailableError:
    extra = EXTRAS.get(protocol)
    needed = f"`pip install 'layerprobe[{extra}]'`" if extra else f"what fsspec needs for {protocol}://"
    how = f"run {needed}" if extra else f"install {needed}"
    return UnavailableError(f"{shown(url)!r} needs a package that is missing: {how}.")


@contextmanager
def listing_errors(url: str, what: str) -> Iterator[None]:
    """Turn what a store says, while inputs are looked for, into what ends the run.

    Args:
        url: Of what is looked for, for messages.
        what: "the folder", "the list", ...

    Raises:
        NoInputError: It is not there.
        AccessError: The store does not let us.
        UnavailableError: The store fails.
    """
    try:
        yield
    except MissingError as error:
        raise NoInputError(f"{what} {shown(url)!r} cannot be read: {error}.") from error
    except DeniedError as error:
        raise AccessError(f"{what} {shown(url)!r} cannot be read: {error}.") from error
    except StoreError as error:
        raise UnavailableError(f"{what} {shown(url)!r} cannot be read: {error}; try again later.") from error


def walk(store: Store, folder: str, skip: Callable[[str], bool]) -> Iterator[Found]:
    """Find all objects in a folder and those in it, each folder at its place in the order of names.

    Args:
        store: The store.
        folder: As fsspec calls it.
        skip: Whether to leave out what has that name, a folder with all that is in it.

    Raises:
        StoreError: A folder cannot be listed.
    """
    levels = [iter(store.entries(folder))]
    while levels:
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
        elif skip(found.path.rstrip("/").rsplit("/", 1)[-1]):
            continue
        elif found.is_folder:
            levels.append(iter(store.entries(found.path)))
        else:
            yield found
