"""Files that may be anything: looked at and read without hanging, each failure in words."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from layerprobe.errors import ResourceError, SampleError

MAX_BYTES = 2**30
"""A larger file is refused: no image that could be decoded is that large."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_SYSTEM_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Readable(Protocol):
    """An image that is no file of its own here: a member of a tar file, an object in a store."""

    @property
    def far(self) -> bool:
        """Whether it is read through a network."""
        ...

    @property
    def key(self) -> str:
        """What its row is called."""
        ...

    def read(self) -> bytes:
        """Its bytes; raises SampleError."""
        ...

    def state(self) -> bytes:
        """Which version of it that is."""
        ...


class Container(Protocol):
    """A file that holds samples, wherever it is."""

    @property
    def far(self) -> bool:
        """Whether it is read through a network."""
        ...

    @property
    def name(self) -> str:
        """What it is called in messages and keys."""
        ...

    def open(self) -> BinaryIO:
        """Give it as a file that can be sought in; raises OSError or SampleError."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """At most so many bytes from a place; raises SampleError."""
        ...

    def state(self) -> bytes:
        """Which version of it that is."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine that holds samples; see `Container`."""

    name: str

    @property
    def far(self) -> bool:
        """No."""
        return False

    def open(self) -> BinaryIO:
        """Open it; see `open_regular`."""
        return open_regular(self.name)

    def read_at(self, offset: int, size: int) -> bytes:
        """Read from a place."""
        with file_errors(), open_regular(self.name) as file:
            file.seek(offset)
            return file.read(size)

    def state(self) -> bytes:
        """Say its size and time, as they are now."""
        return file_state(self.name)


def file_state(path: str) -> bytes:
    """Say which version of a file is there: its size and time; b"-" where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return b"-"
    return b"%d:%d" % (found.st_size, found.st_mtime_ns)


def read_file(path: str) -> bytes:
    """Read a whole file.

    Raises:
        SampleError: It is not there, not a regular file, not readable, or larger than `MAX_BYTES`.
        ResourceError: The process may not open another file, or memory is short.
    """
    with file_errors(), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise SampleError(f"{size} bytes are more than the limit of {MAX_BYTES}")
        return file.read()


def open_regular(path: str) -> BinaryIO:
    """Open a file for reading, unless opening or reading it could hang or have effects.

    Raises:
        OSError: As from the system.
        SampleError: It is a directory, a pipe, a socket or a device.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # what keeps a folder from being listed is the better reason
    _check_regular(mode)  # before opening, because that would already wake a pipe's writer
    file = os.fdopen(os.open(path, _FLAGS), "rb")
    try:
        _check_regular(os.fstat(file.fileno()).st_mode)  # again, because the name may mean another file now
    except SampleError:
        file.close()
        raise
    return file


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise SampleError("is a directory")
    if not stat.S_ISREG(mode):
        raise SampleError("not a regular file")


@contextmanager
def file_errors() -> Iterator[None]:
    """Turn what the system says about one file into SampleError; its own limits are not the file's fault."""
    try:
        yield
    except OSError as error:
        if error.errno in _SYSTEM_LIMITS:
            raise ResourceError(f"cannot open another file: {reason(error)} (see `ulimit -n`).") from error
        raise SampleError(reason(error)) from error
    except ValueError as error:  # a NUL in the path
        raise SampleError(f"not a path ({error})") from error


def reason(error: OSError) -> str:
    """What went wrong with a file, in a few words: "no such file", "permission denied", ..."""
    if error.errno == errno.ENOENT:
        return "no such file"
    return (error.strerror or str(error)).lower()
