"""The files of a Zarr group that is read, here or in a store, and what zarr-python reads them through."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import LocalStore

from layerprobe.stores.objects import RemoteObject
from layerprobe.stores.store import listing_errors, store_of, walk
from layerprobe.stores.urls import WEB, is_url, protocol_of

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class StoredFiles(ABC):
    """What is in the folder of a group, by names from there."""

    store: Store
    """For zarr-python."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Give the files in the folder and those within it."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Tell how many bytes a file has; 0 where there is none."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Give all of a file. Raises OSError, or what a store's failure means."""


def files_of(path: str) -> StoredFiles:
    """Find the files of the group at a path or a URL.

    Raises:
        NoInputError: There is nothing called that.
        AccessError: The store does not let us read it.
        UnavailableError: The store fails, or a package is missing.
    """
    return _InStore(path) if is_url(path) else _Here(path)


class _Here(StoredFiles):
    def __init__(self, path: str) -> None:
        self._path = path
        self.store = LocalStore(path, read_only=True)

    def names(self) -> Iterator[str]:
        for place, _, names in os.walk(self._path):
            yield from (os.path.relpath(os.path.join(place, name), self._path) for name in names)

    def size(self, name: str) -> int:
        place = os.path.join(self._path, name)
        return os.path.getsize(place) if os.path.isfile(place) else 0

    def read(self, name: str) -> bytes:
        with open(os.path.join(self._path, name), "rb") as file:
            return file.read()


class _InStore(StoredFiles):
    """They are listed once, and read with the patience and in the words of `stores`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self.store = _ReadStore(self)

    @cached_property
    def _objects(self) -> dict[str, RemoteObject]:
        system, key = store_of(self._url)
        protocol = protocol_of(self._url)
        folder = f"{key}/" if protocol in WEB else key
        objects = {}
        with listing_errors(self._url, "the output"):
            for found in walk(system, folder, lambda name: False):
                name = found.path.removeprefix(folder).lstrip("/")
                # A page of links has them as URLs are written.
                url = found.path if protocol in WEB else f"{self._url}/{name}"
                name = unquote(name) if protocol in WEB else name
                objects[name] = RemoteObject(url, found.size, found.version)
        return objects

    def names(self) -> Iterator[str]:
        return iter(self._objects)

    def size(self, name: str) -> int:
        found = self._objects.get(name)
        if found is None:
            return 0
        if found.size is None:
            with listing_errors(found.url, "the output"):
                found.look()
        return -1 if found.size is None else found.size

    def read(self, name: str) -> bytes:
        return self.read_between(name, 0, None)

    def read_between(self, name: str, start: int, stop: int | None) -> bytes:
        """Give a part of a file; negative numbers count from its end."""
        if name not in self._objects:
            raise FileNotFoundError(f"{name!r} is missing")
        found, size = self._objects[name], self.size(name)
        with listing_errors(found.url, "the output"):
            if size < 0:  # What gives no size gives no parts.
                return found.read()[start:stop]
            start, stop, _ = slice(start, stop).indices(size)
            return found.read_at(start, stop - start)


class _ReadStore(Store):
    """What zarr-python reads from; see zarr.abc.store.Store."""

    supports_writes = supports_deletes = False
    supports_listing = True

    def __init__(self, files: _InStore) -> None:
        super().__init__(read_only=True)
        self._files = files

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ReadStore) and other._files is self._files

    def __hash__(self) -> int:
        return id(self._files)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        start, stop = _limits(byte_range)
        try:
            # A request takes long, and zarr has several under way.
            data = await asyncio.to_thread(self._files.read_between, key, start, stop)
        except FileNotFoundError:
            return None
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return self._files.size(key) != 0

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        for name in self._files.names():
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in self._files.names():
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        within = {name.removeprefix(folder) for name in self._files.names() if name.startswith(folder)}
        for name in {name.partition("/")[0] for name in within}:
            yield name


def _limits(part: ByteRequest | None) -> tuple[int, Any]:
    """Where a part begins and ends."""
    if isinstance(part, RangeByteRequest):
        return part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return part.offset, None
    if isinstance(part, SuffixByteRequest):
        return -part.suffix, None
    return 0, None
