"""What `placement.py` needs of the operating system: POSIX first, portable where a call is missing."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from layerprobe.errors import WriteError

_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_AT_CURRENT_FOLDER = -100
_RENAME_EXCHANGE = 2


def create(path: str) -> int:
    """Open a file that was not there before, even as a link, with the permissions that umask leaves."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


def reopen(path: str, flags: int = 0) -> int:
    """Open a file that an earlier run made, for reading and writing: no link, and nobody else's.

    Args:
        path: Of the file.
        flags: Others of `os.open`, such as `os.O_CREAT`.

    Raises:
        OSError: As from the system, or because something else waits under that name.
    """
    flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    found = os.fstat(descriptor)
    theirs = hasattr(os, "geteuid") and found.st_uid != os.geteuid()
    if not stat.S_ISREG(found.st_mode) or theirs or found.st_nlink > 1:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, f"{path!r} is there already and is no file of your own")
    return descriptor


def discard(path: str) -> None:
    """Remove what an earlier run left under a name: a file, a link (not what it means) or a folder."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if is_folder:
        shutil.rmtree(path)
    else:
        os.unlink(path)


@contextmanager
def opened(path: str, flags: int = 0) -> Iterator[int]:
    """Open a file that `create` made, for writing; with `os.O_CREAT` it may be a new one."""
    flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def require_space(folder: str, size: int, path: str) -> None:
    """Raise WriteError about the output `path` when `folder` has less than `size` bytes free."""
    free = free_space(folder)
    if size > free:
        raise WriteError(
            f"there is not enough space for {path!r}: it needs {amount(size)} and {amount(free)} are free, "
            f"so free {amount(size - free)} or give -o for another place."
        )


def free_space(folder: str) -> int:
    """Tell how many bytes the user may still write to a folder's file system; quotas do not show."""
    return shutil.disk_usage(folder).free


def require_file_size(size: int, path: str) -> None:
    """Raise WriteError about the output `path` where a file of so many bytes may not be."""
    if size > largest_file():
        raise _too_large(path)


def largest_file() -> float:
    """Tell how many bytes a file may have that this process writes (`ulimit -f`)."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return math.inf if limit == resource.RLIM_INFINITY else limit


def disk_space(state: os.stat_result) -> int:
    """Tell how many bytes of the disk a file has already; 0 where the system does not say."""
    return 512 * getattr(state, "st_blocks", 0)


def allocate(descriptor: int, size: int) -> None:
    """Lengthen a file to `size` bytes that are its own, so that a full disk shows now."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    os.ftruncate(descriptor, size)


def write_all(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    """Write at a place; the system may take less than it is given, at most 2 GiB at a time."""
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            written = os.pwrite(descriptor, view, offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[written:]
        offset += written


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """Read at most `size` bytes from a place."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def sync(descriptor: int) -> None:
    """Bring a file's bytes, and its length, to disk."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to disk; Windows and a few network file systems have no such thing."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def exchange(first: str, second: str) -> bool:
    """Swap two names in one step, where the system can: Linux, with most file systems."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here = _AT_CURRENT_FOLDER
    return bool(renameat2(here, os.fsencode(first), here, os.fsencode(second), _RENAME_EXCHANGE) == 0)


@contextmanager
def reported(path: str) -> Iterator[None]:
    """Turn the system's errors into a sentence about the output."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _too_large(path) from error
        if error.errno in _NO_SPACE:
            what = "no space is left" if error.errno == errno.ENOSPC else "the quota is used up"
            advice = f"{what}, so free some or give -o for another place"
        else:
            advice = f"{error.strerror or error}, so check the disk or give -o for another place"
        raise WriteError(f"writing {path!r} failed: {advice}.") from error


def _too_large(path: str) -> WriteError:
    return WriteError(
        f"writing {path!r} failed: it is larger than a file may be here (`ulimit -f`, or the file system)."
    )


def amount(size: int) -> str:
    """Say a number of bytes in words."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
