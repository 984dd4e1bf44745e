"""Images in object stores and on web servers: named, matched, in folders and in lists."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from layerprobe.errors import NoInputError, SampleError
from layerprobe.images.signatures import HEAD, image_format
from layerprobe.sources.braces import has_braces, names_of
from layerprobe.sources.files import MAX_BYTES, Container, LocalFile
from layerprobe.sources.tar import called_like_an_image, hidden
from layerprobe.stores.attempts import DeniedError, MissingError
from layerprobe.stores.objects import RemoteObject, row_errors
from layerprobe.stores.store import THREADS, Found, Store, listing_errors, store_of, walk
from layerprobe.stores.urls import WEB, is_url, path_of, protocol_of, shown


class RemoteFile:
    """An object as an image, or as a file that holds samples; see `Readable` and `Container`."""

    __slots__ = ("_object",)
    far = True

    def __init__(self, remote: RemoteObject) -> None:
        self._object = remote

    @property
    def name(self) -> str:
        """Its URL, without passwords."""
        return self._object.name

    key = name

    @property
    def url(self) -> str:
        """Its URL, as it is used."""
        return self._object.url

    def head(self) -> bytes:
        """Give the first bytes; raises StoreError."""
        return self._object.read_at(0, HEAD)

    def read(self) -> bytes:
        """Give all of it.

        Raises:
            SampleError: It is not there, cannot be read, or is larger than `MAX_BYTES`.
            UnavailableError: The store cannot be reached.
        """
        size = self._object.size
        if size is not None and size > MAX_BYTES:
            raise SampleError(f"{size} bytes are more than the limit of {MAX_BYTES}")
        with row_errors(self._object.url):
            return self._object.read()

    def read_at(self, offset: int, size: int) -> bytes:
        """Give at most so many bytes from a place; raises as `read`."""
        with row_errors(self._object.url):
            return self._object.read_at(offset, size)

    def open(self) -> BinaryIO:
        """Give it as a file, of which only what is read is fetched; raises as `listing_errors`."""
        with listing_errors(self._object.url, "the file"):
            return self._object.open()

    def state(self) -> bytes:
        """Say which version of it is there."""
        return self._object.state()


def remote_file(url: str) -> RemoteFile:
    """Give an object that is named, be it there or not."""
    return RemoteFile(RemoteObject(url))


def container_of(name: str) -> Container:
    """Give a file that holds samples, here or in a store."""
    return remote_file(name) if is_url(name) else LocalFile(name)


def named_at(url: str) -> Iterable[RemoteFile] | None:
    """Find what a URL names: an object, those that match a pattern, or None: a folder.

    Raises:
        NoInputError: There is nothing.
        AccessError: The store does not let us look.
        UnavailableError: The store fails, or a package is missing.
        UsageError: There are no such URLs.
    """
    store, path = store_of(url)
    try:
        with listing_errors(url, "the input"):
            found = store.find(path)
    except NoInputError:
        if has_braces(url):
            return map(remote_file, names_of(url))
        if not _has_magic(url):
            raise
        return _matching(store, url, path)
    return None if found.is_folder else [_file(found, url)]


def images_below(url: str) -> Iterator[RemoteFile]:
    """Find the images in a folder, at any depth, by the rules of `folder.images_in`; raises as `named_at`."""
    store, path = store_of(url)
    with listing_errors(url, "the folder"):
        yield from _images(store, path, _prefix(url, path))


def _images(store: Store, folder: str, prefix: str) -> Iterator[RemoteFile]:
    """Give the images of a folder; those whose names do not tell are looked into, many at a time."""
    within = walk(store, folder, hidden)
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(itertools.islice(within, 64 * THREADS)):
            files = [_file(found, prefix + found.path) for found in some]
            yield from itertools.compress(files, pool.map(_is_image, files))


def _is_image(file: RemoteFile) -> bool:
    if called_like_an_image(path_of(file.url)):
        return True
    try:
        return image_format(file.head()) is not None
    except (MissingError, DeniedError):
        return False


def _matching(store: Store, url: str, pattern: str) -> list[RemoteFile]:
    """Give what matches a pattern; of folders, what is in them."""
    prefix = _prefix(url, pattern)
    files: list[RemoteFile] = []
    with listing_errors(url, "the pattern"):
        for found in store.matching(pattern):
            if not found.is_folder:
                files.append(_file(found, prefix + found.path))
            elif "**" not in pattern:
                files.extend(_images(store, found.path, prefix))
    if not files:
        raise NoInputError(f"nothing matches {shown(url)!r}.")
    return files


def _prefix(url: str, path: str) -> str:
    """What makes a URL of what fsspec calls an object: of s3://bucket/key it is s3://."""
    typed = url.rstrip("/")
    path = path.rstrip("/")
    return typed[: len(typed) - len(path)] if typed.endswith(path) else f"{protocol_of(url)}://"


def _file(found: Found, url: str) -> RemoteFile:
    return RemoteFile(RemoteObject(url, found.size, found.version))


def _has_magic(url: str) -> bool:
    return any(letter in url for letter in ("*[" if protocol_of(url) in WEB else "*?["))
