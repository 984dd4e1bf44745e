"""The rows of a stream that an earlier run has done: they come again, and have to be the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from layerprobe.errors import ResumeError

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Batch
    from layerprobe.run.entries import Entry
    from layerprobe.run.feeds import Feeds


class Named(NamedTuple):
    """What a row is called, and what the list of inputs says of it beside that; see `Sample`."""

    key: str
    fields: str


class EarlierRows:
    """What each of them is called, and the state of what it was made of.

    Args:
        path: Of the output, for messages.
        names: Row -> what it was called.
        states: First row of a block -> the row after its last, and `Batch.files`; None: it is finished.
    """

    def __init__(
        self, path: str, names: Mapping[int, Named], states: Mapping[int, tuple[int, str]] | None = None
    ) -> None:
        self._path, self._names = path, names
        self._ends = {stop - 1: (start, files) for start, (stop, files) in (states or {}).items()}
        self._block: list[bytes] = []
        # What came of the stream is gone, so that nothing can begin again now.
        self._instead = (
            "--overwrite without --resume to replace it" if states is None else "--restart to begin again"
        )

    def __contains__(self, row: int) -> bool:
        return row in self._names

    def __getitem__(self, row: int) -> Named:
        return self._names[row]

    def compare(self, row: int, now: Named, state: bytes) -> None:
        """Look whether a row that came is the one that came then.

        Args:
            row: Its number.
            now: What it is called.
            state: Of what it is made of, see `Feeds.file_states`.

        Raises:
            ResumeError: It is another one.
        """
        before = self._names[row]
        if now != before:
            what = "is" if now.key != before.key else "is listed with other fields,"
            raise self._other(f"row {row} {what} {_shown(now, before)} and was {_shown(before, now)}")
        self._block.append(state)
        if row in self._ends:
            start, files = self._ends[row]
            found, self._block = digest_of(self._block[start - row - 1 :]), []
            if found != files:
                raise self._other(f"what rows {start} to {row} are made of was changed")

    def longer(self, row: int) -> ResumeError:
        """Say that there was no row of this number."""
        return self._other(f"it ended before row {row}")

    def end(self, rows: int) -> None:
        """Look whether the stream may end after so many rows. Raises ResumeError."""
        missing = next((row for row in sorted(self._names) if row >= rows), None)
        if missing is not None:
            raise self._other(f"it ends before row {missing}, {self._names[missing].key!r}")

    def _other(self, how: str) -> ResumeError:
        return ResumeError(
            f"{self._path!r} is of another stream than the one that came now, for {how}: give the same "
            f"stream again, {self._instead}, or -o for another name."
        )


def _shown(named: Named, other: Named) -> str:
    return repr(named.key) if named.key != other.key else named.fields or "none"


def with_names(entry: Entry, batch: Batch) -> Entry:
    """Add what the rows of a block are called: of a stream nobody else remembers it."""
    fields = tuple(batch.fields) if any(batch.fields) else ()
    return dataclasses.replace(entry, keys=tuple(batch.keys), fields=fields)


def earlier_rows(path: str, entries: Sequence[Entry]) -> EarlierRows:
    """Say what an earlier run told its journal of the rows of a stream."""
    names = {
        entry.block.start + place: Named(key, fields)
        for entry in entries
        for place, (key, fields) in enumerate(
            zip(entry.keys, entry.fields or [""] * len(entry.keys), strict=True)
        )
    }
    states = {entry.block.start: (entry.block.stop, entry.files) for entry in entries}
    return EarlierRows(path, names, states)


def check_finished(feeds: Feeds, finished: Reader) -> None:
    """Read a stream to its end, and look whether its rows are those of a finished output.

    Raises:
        ResumeError: They are not.
    """
    fields = finished.fields_texts or [""] * len(finished.paths)
    before = map(Named, finished.paths, fields)
    feeds.earlier = EarlierRows(finished.path, dict(enumerate(before)))
    for _ in feeds.samples():
        raise feeds.earlier.longer(len(feeds) - 1)


def digest_of(states: Iterable[bytes]) -> str:
    """Put the states of several rows together."""
    return sha256(b"\n".join(states)).hexdigest()[:16]
