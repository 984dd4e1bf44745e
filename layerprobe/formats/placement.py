"""How an output comes into being: under a temporary name beside its own, which it takes when it is complete.

Whatever happens before that (an error, a full disk, a kill), nothing stands under the output's name but
what stood there before.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from layerprobe.errors import LayerprobeError, OutputError, WriteError
from layerprobe.formats.schema import load_record

FOLDER_RECORD = "provenance.json"
"""The file that marks a folder of `.npy` files as an output of layerprobe."""

_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_AT_CURRENT_FOLDER = -100
_RENAME_EXCHANGE = 2


def check_target(path: str, file_format: str, overwrite: bool) -> None:
    """Check, before anything is computed, that an output can be created at `path`.

    Args:
        path: Of the output; a symbolic link stands for what it points to.
        file_format: A name from `registry.WRITERS`; "npy" makes a folder, the others a file.
        overwrite: Whether a regular file, or a folder that layerprobe wrote, may be replaced.

    Raises:
        OutputError: Something is in the way, or the folder to write in is missing or closed to us.
    """
    try:
        folder = os.path.dirname(os.path.realpath(path))
        if not os.path.basename(path.rstrip(os.sep)):
            raise OutputError(f"the output's name is missing. Received: {path!r}.")
        if not os.path.isdir(folder):
            raise OutputError(
                f"{path!r} cannot be created, for there is no folder {folder!r}: make it first."
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(
                f"{path!r} cannot be created, for {folder!r} denies writing: use another folder."
            )
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _cannot_create(path, error) from error
    if not overwrite:
        raise OutputError(f"{path!r} exists: give --overwrite to replace it or -o for another name.")
    if file_format == "npy":
        _check_replaceable_folder(path, mode)
    elif not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise OutputError(f"{path!r} is {kind} and is not replaced: give -o for another name.")


def _check_replaceable_folder(path: str, mode: int) -> None:
    """Let only a folder be replaced in which everything was written by layerprobe (or which is empty)."""
    if not stat.S_ISDIR(mode):
        raise OutputError(f"{path!r} is not a folder and is not replaced by one: give -o for another name.")
    try:
        names = set(os.listdir(path))
        if not names:
            return
        with open(os.path.join(path, FOLDER_RECORD), "rb") as file:
            arrays, _ = load_record(file.read(), path)
    except (OSError, LayerprobeError) as error:
        raise OutputError(
            f"folder {path!r} was not written by layerprobe and is not replaced: give -o for another name."
        ) from error
    ours = {f"{name}.npy" for name in (*arrays.values(), "paths", "status", "error")}
    if others := sorted(names - ours - {FOLDER_RECORD}):
        raise OutputError(
            f"folder {path!r} is not replaced, for layerprobe did not write {others[0]!r} in it: move that away."
        )


class PendingFile:
    """A file that has a temporary name until `commit`.

    Args:
        path: The name it shall have. What stands there, if it is a regular file, is replaced by `commit`.
        file_format: A name from `registry.WRITERS`.

    Raises:
        OutputError: It cannot be created there.
    """

    def __init__(self, path: str, file_format: str) -> None:
        check_target(path, file_format, overwrite=True)
        self.path = path
        self._target = os.path.realpath(path)
        self._temporary = _temporary_name(self._target)
        try:
            self._descriptor = _create(self._temporary)
        except OSError as error:
            raise _cannot_create(path, error) from error

    def reserve(self, size: int) -> None:
        """Make the file `size` bytes long, zeros, and have the system keep that much space for it.

        Raises:
            WriteError: There is not enough space.
        """
        with _reported(self.path):
            _require_space(os.path.dirname(self._target), size, self.path)
            _allocate(self._descriptor, size)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at their place. Raises WriteError."""
        with _reported(self.path):
            _write_all(self._descriptor, offset, data)

    def read(self, offset: int, size: int) -> bytes:
        """Get at most `size` bytes back. Raises WriteError."""
        with _reported(self.path):
            if hasattr(os, "pread"):
                return os.pread(self._descriptor, size, offset)
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, size)

    def size(self) -> int:
        """Tell how many bytes long the file is."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long, with zeros where it grows. Raises WriteError."""
        with _reported(self.path):
            os.ftruncate(self._descriptor, size)

    def commit(self) -> None:
        """Bring the bytes to disk and give the file its name. Raises WriteError."""
        with _reported(self.path):
            os.fsync(self._descriptor)
            self._close()
            os.replace(self._temporary, self._target)
            self._temporary = ""
            _sync_folder(os.path.dirname(self._target))

    def abort(self) -> None:
        """Remove the file, unless it has its name; a second call does nothing."""
        self._close()
        if self._temporary:
            _remove_quietly(self._temporary)
            self._temporary = ""

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)


