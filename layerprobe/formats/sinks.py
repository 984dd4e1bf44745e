"""Where the bytes of a stream of rows go, from the first to the last: a file, or what somebody else reads."""

from __future__ import annotations

from typing import IO, Protocol

from layerprobe.formats.pending import PendingFile
from layerprobe.formats.rows import check_size


class Sink(Protocol):
    """Takes bytes in their order."""

    keeps: bool
    """Whether they stay: a file is opened again later, and must say where its numbers come from."""

    def write(self, data: bytes) -> None:
        """Take bytes. Raises WriteError, or what the other end of a pipe makes of it."""
        ...

    def commit(self) -> None:
        """Say that these were all."""
        ...

    def abort(self) -> None:
        """Remove what can be removed; a second call, or one after `commit`, does nothing."""
        ...


class FileSink:
    """A file, which has its name when it is complete; see `PendingFile`.

    Args:
        path: Of the file.
        file_format: A name in `registry.STREAMS`.
        resume: Go on with the unfinished file that is there.
    """

    keeps = True

    def __init__(self, path: str, file_format: str, *, resume: bool = False) -> None:
        self._path = path
        self._file = PendingFile(path, file_format, resume=resume)
        self.end = 0
        """How many bytes count."""

    def write(self, data: bytes) -> None:
        """Put bytes after those that came before. Raises WriteError."""
        self._file.write(self.end, data)
        self.end += len(data)

    def go_on(self, end: int) -> None:
        """Go on after so many bytes of an earlier run's. Raises ResumeError where they are gone."""
        check_size(self._path, self._file.size(), end)
        self.end = end

    def sync(self) -> None:
        """Bring the bytes to disk. Raises WriteError."""
        self._file.sync()

    def commit(self) -> None:
        """Bring the bytes to disk and give the file its name. Raises WriteError."""
        # A run that was killed may have written more.
        self._file.truncate(self.end)
        self._file.commit()

    def suspend(self) -> None:
        """Leave the file unfinished."""
        self._file.suspend()

    def abort(self) -> None:
        """Remove the file, unless it has its name."""
        self._file.abort()


class PipeSink:
    """A file object of the caller's, such as standard output; whatever it raises is the caller's too."""

    keeps = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        """Pass bytes on at once: what reads them may wait for every row."""
        self._file.write(data)
        self._file.flush()

    def commit(self) -> None:
        """All bytes were passed on already."""

    def abort(self) -> None:
        """Nothing can be taken back."""
