"""The rows of a run that failed: written down as they happen, and how many are too many."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO

from layerprobe.errors import (
    AllInputsFailedError,
    FailedRowsError,
    NoInputError,
    OutputError,
    ResourceError,
    UsageError,
)
from layerprobe.formats.disk import create, discard, reported, sync, sync_folder
from layerprobe.options import ExtractOptions
from layerprobe.records import Failure
from layerprobe.run.failed_rows import FailedRows, Reasons

_FIELDS = ("index", "path", "stage", "reason")


class Failures:
    """Every failed row of a run, earlier runs' included that it goes on from.

    Args:
        how: `on_error`, `max_errors` and `errors_to` matter.
    """

    def __init__(self, how: ExtractOptions) -> None:
        self._limit = 1 if how.on_error == "fail" else how.max_errors
        self._log = None if how.errors_to is None else FailureLog(how.errors_to)
        self._found = FailedRows()

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Failure]:
        """In the order of rows."""
        return iter(self._found.values())

    @property
    def by_row(self) -> Mapping[int, str]:
        """Row -> why it failed."""
        return Reasons(self._found)

    def reasons(self, rows: range) -> dict[int, str]:
        """Why some of these rows failed, by their place among them, from 0."""
        return {row - rows.start: self._found[row].reason for row in rows if row in self._found}

    def adopt(self, failures: Iterable[Failure]) -> None:
        """Take over rows that failed in an earlier run."""
        for failure in failures:
            self._found.add(failure)

    def too_many(self, failures: Collection[Failure]) -> bool:
        """Whether a run may not go on with so many, so that it is to try these rows again."""
        return self._limit is not None and len(failures) >= self._limit

    def begin(self) -> None:
        """Write down what was adopted. Raises OutputError or WriteError."""
        if self._log is not None:
            self._log.write(self)

    def add(self, failures: Sequence[Failure]) -> None:
        """Count in the failed rows of one batch.

        Raises:
            FailedRowsError: Now there are too many.
            WriteError: They cannot be written down.
        """
        for failure in sorted(failures, key=_row):
            self._found.add(failure)
            if self._log is not None:
                self._log.append(failure)
            if self._limit is not None and len(self._found) >= self._limit:
                raise self._stopped(failure)

    def _stopped(self, last: Failure) -> FailedRowsError:
        which = f"row {last.index}, {last.key!r}: {last.reason.rstrip('.')}"
        if self._limit == 1:
            return FailedRowsError(f"stopped at the first failed row: {which}; mend that input.")
        return FailedRowsError(
            f"stopped, because {len(self._found)} rows failed, last {which}; mend those inputs, "
            "or allow more with --max-errors."
        )

    def check_not_all(self, rows: int, how: ExtractOptions) -> None:
        """Raise AllInputsFailedError, or what fits better, when not one of so many rows could be computed."""
        if not rows:
            raise NoInputError("no images came: expected some in what is read as a stream.")
        # But a part of a larger whole is needed there, be it broken rows.
        if len(self) < rows or how.shard is not None:
            return
        first = next(iter(self))
        if all(failure.stage == "memory" for failure in self):
            raise ResourceError(f"no input could be used, the first {first.key!r}: {first.reason}.")
        reason = first.reason.rstrip(".")
        others = f"; {len(self) - 1} more failed too" if len(self) > 1 else ""
        raise AllInputsFailedError(
            f"no input could be used, so no file was written: {first.key!r}: {reason}{others}."
        )

    def finish(self) -> None:
        """Have them on disk in the order of rows. Raises WriteError."""
        if self._log is not None:
            if not self._log.in_order:
                self._log.write(self)
            self._log.sync()

    def close(self) -> None:
        """Let the file go that they are written to."""
        if self._log is not None:
            self._log.close()


class FailureLog:
    """A file with one JSON object for each failed row, a line each: index, path, stage and reason.

    Args:
        path: Of the file. What stands there is replaced if it is such a file; of a pipe or a device that is
            there, rows are added to what was written, for nothing can be taken back.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._last = -1
        self.in_order = True
        """Whether the rows stand in the file in their order."""

    def write(self, failures: Iterable[Failure]) -> None:
        """Have the file hold these rows and no others: at any moment the old ones or the new ones."""
        self.close()
        if is_stream(self._path):
            self._file = _opened(self._path, self._path, os.O_WRONLY)
        else:
            # Not in one step under its own name: a list that is cut short would look complete.
            folder, name = os.path.split(os.path.realpath(self._path))
            new = os.path.join(folder, f".{name}.unfinished")
            self._file = _opened(self._path, new)
        self.in_order, self._last = True, -1
        for failure in failures:
            self._put(failure)
        with reported(self._path):
            self._file.flush()
            if not is_stream(self._path):
                os.replace(new, os.path.realpath(self._path))

    def append(self, failure: Failure) -> None:
        """Add a row, so that it is there at once."""
        self._put(failure)
        assert self._file is not None
        with reported(self._path):
            self._file.flush()

    def _put(self, failure: Failure) -> None:
        assert self._file is not None
        values = (failure.index, failure.key, failure.stage, failure.reason)
        with reported(self._path):
            self._file.write(json.dumps(dict(zip(_FIELDS, values, strict=True))) + "\n")
        self.in_order &= failure.index > self._last
        self._last = failure.index

    def sync(self) -> None:
        """Bring the file to disk, and its name. Raises WriteError."""
        if self._file is not None and not is_stream(self._path):
            with reported(self._path):
                self._file.flush()
                sync(self._file.fileno())
                sync_folder(os.path.dirname(os.path.realpath(self._path)))

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


def check_log(path: str, output: str) -> None:
    """Check that failed rows can be written to `path`, where nothing else than such a list may be lost.

    Raises:
        OutputError: They cannot.
        UsageError: That is where the output goes.
    """
    if os.path.realpath(path) == os.path.realpath(output):
        raise UsageError(f"failed rows cannot go to the output itself, {path!r}: give another --errors-to.")
    if is_stream(path):
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path!r} cannot be created: give --errors-to a place in a folder of your own.")
    try:
        with open(path, "rb") as file:
            first = file.readline(1 << 20)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        ours = not first or list(json.loads(first)) == list(_FIELDS)
    except (ValueError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise OutputError(
            f"{path!r} holds something else than failed rows and is not replaced: give another --errors-to."
        )


def is_stream(path: str) -> bool:
    """Whether that is a pipe or a device, of which nothing can be replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _opened(path: str, name: str, flags: int | None = None) -> IO[str]:
    try:
        if flags is None:
            discard(name)
        descriptor = create(name) if flags is None else os.open(name, flags)
    except OSError as error:
        raise _not_writable(path, error) from error
    return os.fdopen(descriptor, "w", encoding="ascii")


def _not_writable(path: str, error: OSError) -> OutputError:
    return OutputError(f"{path!r} cannot be written: {error.strerror}; give another --errors-to.")


def _row(failure: Failure) -> int:
    return failure.index
