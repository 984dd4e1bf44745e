"""An output that goes to a store: written here first, then brought there and compared with what came."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO

from layerprobe.errors import AccessError, LayerprobeError, OutputError, UsageError, WriteError
from layerprobe.stores.attempts import DeniedError, MissingError, StoreError
from layerprobe.stores.scratch import scratch_path
from layerprobe.stores.store import Found, Store, listing_errors, store_of, walk, writing_store
from layerprobe.stores.urls import WEB, protocol_of, shown

PART = 64 * 2**20
"""Bytes of one part of a large object, where the store takes it in parts; more where those were too many."""
_MOST_PARTS = 9_000
_BLOCK = 8 * 2**20
_AT_ONCE = 4
"""So many small files of a folder are under way at a time."""
LAST = ("zarr.json", "provenance.json")
"""The file that makes a folder an output, a Zarr group or one of `.npy` files: it comes last."""
BEGUN = ".unfinished"
"""An object of that name tells that what is in a folder is being uploaded, and may be replaced."""
_WHAT_IT_IS = b"layerprobe is uploading what is in this folder, or was interrupted in it.\n"
_OURS = re.compile(r"[^/]+\.npy|[^/]+/(zarr\.json|c\..*)", re.DOTALL)
"""What an earlier output in a folder consists of, beside its last file."""


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
        self.path = self.make_place()
        self._store, self._key = store_of(self.url)

    def make_place(self) -> str:
        """Make the folder on this disk in which it waits, and give its path there. Raises OutputError."""
        return scratch_path(self.url)

    def leave_place(self) -> None:
        """Remove that folder, unless something waits there."""
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.path))

    def find(self) -> Found | None:
        """Look for it in the store; a folder of which only a part came there is none.

        Raises:
            AccessError: The store does not let us.
            UnavailableError: The store fails.
        """
        with listing_errors(self.url, "the place of the output"):
            return _find(self._store, self._key)

    def names(self) -> list[str]:
        """List the files of a folder and those within it, by their names from there; raises as `find`."""
        with listing_errors(self.url, "the place of the output"):
            return sorted(_objects(self._store, self._key))

    def check_free(self) -> None:
        """Raise OutputError where something is there already."""
        if self.find() is not None:
            raise OutputError(f"{self.name!r} exists: give --overwrite to replace it or -o for another name.")

    def check_own(self) -> None:
        """Raise OutputError where something is there that is neither what is at `path` nor a part of it."""
        with listing_errors(self.url, "the place of the output"):
            self._check_own(self._store, self._key)

    def _check_own(self, store: Store, key: str) -> None:
        found = _find(store, key)
        if found is not None and not self._is_own(store, key, found):
            raise OutputError(
                f"{self.name!r} exists and was put there by another run: give --overwrite to replace it, or "
                "move it away first."
            )

    def _is_own(self, store: Store, key: str, found: Found) -> bool:
        """Whether an upload from `path` that was interrupted has left that; nothing is lost with it then."""
        is_folder = os.path.isdir(self.path)
        if found.is_folder != is_folder or not os.path.lexists(self.path):
            return False
        if not is_folder:
            return _begins_as(store, key, found, self.path)
        last = next(name for name in LAST if os.path.exists(os.path.join(self.path, name)))
        there = {_last_part(entry): entry for entry in store.entries(key)}
        return last in there and _begins_as(
            store, f"{key}/{last}", there[last], os.path.join(self.path, last)
        )

    def check_bucket(self) -> None:
        """Raise OutputError where S3 says that there is no such bucket, which else shows when all is done."""
        if protocol_of(self.url) not in ("s3", "s3a"):
            return
        bucket = self._key.partition("/")[0]
        try:
            self._store.find(bucket)
        except MissingError as error:
            raise OutputError(
                f"there is no bucket {bucket!r} for {self.name!r}: make it first, or give -o for another "
                "place."
            ) from error
        except StoreError:  # Who may write need not be allowed to look.
            return

    def upload(self, overwrite: bool) -> None:
        """Bring what is at `path` to the store, compare, and remove it here.

        A file is there in one step, as stores have it. Of a folder the file that makes it an output comes
        last; until then another one tells that it is unfinished.

        Args:
            overwrite: Whether what another run put there may be replaced.

        Raises:
            OutputError: It is there, and may not. What is here stays.
            WriteError: The store fails, or has something else than was sent. What is here stays.
            AccessError: The store does not let us write. What is here stays.
        """
        with self._reported():
            store, key = writing_store(self.url)
            if not overwrite:
                self._check_own(store, key)
            if os.path.isdir(self.path):
                self._upload_folder(store, key)
            else:
                self._put(store, self.path, key)
        if os.path.isdir(self.path):
            shutil.rmtree(self.path)
        else:
            os.unlink(self.path)

    def _upload_folder(self, store: Store, key: str) -> None:
        """Bring all files there, one of them last; what is there already, of an upload that failed, stays."""
        files = sorted(_files(self.path))
        last = next(name for name in LAST if name in files)
        there = _objects(store, key)
        if there and not {BEGUN, last} & set(there):
            raise OutputError(f"{self.name!r} was not written by layerprobe and is not replaced.")
        store.attempts(lambda: store.system.pipe_file(f"{key}/{BEGUN}", _WHAT_IT_IS))
        # Else it would be an output with what is new and what is old in it.
        old = [last] if last in there else []
        for name in old + sorted(name for name in set(there) - set(files) if _OURS.fullmatch(name)):
            _remove(store, f"{key}/{name}")
        self._put_files(store, key, [name for name in files if name != last], there)
        self._put(store, os.path.join(self.path, last), f"{key}/{last}")
        _remove(store, f"{key}/{BEGUN}")

    def _put_files(self, store: Store, key: str, names: list[str], there: Mapping[str, Found]) -> None:
        """Bring files there, several at a time where they are small: of a large one many parts are held."""

        def put(name: str) -> None:
            self._put(store, os.path.join(self.path, name), f"{key}/{name}", there.get(name))

        large = [name for name in names if os.path.getsize(os.path.join(self.path, name)) > PART]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            under_way = [threads.submit(put, name) for name in names if name not in set(large)]
            try:
                for one in under_way:
                    one.result()
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        for name in large:
            put(name)

    def _put(self, store: Store, file: str, key: str, before: Found | None = None) -> None:
        """Bring one file there, unless it is what is there `before`, and see that it is whole."""
        size = os.path.getsize(file)
        part = _part(size)
        if before is not None and before.size == size and _fits(file, before.version, part):
            return
        options = {"chunksize": part} if store.protocol in ("s3", "s3a") else {}
        store.attempts(lambda: store.system.put_file(file, key, **options))
        found = store.find(key)
        if found.size == size and (_fits(file, found.version, part) or _equal(store, key, file, size)):
            return
        _remove(store, key)
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
            except OSError as error:
                why = error.strerror or error
                raise WriteError(f"{self.path!r} cannot be read to write {self.name!r}: {why}.") from error
        except LayerprobeError as error:
            error.add_note(f"the output is complete in {self.path!r}, and waits there to be uploaded")
            raise


def _find(store: Store, key: str) -> Found | None:
    """Look for an output; a folder of which only a part came there is none. Raises StoreError."""
    try:
        found = store.find(key)
        if found.is_folder:
            names = {_last_part(entry) for entry in store.entries(key)}
            return None if BEGUN in names and names.isdisjoint(LAST) else found
    except MissingError:
        return None
    return found


def _files(folder: str) -> Iterator[str]:
    """Give the files in a folder and those within it, by their names from there."""
    for place, _, names in os.walk(folder):
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in names)


def _objects(store: Store, key: str) -> dict[str, Found]:
    """Find what is in a folder of a store and those within it, by the names from there. Raises StoreError."""
    try:
        return {
            found.path.removeprefix(key).lstrip("/"): found for found in walk(store, key, lambda name: False)
        }
    except MissingError:
        return {}


def _last_part(found: Found) -> str:
    return found.path.rstrip("/").rsplit("/", 1)[-1]


def _remove(store: Store, key: str) -> None:
    store.attempts(partial(store.system.rm_file, key))


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


def _begins_as(store: Store, key: str, found: Found, file: str) -> bool:
    """Whether an object is a file, or its beginning: some stores show what has come of it so far."""
    size = os.path.getsize(file)
    if found.size is None or found.size > size:
        return False
    return (found.size == size and _fits(file, found.version, _part(size))) or _equal(
        store, key, file, found.size
    )


def _part(size: int) -> int:
    """Bytes of one part of an object of that size."""
    return max(PART, -(-size // _MOST_PARTS))


def _equal(store: Store, key: str, file: str, size: int) -> bool:
    """Read back what is there, of a store whose checksum tells nothing."""
    with open(file, "rb") as stream:
        for start in range(0, size, _BLOCK):
            stop = min(start + _BLOCK, size)
            if store.read_range(key, start, stop) != stream.read(stop - start):
                return False
    return True
