"""Objects of servers that give no parts, on this machine's disk: each once, for all threads that read it.

What stands for such an object is packed and unpacked again, as rows are; so a copy is found by a name that
goes with it. The files have no names on the disk: whatever ends this process, nothing is left of them.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from typing import IO

KEPT = 8
"""So many copies there are at most, those that were read last: inputs are read in their order."""


class Copy:
    """One object here, fetched when it is first read. Threads may share it."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def read(self, offset: int, size: int, fetch: Callable[[IO[bytes]], None]) -> bytes:
        """Give at most so many bytes from a place.

        Args:
            offset: Of the first.
            size: How many.
            fetch: Writes the object to a file, where that was not done yet; what it raises is passed on.
        """
        with self._lock:
            if self._file is None:
                self._file = _filled(fetch)
                weakref.finalize(self, self._file.close)  # when no thread has it any more
            self._file.seek(offset)
            return self._file.read(size)


def _filled(fetch: Callable[[IO[bytes]], None]) -> IO[bytes]:
    with ExitStack() as on_error:
        file = on_error.enter_context(tempfile.TemporaryFile(prefix="layerprobe-"))
        fetch(file)
        on_error.pop_all()
    return file


_copies: OrderedDict[str, Copy] = OrderedDict()
_lock = threading.Lock()


def copy_of(name: str) -> Copy:
    """Find a copy, or make place for one; what was not read for longest is given up for it."""
    with _lock:
        copy = _copies.setdefault(name, Copy())
        _copies.move_to_end(name)
        while len(_copies) > KEPT:
            _copies.popitem(last=False)
    return copy
