"""How an output comes into being: under a temporary name beside its own, which it takes when it is complete.

Whatever happens before that (an error, a full disk, a kill), nothing stands under the output's name but
what stood there before.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from contextlib import suppress

from layerprobe.errors import LayerprobeError, OutputError
from layerprobe.formats.disk import (
    allocate,
    create,
    exchange,
    opened,
    read_at,
    reported,
    require_space,
    sync_folder,
    write_all,
)
from layerprobe.formats.schema import load_record

FOLDER_RECORD = "provenance.json"
"""The file that marks a folder of `.npy` files as an output of layerprobe."""


def check_target(path: str, file_format: str, overwrite: bool) -> None:
    """Check, before anything is computed, that an output can be created at `path`.

    Args:
        path: Of the output; a symbolic link stands for what it points to.
        file_format: A name from `registry.WRITERS`; "npy" makes a folder, the others a file.
        overwrite: Whether a regular file, or a folder that layerprobe wrote, may be replaced.

    Raises:
        OutputError: Something is in the way, or the folder to write in is missing or closed to us.
    """
    folder = os.path.dirname(_resolved(path))
    if not os.path.isdir(folder):
        raise OutputError(f"{path!r} cannot be created, for there is no folder {folder!r}: make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path!r} cannot be created, for {folder!r} denies writing: use another folder.")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_create(path, error) from error
    if file_format == "npy":
        _check_replaceable_folder(path, mode)
    elif not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise OutputError(f"{path!r} is {kind} and is not replaced: give -o for another name.")
    if not overwrite:
        raise OutputError(f"{path!r} exists: give --overwrite to replace it or -o for another name.")


def _resolved(path: str) -> str:
    """Follow links; the name itself need not exist."""
    if not os.path.basename(path.rstrip(os.sep)):
        raise OutputError(f"the output's name is missing. Received: {path!r}.")
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise _cannot_create(path, error) from error


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
            f"folder {path!r} is not replaced, for {others[0]!r} in it is not layerprobe's: move that away."
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
        self._target = _resolved(path)
        self._temporary = _temporary_name(self._target)
        try:
            self._descriptor = create(self._temporary)
        except OSError as error:
            raise _cannot_create(path, error) from error

    def reserve(self, size: int) -> None:
        """Make the file `size` bytes long, zeros, and have the system keep that much space for it.

        Raises:
            WriteError: There is not enough space.
        """
        with reported(self.path):
            require_space(os.path.dirname(self._target), size, self.path)
            allocate(self._descriptor, size)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at their place. Raises WriteError."""
        with reported(self.path):
            write_all(self._descriptor, offset, data)

    def read(self, offset: int, size: int) -> bytes:
        """Get at most `size` bytes back. Raises WriteError."""
        with reported(self.path):
            return read_at(self._descriptor, offset, size)

    def size(self) -> int:
        """Tell how many bytes long the file is."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long, with zeros where it grows. Raises WriteError."""
        with reported(self.path):
            os.ftruncate(self._descriptor, size)

    def commit(self) -> None:
        """Bring the bytes to disk and give the file its name. Raises WriteError."""
        with reported(self.path):
            os.fsync(self._descriptor)
            self._close()
            os.replace(self._temporary, self._target)
            self._temporary = ""
            sync_folder(os.path.dirname(self._target))

    def abort(self) -> None:
        """Remove the file, unless it has its name; a second call does nothing."""
        with suppress(OSError):
            self._close()
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary)
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
        self._target = _resolved(path)
        self._temporary = _temporary_name(self._target)
        self._names: list[str] = []
        try:
            os.mkdir(self._temporary)
        except OSError as error:
            raise _cannot_create(path, error) from error

    def create(self, sizes: dict[str, int]) -> None:
        """Make files, name -> size in bytes, with their space on disk. Raises WriteError."""
        with reported(self.path):
            require_space(self._temporary, sum(sizes.values()), self.path)
            for name, size in sizes.items():
                descriptor = create(os.path.join(self._temporary, name))
                try:
                    allocate(descriptor, size)
                finally:
                    os.close(descriptor)
                self._names.append(name)

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at their place in one of the files. Raises WriteError."""
        with reported(self.path), opened(os.path.join(self._temporary, name)) as descriptor:
            write_all(descriptor, offset, data)

    def commit(self) -> None:
        """Bring the bytes to disk and give the folder its name. Raises WriteError."""
        with reported(self.path):
            for name in self._names:
                with opened(os.path.join(self._temporary, name)) as descriptor:
                    os.fsync(descriptor)
            sync_folder(self._temporary)
            self._take_place()
            sync_folder(os.path.dirname(self._target))
        self.abort()

    def _take_place(self) -> None:
        """Rename the folder; afterwards `_temporary` is what is left to remove."""
        if not os.path.lexists(self._target):
            os.rename(self._temporary, self._target)
            self._temporary = ""
        elif not exchange(self._temporary, self._target):
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


def _cannot_create(path: str, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(f"{path!r} cannot be created: {reason}; give -o for another place.")
