"""One object of a store, read whole, in parts, or as a file."""

from __future__ import annotations

import io
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, cast

from layerprobe.errors import SampleError, UnavailableError
from layerprobe.stores.attempts import NoRangesError, StoreError, UnreachableError
from layerprobe.stores.copies import copy_of
from layerprobe.stores.servers import others_answer, server_of
from layerprobe.stores.store import listing_errors, store_of
from layerprobe.stores.urls import WEB, protocol_of, shown

FIRST_BLOCK, LARGEST_BLOCK = 2**16, 2**22
"""Bytes that are read ahead when an object is read as a file: the more the longer it is read in order."""


class RemoteObject:
    """An object that may be there. Nothing is asked for before it is needed; can be sent to another process.

    Args:
        url: Of the object.
        size: In bytes, where a listing told that.
        version: Another one when it was changed, where a listing told that.
    """

    __slots__ = ("_copy", "_lock", "_version", "size", "url")

    def __init__(self, url: str, size: int | None = None, version: bytes = b"") -> None:
        self.url, self.size = url, size
        self._version = version
        if protocol_of(url) in WEB:
            server_of(url)
        self._copy = ""
        """The name of its copy here, if its server gives no parts."""
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[str, int | None, bytes, str]:
        return self.url, self.size, self._version, self._copy

    def __setstate__(self, state: tuple[str, int | None, bytes, str]) -> None:
        url, size, version, copy = state
        RemoteObject.__init__(self, url, size, version)
        self._copy = copy

    @property
    def name(self) -> str:
        """Its URL as it may be shown."""
        return shown(self.url)

    def look(self) -> None:
        """Ask the store for what is not known of it. Raises StoreError."""
        if self.size is None or not self._version:
            store, path = store_of(self.url)
            found = store.find(path)
            self.size, self._version = found.size, found.version

    def state(self) -> bytes:
        """Say which version it is; b"-" where it cannot be asked for."""
        try:
            if not self._version:
                self.look()
        except StoreError:
            return b"-"
        return self._version

    def read(self) -> bytes:
        """Give all of it. Raises StoreError."""
        store, path = store_of(self.url)
        try:
            return store.read(path, self.size)
        except NoRangesError:
            return store.read(path)

    def read_at(self, offset: int, size: int) -> bytes:
        """Give at most so many bytes from a place. Raises StoreError."""
        if self.size is None:
            self.look()
        end = offset + size if self.size is None else min(offset + size, self.size)
        if not self._copy and self.size is not None:
            store, path = store_of(self.url)
            try:
                return store.read_range(path, offset, end) if end > offset else b""
            except NoRangesError:
                pass
        with self._lock:
            self._copy = self._copy or secrets.token_hex(8)
        return copy_of(self._copy).read(offset, size, self._fetch)

    def _fetch(self, file: IO[bytes]) -> None:
        """Write all of it to a file. Raises StoreError."""
        store, path = store_of(self.url)

        def whole() -> None:
            file.seek(0)
            file.truncate()
            store.system.get_file(path, file)

        store.attempts(whole)
        self.size = file.seek(0, io.SEEK_END)

    def open(self) -> BinaryIO:
        """Give it as a file for reading, of which only what is read is fetched. Raises StoreError."""
        self.look()
        if self.size is None:
            self.read_at(0, 1)
        return cast(BinaryIO, RemoteStream(self))


class RemoteStream(io.BufferedReader):
    """An object as a file, of which only what is read is fetched. It has no descriptor.

    Args:
        remote: The object, whose size is known.
    """

    def __init__(self, remote: RemoteObject) -> None:
        super().__init__(_Parts(remote))
        self._remote = remote

    def again(self) -> RemoteStream:
        """Give the same object as another file."""
        return RemoteStream(self._remote)


class _Parts(io.RawIOBase):
    """An object as a raw file. What fails ends the run: a part that is missing would look like an end."""

    def __init__(self, remote: RemoteObject) -> None:
        self._remote, self._position = remote, 0
        self._start, self._data, self._ahead = 0, b"", FIRST_BLOCK

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Say where it is."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the beginning, the position or the end."""
        self._position = (0, self._position, self._remote.size or 0)[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read at the position."""
        within = self._position - self._start
        if not 0 <= within < len(self._data):
            self._fetch(len(buffer))
            within = 0
        data = self._data[within : within + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, size: int) -> None:
        """Get what is at the position, and more of it where the last parts followed each other closely."""
        gap = self._position - self._start - len(self._data)
        self._ahead = min(2 * self._ahead, LARGEST_BLOCK) if 0 <= gap <= self._ahead else FIRST_BLOCK
        with listing_errors(self._remote.url, "the object"):
            self._data = self._remote.read_at(self._position, max(size, self._ahead))
        self._start = self._position


@contextmanager
def row_errors(url: str) -> Iterator[None]:
    """Turn what a store says about one object into SampleError; no answer at all ends the run.

    Args:
        url: Of the object.

    Raises:
        SampleError: It is not there, or access is denied, or the store failed several times; or its web
            server does not answer while others do.
        UnavailableError: The store cannot be reached.
    """
    began = time.monotonic()
    try:
        yield
    except UnreachableError as error:
        if others_answer(url, began):
            raise SampleError(str(error)) from error
        raise UnavailableError(f"{error}: what is done is kept, try again later.") from error
    except StoreError as error:
        raise SampleError(str(error)) from error
