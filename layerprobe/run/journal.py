"""Which rows of an unfinished output are safely on disk, and whose they are.

Beside an unfinished output stands its journal, one JSON object a line: who writes it ("pid"), what the run
is ("layerprobe_journal"), and for each block of rows ("rows") a line, written when their bytes are on disk.
Blocks that come to disk together and are neighbours may share a line; see `joining.py`. Blocks that are to be
written over are taken back ("taken_back") first.
A kill at any moment leaves whole lines and at most one torn one, the last, which is ignored. Who has the
journal locked has the output; a dead process holds no lock.

    with Journal(output, path) as journal:          # the lock, and what an earlier run left
        journal.begin(head)                         # or go on: journal.head, journal.entries
        ...                                         # rows are written, and brought to disk
        journal.add(entry)
        journal.flush()
        ...                                         # the output takes its name
        journal.complete()                          # it is held until it is closed
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from layerprobe.errors import BusyError, LayerprobeError, OutputError
from layerprobe.formats.disk import reopen, reported, sync, sync_folder, write_all
from layerprobe.run.entries import Entry, Head, line_of, line_of_head, parsed, replace, rows_of
from layerprobe.run.ranges import RowRanges

SECONDS_BETWEEN_FLUSHES = 1.0
"""So much work is lost to a kill; bringing every batch to disk by itself would slow down fast models."""


class Journal:
    """The journal of one output, locked.

    Args:
        output: What the user calls the output, for messages.
        path: Of the journal; see `placement.journal_name`.
        lock: Keep other runs from the output; only for file systems that cannot lock may this be left out.

    Raises:
        BusyError: Another run holds it.
        OutputError: It cannot be created or locked.
    """

    def __init__(self, output: str, path: str, *, lock: bool = True) -> None:
        self.output, self._path = output, path
        self._descriptor = _claim(path, output, lock)
        self.head: Head | None = None
        """Of the run to go on with; None: there is none."""
        self.entries: list[Entry] = []
        """What an earlier run left on disk, in the order of rows; of rows that came twice, what came last."""
        self._noted: list[Entry] = []
        """What `flush` will write."""
        self._is_new = False
        with open(self._descriptor, "rb", closefd=False) as file:
            self.head, self.entries, self._end = parsed(file)
        self._on_disk = rows_of(self.entries)
        self._flushed = time.monotonic()
        try:
            self._append([_holder()])
        except LayerprobeError:
            self.close()
            raise

    def clear(self) -> None:
        """Forget what an earlier run left; to be done before its rows are discarded. Raises WriteError."""
        self.head, self.entries, self._end = None, [], 0
        self._on_disk = RowRanges()
        self._append([_holder()])
        with reported(self.output):
            sync(self._descriptor)

    def begin(self, head: Head) -> None:
        """Say what this run is, in an empty journal; `flush` writes it."""
        self.head, self._is_new = head, True

    def add(self, entry: Entry) -> None:
        """Note a block of rows; `flush` writes it."""
        self._noted.append(entry)

    def take_back(self, entries: Sequence[Entry]) -> None:
        """Say that blocks of an earlier run are to be written over, and count no more. Raises WriteError."""
        if not entries:
            return
        ranges = [(entry.block.start, entry.block.stop) for entry in entries]
        self._append([{"taken_back": ranges}])
        with reported(self.output):
            sync(self._descriptor)
        for start, stop in ranges:
            replace(self.entries, start, stop, [])
        self._on_disk = rows_of(self.entries)

    @property
    def due(self) -> bool:
        """Whether it is time to bring rows to disk, and then to `flush`."""
        return time.monotonic() - self._flushed >= SECONDS_BETWEEN_FLUSHES

    def flush(self, join: Callable[[Sequence[Entry]], Sequence[Entry]] = list) -> None:
        """Bring what was noted to disk; the rows must be there already. Raises WriteError.

        Args:
            join: Makes fewer blocks of those that were noted.
        """
        assert self.head is not None
        lines = [line_of_head(self.head)] if self._is_new else []
        if self._is_new:
            # Before the first line: a power cut could leave that, and under the name an older output.
            with reported(self.output):
                sync_folder(os.path.dirname(self._path))
        self._append([*lines, *map(line_of, join(self._noted))])
        with reported(self.output):
            sync(self._descriptor)
        for entry in self._noted:
            self._on_disk.add(entry.block.start, entry.block.stop)
        self._noted, self._is_new = [], False
        self._flushed = time.monotonic()

    def _append(self, records: list[dict[str, Any]]) -> None:
        """Write lines after the last whole one."""
        data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        with reported(self.output):
            os.ftruncate(self._descriptor, self._end)
            write_all(self._descriptor, self._end, data)
        self._end += len(data)

    @property
    def rows(self) -> int:
        """How many rows are on disk, for a later run to go on with."""
        return len(self._on_disk)

    def close(self) -> None:
        """Let other runs have the output; the journal stays for them if rows are on disk."""
        if not self.rows:
            self.remove()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def complete(self) -> None:
        """Forget the rows, for the output has its name; the lock is kept, and `close` removes the journal."""
        self.head, self.entries, self._noted, self._on_disk = None, [], [], RowRanges()

    def remove(self) -> None:
        """Remove the journal, and let other runs have the output."""
        if self._descriptor != -1:
            with suppress(OSError):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def written_rows(path: str) -> tuple[Head, list[tuple[int, int]]] | None:
    """Say what an unfinished output has on disk, without claiming it.

    Args:
        path: Of the journal.

    Returns:
        What the run is, and ranges of rows, first and one after the last, in order; None: there is none.
    """
    try:
        with open(path, "rb") as file:
            head, entries, _ = parsed(file)
    except OSError:
        return None
    if head is None:
        return None
    return head, list(rows_of(entries))


def _holder() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node()}


def _claim(path: str, output: str, lock: bool) -> int:
    """Open a journal and lock it."""
    while True:
        try:
            descriptor = reopen(path, os.O_CREAT)
        except OSError as error:
            raise _cannot_open(output, error) from error
        try:
            if lock:
                _lock(descriptor, output)
            # The run that had it before may have removed it in the meantime.
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _cannot_open(output: str, error: OSError) -> OutputError:
    return OutputError(
        f"{output!r} cannot be created, for its journal cannot be opened: {error.strerror}; "
        "give -o for another place."
    )


def check_free(output: str, path: str) -> None:
    """Raise BusyError when a run holds the journal at `path`; nothing is changed, nor held afterwards."""
    try:
        descriptor = reopen(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_open(output, error) from error
    try:
        _lock(descriptor, output)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, output: str) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where a file that is open cannot be removed or replaced by others
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(
            f"another run{_who(descriptor)} is writing {output!r}: wait for it, or give -o for another name."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{output!r} cannot be locked ({error.strerror}): give --no-lock if no other run writes to it."
        ) from error


def _who(descriptor: int) -> str:
    """Name the process that wrote to the journal last."""
    with open(descriptor, "rb", closefd=False) as file:
        holders = [line for line in file if line.startswith(b'{"pid"')]
    with suppress(ValueError, LookupError, TypeError):
        holder = json.loads(holders[-1])
        return f" (pid {holder['pid']} on {holder['host']})"
    return ""
