"""Opens files of strangers: never waits, and tells by the first bytes what kind of model a file is."""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import h5py

from layerprobe.errors import AccessError, ModelError, NoInputError, UnsafeModelError
from layerprobe.modelfile.streams import GuardedStream

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn what h5py and zipfile raise about damaged bytes into a ModelError that names `place`."""
    try:
        yield
    except (
        *(OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError),
        *(zlib.error, zipfile.BadZipFile),
    ) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{place} is damaged ({reason}): fetch or save it again.") from error


def open_file(path: str) -> io.BufferedReader:
    """Open for reading without ever waiting: a FIFO or a device is refused by what fstat says.

    Raises:
        NoInputError: There is no such file.
        AccessError: The system does not let us read it.
        ModelError: It is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoInputError(f"no such file: {path}") from error
    except PermissionError as error:
        raise AccessError(f"{path} cannot be read: permission denied.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path!r} cannot be opened as a model: {error}.") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise ModelError(f"{path} is a folder, but neither a SavedModel nor an unpacked .keras model.")
        raise ModelError(f"{path} is not a regular file: expected a saved Keras model.")
    return os.fdopen(descriptor, "rb")


def read_part(path: str, limit: int) -> memoryview:
    """Read one file of a model folder whole; links are not followed.

    Args:
        path: Of the file.
        limit: Bytes that it may have.

    Raises:
        ModelError: It is missing, no regular file or too large.
        UnsafeModelError: It is a link.
    """
    if os.path.islink(path):
        raise UnsafeModelError(f"{path} is a link to {os.readlink(path)[:200]!r}: links are not followed.")
    try:
        stream = open_file(path)
    except NoInputError as error:
        raise ModelError(f"{path} is missing: the folder is no complete SavedModel.") from error
    with stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ModelError(f"{path} is larger than {limit >> 20} MiB, more than any model needs there.")
    return memoryview(data)


def recognise(stream: io.BufferedReader, path: str) -> str:
    """What kind of model a file is: "hdf5", "keras" or "json".

    Raises:
        ModelError: It is none.
    """
    head = stream.read(4096)
    stream.seek(0)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise ModelError(f"{path}: the file is empty: expected a saved Keras model.")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "keras"
    if any(head[offset:].startswith(_HDF5_SIGNATURE) for offset in (0, 512, 1024, 2048)):
        return "hdf5"
    if text.startswith((b"{", b'"{')):
        return "json"
    if text.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path} is a Git LFS pointer, not the model itself: run `git lfs pull` to fetch it."
        )
    if text.startswith(b"<"):
        raise ModelError(
            f"{path} is an HTML or XML page, not a model: the download went wrong, fetch it again."
        )
    raise ModelError(
        f"{path} has an unknown format: expected HDF5 (.h5), a .keras file, a SavedModel folder or a model's "
        f"JSON. Received: a file that begins with {head[:12]!r}."
    )


def open_hdf5(stream: io.BufferedIOBase, place: str) -> h5py.File:
    """Open HDF5 that lies in a stream; `place` is what to call it.

    Raises:
        ModelError: It is truncated or damaged.
    """
    try:
        return h5py.File(GuardedStream(stream), "r")
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        if "truncated" in str(error) or "addr overflow" in str(error):
            raise ModelError(
                f"{place} is truncated: the end of the file is missing, fetch it again."
            ) from error
        raise ModelError(f"{place} is a damaged HDF5 file: fetch or save it again.") from error
