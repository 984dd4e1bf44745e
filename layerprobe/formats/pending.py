"""How an output comes into being: under another name, beside the one that it takes when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress

from layerprobe.formats.disk import (
    allocate,
    create,
    discard,
    disk_space,
    exchange,
    opened,
    read_at,
    reopen,
    reported,
    require_space,
    sync,
    sync_folder,
    write_all,
)
from layerprobe.formats.placement import cannot_create, check_target, resolved, unfinished_name


class PendingFile:
    """A file that has another name until `commit`.

    Args:
        path: The name it shall have. What stands there, if it is a regular file, is replaced by `commit`.
        file_format: A name from `registry.WRITERS`.
        resume: Go on with the unfinished file that is there; otherwise it is discarded.
        name: What it is called until then; None: as all unfinished outputs.

    Raises:
        OutputError: It cannot be created there.
    """

    def __init__(self, path: str, file_format: str, *, resume: bool = False, name: str | None = None) -> None:
        check_target(path, file_format, overwrite=True)
        self.path = path
        self._target = resolved(path)
        self._unfinished = unfinished_name(path) if name is None else name
        try:
            if not resume:
                discard(self._unfinished)
            self._descriptor = reopen(self._unfinished) if resume else create(self._unfinished)
        except OSError as error:
            raise cannot_create(path, error) from error

    @property
    def name(self) -> str:
        """What the file is called now."""
        return self._unfinished

    def reserve(self, size: int) -> None:
        """Make the file at least `size` bytes long, zeros, and have the system keep that much space for it.

        Raises:
            WriteError: There is not enough space.
        """
        with reported(self.path):
            missing = size - disk_space(os.fstat(self._descriptor))
            require_space(os.path.dirname(self._target), missing, self.path)
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

    def sync(self) -> None:
        """Bring the bytes to disk; a `commit` that failed at its end has done so. Raises WriteError."""
        with reported(self.path):
            if self._descriptor != -1:
                sync(self._descriptor)

    def commit(self) -> None:
        """Bring the bytes to disk and give the file its name. Raises WriteError."""
        with reported(self.path):
            os.fsync(self._descriptor)
            self._close()
            os.replace(self._unfinished, self._target)
            self._unfinished = ""
            sync_folder(os.path.dirname(self._target))

    def suspend(self) -> None:
        """Leave the file under the name that it has; nothing else can be done afterwards."""
        self._unfinished = ""
        with suppress(OSError):
            self._close()

    def abort(self) -> None:
        """Remove the file, unless it has its name; a second call does nothing."""
        with suppress(OSError):
            self._close()
        if self._unfinished:
            with suppress(OSError):
                os.unlink(self._unfinished)
            self._unfinished = ""

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)


class PendingFolder:
    """A folder of files that has another name until `commit`.

    Files are opened anew for each block: a model may have more layers than a process may have open files.

    Args:
        path: The name it shall have. What stands there, if it is a folder that layerprobe wrote, is replaced.
        file_format: A name from `registry.WRITERS`.
        resume: Go on with the unfinished folder that is there; otherwise it is discarded.

    Raises:
        OutputError: It cannot be created there.
    """

    def __init__(self, path: str, file_format: str = "npy", *, resume: bool = False) -> None:
        check_target(path, file_format, overwrite=True)
        self.path = path
        self._target = resolved(path)
        self._unfinished = unfinished_name(path)
        self._unsynced: set[str] = set()
        try:
            if not resume:
                discard(self._unfinished)
                os.mkdir(self._unfinished)
            elif not stat.S_ISDIR(os.lstat(self._unfinished).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            raise cannot_create(path, error) from error

    def name(self, file: str) -> str:
        """Say what one of the files is called now."""
        return os.path.join(self._unfinished, file)

    def touch(self, name: str) -> None:
        """Note that another process wrote to one of the files, for `sync`."""
        self._unsynced.add(name)

    def create(self, sizes: dict[str, int]) -> None:
        """Make files, name -> size in bytes, with their space on disk. Raises WriteError."""
        with reported(self.path):
            require_space(self._unfinished, sum(sizes.values()), self.path)
            for name, size in sizes.items():
                descriptor = create(os.path.join(self._unfinished, name))
                try:
                    allocate(descriptor, size)
                finally:
                    os.close(descriptor)
                self._unsynced.add(name)

    def make_files(self, names: Iterable[str]) -> None:
        """Make empty files for other processes to write to, if they are not there. Raises WriteError."""
        with reported(self.path):
            for name in names:
                with opened(os.path.join(self._unfinished, name), os.O_CREAT):
                    pass

    def make_folder(self, name: str) -> None:
        """Make a folder within, if it is not there. Raises WriteError."""
        folder = os.path.join(self._unfinished, name)
        with reported(self.path):
            if not os.path.isdir(folder):
                os.mkdir(folder)

    def put(self, name: str, data: bytes) -> None:
        """Make a file, whatever an earlier run left there. Raises WriteError."""
        self.discard(name)
        self.create({name: len(data)})
        self.write(name, 0, data)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(os.path.join(self._unfinished, name))

    def left_over(self, start: str) -> list[str]:
        """Names of files that begin so, or so behind a "."."""
        return [
            name
            for name in os.listdir(self._unfinished)
            if name.removeprefix(".").startswith(start.removeprefix("."))
        ]

    def rename(self, old: str, new: str) -> None:
        """Give a file, which is on disk, another name. Raises WriteError."""
        with reported(self.path):
            os.replace(os.path.join(self._unfinished, old), os.path.join(self._unfinished, new))
            sync_folder(self._unfinished)

    def discard(self, name: str) -> None:
        """Remove a file that an earlier run may have left. Raises WriteError."""
        self._unsynced.discard(name)
        with reported(self.path):
            discard(os.path.join(self._unfinished, name))

    def write(self, name: str, offset: int, data: bytes | memoryview, *, create_it: bool = False) -> None:
        """Put bytes at their place in one of the files, or in a new one. Raises WriteError."""
        self._unsynced.add(name)
        flags = os.O_CREAT if create_it else 0
        with reported(self.path), opened(os.path.join(self._unfinished, name), flags) as descriptor:
            write_all(descriptor, offset, data)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Get bytes back, or with -1 all that there are. Raises WriteError."""
        with reported(self.path), opened(os.path.join(self._unfinished, name)) as descriptor:
            return read_at(descriptor, offset, os.fstat(descriptor).st_size if size < 0 else size)

    def size(self, name: str) -> int:
        """Tell how many bytes long one of the files is; 0 when there is none."""
        try:
            return os.lstat(os.path.join(self._unfinished, name)).st_size
        except FileNotFoundError:
            return 0

    def sync(self) -> None:
        """Bring the files and their names to disk. Raises WriteError."""
        with reported(self.path):
            folders = {os.path.dirname(name) for name in self._unsynced} - {""}
            for name in sorted(self._unsynced):
                with opened(os.path.join(self._unfinished, name)) as descriptor:
                    sync(descriptor)
                self._unsynced.discard(name)
            for folder in sorted(folders):
                sync_folder(os.path.join(self._unfinished, folder))
            sync_folder(self._unfinished)

    def commit(self) -> None:
        """Bring the bytes to disk and give the folder its name. Raises WriteError."""
        self.sync()
        with reported(self.path):
            self._take_place()
            sync_folder(os.path.dirname(self._target))
        self.abort()

    def _take_place(self) -> None:
        """Rename the folder; afterwards `_unfinished` is what is left to remove."""
        if not os.path.lexists(self._target):
            os.rename(self._unfinished, self._target)
            self._unfinished = ""
        elif not exchange(self._unfinished, self._target):
            # Two steps: a kill between them leaves the old version, complete, under this name.
            aside = f"{self._target}.old-{secrets.token_hex(4)}"
            os.rename(self._target, aside)
            try:
                os.rename(self._unfinished, self._target)
            except OSError:
                os.rename(aside, self._target)
                raise
            self._unfinished = aside

    def suspend(self) -> None:
        """Leave the folder under the name that it has; nothing else can be done afterwards."""
        self._unfinished = ""

    def abort(self) -> None:
        """Remove the folder, unless it has its name; a second call does nothing."""
        if self._unfinished:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self._unfinished = ""