class PendingFolder:
    """A folder of files that has a temporary name until `commit`.

    Files are opened anew for each block: a model may have more layers than a process may have open files.

    Args:
        path: The name it shall have. What stands there, if it is a folder that layerprobe wrote, is replaced.

    Raises:
        OutputError: It cannot be created there.
    """

    def __init__(self, path: str) -> None:
        check_target(path, "npy", overwrite=True)
        self.path = path
        self._target = os.path.realpath(path)
        self._temporary = _temporary_name(self._target)
        self._names: list[str] = []
        try:
            os.mkdir(self._temporary)
        except OSError as error:
            raise _cannot_create(path, error) from error

    def create(self, sizes: dict[str, int]) -> None:
        """Make files, name -> size in bytes, with their space on disk. Raises WriteError."""
        with _reported(self.path):
            _require_space(self._temporary, sum(sizes.values()), self.path)
            for name, size in sizes.items():
                descriptor = _create(os.path.join(self._temporary, name))
                try:
                    _allocate(descriptor, size)
                finally:
                    os.close(descriptor)
                self._names.append(name)

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at their place in one of the files. Raises WriteError."""
        with _reported(self.path), _opened(os.path.join(self._temporary, name)) as descriptor:
            _write_all(descriptor, offset, data)

    def commit(self) -> None:
        """Bring the bytes to disk and give the folder its name. Raises WriteError."""
        with _reported(self.path):
            for name in self._names:
                with _opened(os.path.join(self._temporary, name)) as descriptor:
                    os.fsync(descriptor)
            _sync_folder(self._temporary)
            self._take_place()
            _sync_folder(os.path.dirname(self._target))
        self.abort()

    def _take_place(self) -> None:
        """Rename the folder; afterwards `_temporary` is what is left to remove."""
        if not os.path.lexists(self._target):
            os.rename(self._temporary, self._target)
            self._temporary = ""
        elif not _exchange(self._temporary, self._target):
            # Two steps: a kill between them leaves the old version, complete, under this name.
            aside = f"{self._target}.old-{secrets.token_hex(4)}"
            os.rename(self._target, aside)
            try:
                os.rename(self._temporary, self._target)
            except OSError:
                os.rename(aside, self._target)
                raise
            self._temporary = aside

    def abort(self) -> None:
        """Remove the folder, unless it has its name; a second call does nothing."""
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = ""


def _temporary_name(target: str) -> str:
    folder, name = os.path.split(target)
    # 48 characters are at most 192 bytes: the whole stays below the 255 that file systems allow.
    return os.path.join(folder, f".{name[:48]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _create(path: str) -> int:
    """Open a file that was not there before, even as a link, with the permissions that umask leaves."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _require_space(folder: str, size: int, path: str) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise WriteError(
            f"there is not enough space for {path!r}: it needs {_amount(size)} and {_amount(free)} are free, "
            "so free some or give -o for another place."
        )


def _allocate(descriptor: int, size: int) -> None:
    """Lengthen a file to `size` bytes that are its own, so that a full disk shows now."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    os.ftruncate(descriptor, size)


def _write_all(descriptor: int, offset: int, data: bytes | memoryview) -> None:
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


def _sync_folder(folder: str) -> None:
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


def _exchange(first: str, second: str) -> bool:
    """Swap two names in one step, where the system can: Linux, with most file systems."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here = _AT_CURRENT_FOLDER
    return bool(renameat2(here, os.fsencode(first), here, os.fsencode(second), _RENAME_EXCHANGE) == 0)


def _remove_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


@contextmanager
def _reported(path: str) -> Iterator[None]:
    """Turn the system's errors into a sentence about the output."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            advice = "no space is left, so free some or give -o for another place"
        elif error.errno == errno.EFBIG:
            advice = "it is larger than a file may be here (`ulimit -f`, or the file system)"
        else:
            advice = f"{error.strerror or error}, so check the disk or give -o for another place"
        raise WriteError(f"writing {path!r} failed: {advice}.") from error


def _cannot_create(path: str, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(f"{path!r} cannot be created: {reason}; give -o for another place.")


def _amount(size: int) -> str:
    """Say a number of bytes in words."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
