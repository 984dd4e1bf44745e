"""An opened model read from end to end beside the work of loading it, and held to stay as it was.

What is computed of its bytes is their SHA-256, for the provenance, and the CRC of the weights within a zip.
Both are of the very file that was opened: one that takes its name meanwhile is another file, and one that is
written to meanwhile is refused.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from typing import NamedTuple

from zlib_ng import zlib_ng

from layerprobe.errors import ModelError
from layerprobe.modelfile.opening import open_file

_PIECE = 8 << 20
"""Large, since the thread may have to wait for Python's lock after each."""


class Span(NamedTuple):
    """Some bytes of a file."""

    start: int
    size: int


class Digest:
    """Reads through a file, in a thread of its own and at places of its own."""

    def __init__(self, descriptor: int, *, hashed: bool, summed: Span | None = None) -> None:
        """Begin.

        Args:
            descriptor: Of the file; its position is left alone, and it may be closed meanwhile.
            hashed: Whether the SHA-256 of all of it is wanted.
            summed: Of which bytes the CRC is wanted.
        """
        self.hashed = hashed
        self.summed = summed
        self._sha256, self._crc = hashlib.sha256(), 0
        self._error: OSError | None = OSError("it was not read to its end")
        self._stopped = False
        self._descriptor = os.dup(descriptor)
        self._thread = threading.Thread(target=self._run, name="layerprobe-digest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End early; what was asked for is not known then."""
        self._stopped = True
        self._thread.join()

    def sha256(self) -> str:
        """Wait for it: 64 hexadecimal digits. Raises OSError where the file cannot be read."""
        self._wait()
        return self._sha256.hexdigest()

    def crc(self) -> int:
        """Wait for it. Raises OSError where the file cannot be read."""
        self._wait()
        return self._crc

    def _wait(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            if self._read():
                self._error = None
        except OSError as error:
            self._error = error
        finally:
            os.close(self._descriptor)

    def _read(self) -> bool:
        """Whether it came to the end."""
        summed = self.summed or Span(0, 0)
        place, end = (0, os.fstat(self._descriptor).st_size) if self.hashed else (summed.start, sum(summed))
        while place < end and not self._stopped:
            piece = memoryview(os.pread(self._descriptor, min(_PIECE, end - place), place))
            if not piece:
                return False
            if self.hashed:
                self._sha256.update(piece)
            within = piece[max(0, summed.start - place) : max(0, sum(summed) - place)]
            self._crc = zlib_ng.crc32(within, self._crc)
            place += len(piece)
        return place >= end


class Unchanged:
    """What a file or folder was when it was opened, to find out whether somebody wrote to it since."""

    def __init__(self, path: str, stream: io.BufferedReader | None) -> None:
        """Look at it.

        Args:
            path: Of it.
            stream: The opened file; None for a folder, of which every file is looked at.
        """
        self._path = path
        self._stream = stream
        self._before = self._state()

    def check(self) -> None:
        """Look again.

        Raises:
            ModelError: It was changed in place: its numbers may be a mixture of two files.
        """
        if self._state() != self._before:
            raise ModelError(
                f"{self._path} was changed while it was being loaded: run again when nothing writes to it."
            )

    def check_name(self) -> None:
        """The same, and that the path still names what was opened, for those who open it by its name.

        Raises:
            ModelError: It was changed, or another file has its name now.
        """
        self.check()
        if self._stream is None:
            return
        if not os.path.samestat(os.stat(self._path), os.fstat(self._stream.fileno())):
            raise ModelError(f"{self._path} was replaced while it was being loaded: run again.")

    def _state(self) -> list[tuple[str, int, int, int]]:
        """Name, inode, size and time of the last change of all files."""
        if self._stream is not None:
            return [("", *_of(os.fstat(self._stream.fileno())))]
        return [(name, *_of(os.lstat(os.path.join(self._path, name)))) for name in files_of(self._path)]


def _of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def files_of(folder: str) -> list[str]:
    """The files in a folder and in the folders within it, relative to it, each folder's sorted by name."""
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.relpath(os.path.join(place, name), folder) for name in sorted(names)]
    return found


def folder_sha256(folder: str) -> str:
    """SHA-256 over the names and the digests of all files of a folder, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in files_of(folder):
        digest.update(os.fsencode(name) + b"\0")
        with open_file(os.path.join(folder, name)) as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
