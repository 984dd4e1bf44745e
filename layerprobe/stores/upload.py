"""An output that goes to a store: written here first, then brought there and compared with what came."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from layerprobe.errors import AccessError, LayerprobeError, OutputError, UsageError, WriteError
from layerprobe.stores.attempts import DeniedError, MissingError, StoreError
from layerprobe.stores.scratch import scratch_path
from layerprobe.stores.store import Found, Store, listing_errors, store_of, writing_store
from layerprobe.stores.urls import WEB, protocol_of, shown

PART = 64 * 2**20
"""Bytes of one part of a large object, where the store takes it in parts; more where those were too many."""
_MOST_PARTS = 9_000
_BLOCK = 8 * 2**20
LAST = "provenance.json"
"""The file that makes a folder an output: it comes last."""


class StoredOutput:
    """One output in a store, and its place on this disk until it is there.

    Args:
        url: Where it shall be.

    Raises:
        UsageError: Nothing can be written to such a URL.
        UnavailableError: A package is missing.
        OutputError: There is no place on this disk.
    """

    def __init__(self, url: str) -> None:
        if protocol_of(url) in WEB:
            raise UsageError(f"a web server takes no files: give -o a path or a store, not {shown(url)!r}.")
        self.url, self.name = url.rstrip("/"), shown(url)
        self.path = scratch_path(url)
        self._store, self._key = store_of(self.url)

    def find(self) -> Found | None:
        """Look for it in the store.

        Raises:
            AccessError: The store does not let us.
            UnavailableError: The store fails.
        """
        with listing_errors(self.url, "the place of the output"):
            try:
                return self._store.find(self._key)
            except MissingError:
                return None

    def check_free(self) -> None:
        """Raise OutputError where something is there already."""
        if self.find() is not None:
            raise OutputError(f"{self.name!r} exists: give --overwrite to replace it or -o for another name.")

    def upload(self) -> None:
        """Bring what is at `path` to the store, compare, and remove it here.

        A file is there in one step, as stores have it. Of a folder the file that makes it an output comes
        last.

        Raises:
            WriteError: The store fails, or has something else than was sent. What is here stays.
            AccessError: The store does not let us write. What is here stays.
        """
        with self._reported():
            store, key = writing_store(self.url)
            if os.path.isdir(self.path):
                self._upload_folder(store, key)
            else:
                self._put(store, self.path, key)
        if os.path.isdir(self.path):
            shutil.rmtree(self.path)
        else:
            os.unlink(self.path)
        with suppress(OSError):  # unless something else waits there
            os.rmdir(os.path.dirname(self.path))

    def _upload_folder(self, store: Store, key: str) -> None:
        names = sorted(os.listdir(self.path), key=lambda name: name == LAST)
        try:
            there = {found.path.rsplit("/", 1)[-1] for found in store.entries(key) if not found.is_folder}
        except MissingError:
            there = set()
        if there and LAST not in there:
            raise OutputError(f"{self.name!r} was not written by layerprobe and is not replaced.")
        old = {name for name in there if name.endswith(".npy")} - set(names)
        for name in ([LAST] if there else []) + sorted(old):
            store.attempts(lambda name=name: store.system.rm_file(f"{key}/{name}"))  # type: ignore[misc]
        for name in names:
            self._put(store, os.path.join(self.path, name), f"{key}/{name}")

    def _put(self, store: Store, file: str, key: str) -> None:
        """Bring one file there, and see that it is whole."""
        size = os.path.getsize(file)
        part = max(PART, -(-size // _MOST_PARTS))
        options = {"chunksize": part} if store.protocol in ("s3", "s3a") else {}
        store.attempts(lambda: store.system.put_file(file, key, **options))
        found = store.find(key)
        if found.size == size and (_fits(file, found.version, part) or _equal(store, key, file, size)):
            return
        store.attempts(lambda: store.system.rm_file(key))
        raise StoreError("the object that came to be there is not what was sent, and was removed")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Say what a failed upload means, and that nothing has to be computed again."""
        try:
            try:
                yield
            except DeniedError as error:
                raise AccessError(f"{self.name!r} cannot be written: {error}.") from error
            except StoreError as error:
                raise WriteError(f"writing {self.name!r} failed: {error}.") from error
        except LayerprobeError as error:
            error.add_note(f"the output is complete in {self.path!r}, and waits there to be uploaded")
            raise


def _fits(file: str, version: bytes, part: int) -> bool:
    """Whether the store's own checksum is that of a file: S3's, of the whole or of its parts."""
    tag = version.partition(b":")[2].strip(b'"').decode("ascii", "replace")
    digest, _, parts = tag.partition("-")
    if len(digest) != 32:
        return False
    with open(file, "rb") as stream:
        if not parts:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag
        digests = b"".join(iter(lambda: _md5(stream, part), b""))
    return hashlib.md5(digests, usedforsecurity=False).hexdigest() == digest


def _md5(stream: IO[bytes], size: int) -> bytes:
    """MD5 of the next bytes; b"" at the end."""
    found, left = hashlib.md5(usedforsecurity=False), size
    while left and (data := stream.read(min(left, _BLOCK))):
        found.update(data)
        left -= len(data)
    return found.digest() if left < size else b""


def _equal(store: Store, key: str, file: str, size: int) -> bool:
    """Read back what is there, of a store whose checksum tells nothing."""
    with open(file, "rb") as stream:
        for start in range(0, size, _BLOCK):
            stop = min(start + _BLOCK, size)
            if store.read_range(key, start, stop) != stream.read(stop - start):
                return False
    return True
