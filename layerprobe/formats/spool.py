"""A spool: blocks of rows in one file, for outputs whose places are known only at the end.

Uncompressed rows of a known number have a place in their output from the beginning. Others wait here, beside
it, until the run is through, and are then put together to what was asked for:

    spool = Spool(path)                         # or Spool(path, resume=True), to go on
    place = spool.append([rows, keys])          # any pieces of bytes
    spool.sync()                                # from here on the journal may say `place`
    ...
    rows, keys = spool.read(place)
    ...                                         # the output takes its name
    spool.abort()

`spooled.py` is the writer that formats with a spool build on.

Only what the journal knows counts. What stands behind that was written by a run that was killed before it
could say so, perhaps in part; nobody reads it.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Sequence
from contextlib import suppress

from zlib_ng import zlib_ng

from layerprobe.errors import ResumeError
from layerprobe.formats.disk import create, discard, read_at, reopen, reported, sync, write_all
from layerprobe.formats.placement import cannot_create, spool_name

_FIRST = 64
"""Place of the first block; 0 means none."""
_COUNT, _SIZE = struct.Struct("<4sI"), struct.Struct("<QI")
"""A block begins with `_MARK` and the number of its pieces; then the size and CRC-32 of each; then they."""
_MARK = b"rows"


class Spool:
    """The spool of an output.

    Args:
        path: Of the output.
        resume: Go on with the spool that is there; otherwise it is discarded.

    Raises:
        OutputError: It cannot be created.
    """

    def __init__(self, path: str, *, resume: bool = False) -> None:
        self.path = path
        self._name = spool_name(path)
        try:
            if not resume:
                discard(self._name)
            self._descriptor = reopen(self._name) if resume else create(self._name)
        except OSError as error:
            raise cannot_create(path, error) from error
        self._end = max(_FIRST, os.fstat(self._descriptor).st_size)

    @property
    def size(self) -> int:
        """Bytes of all blocks, as they stand in the file."""
        return self._end

    def append(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Write a block; gives its place. Raises WriteError, and then there is no such block."""
        sizes = b"".join(_SIZE.pack(memoryview(piece).nbytes, zlib_ng.crc32(piece)) for piece in pieces)
        place = end = self._end
        with reported(self.path):
            for data in (_COUNT.pack(_MARK, len(pieces)) + sizes, *pieces):
                write_all(self._descriptor, end, data)
                end += memoryview(data).nbytes
        self._end = end
        return place

    def read(self, place: int, wanted: slice = slice(None)) -> list[bytes]:
        """Give pieces of a block back.

        Args:
            place: What `append` gave.
            wanted: Which of its pieces; the others are not read.

        Raises:
            ResumeError: They are not what was written.
            WriteError: The disk fails.
        """
        mark, count = _COUNT.unpack(self._exactly(place, _COUNT.size))
        if mark != _MARK:
            raise self._damaged()
        heads = list(_SIZE.iter_unpack(self._exactly(place + _COUNT.size, count * _SIZE.size)))
        start = place + _COUNT.size + count * _SIZE.size
        places = itertools.accumulate((size for size, _ in heads), initial=start)
        pieces = []
        for at, (size, checksum) in list(zip(places, heads, strict=False))[wanted]:
            piece = self._exactly(at, size)
            if zlib_ng.crc32(piece) != checksum:
                raise self._damaged()
            pieces.append(piece)
        return pieces

    def check(self, place: int) -> None:
        """Look whether a block begins at a place. Raises ResumeError."""
        mark, _ = _COUNT.unpack(self._exactly(place, _COUNT.size))
        if mark != _MARK:
            raise self._damaged()

    def _exactly(self, place: int, size: int) -> bytes:
        if place + size > self._end:
            raise self._damaged()
        parts: list[bytes] = []
        with reported(self.path):
            while size and (part := read_at(self._descriptor, place, size)):
                parts.append(part)
                place, size = place + len(part), size - len(part)
        if size:
            raise self._damaged()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _damaged(self) -> ResumeError:
        return ResumeError(
            f"the unfinished {self.path!r} is damaged, rows of it are gone: give --restart to begin again."
        )

    def sync(self) -> None:
        """Bring the blocks to disk. Raises WriteError."""
        with reported(self.path):
            sync(self._descriptor)

    def suspend(self) -> None:
        """Leave the blocks for a later run; nothing else can be done afterwards."""
        self._name = ""
        self._close()

    def abort(self) -> None:
        """Remove the spool; a second call, or one after `suspend`, does nothing."""
        self._close()
        if self._name:
            with suppress(OSError):
                os.unlink(self._name)
            self._name = ""

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            with suppress(OSError):
                os.close(descriptor)
