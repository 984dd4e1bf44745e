"""The lines of a journal: what the run is, and the blocks of rows that are on disk."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from layerprobe.records import Failure, WrittenBlock
from layerprobe.run.ranges import RowRanges

VERSION = 2
_READABLE = (1, 2)
"""The first version had one line for each batch, and no counts."""
_HEAD = "layerprobe_journal"


@dataclass(frozen=True, slots=True)
class Head:
    """What the run of a journal is."""

    run: str
    """Random; the finished output has it in its provenance."""
    started: str
    """UTC, ISO 8601."""
    layout: dict[str, int]
    """Of the writer."""
    signature: dict[str, Any]
    """All that decides what the rows hold, as plain JSON; a run of another one cannot go on with this one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One block of rows that is on disk."""

    block: WrittenBlock
    failures: tuple[Failure, ...] = ()
    """Those of these rows."""
    files: str = ""
    """`Batch.files`, of several `batches.joined_digest`: another one later means that a file was changed."""
    several_frames: int = 0
    """`Batch.several_frames` of these rows."""
    overflows: Mapping[str, int] = field(default_factory=dict)
    """Layer -> values of these rows that became infinite because float16 cannot hold them."""
    keys: tuple[str, ...] = ()
    """What these rows are called, where no list tells: they are a stream's."""
    fields: tuple[str, ...] = ()
    """What is said of them beside that; empty: nothing of any."""


def parsed(file: BinaryIO) -> tuple[Head | None, list[Entry], int]:
    """Read the lines of a journal.

    Returns:
        What the run is, the blocks that are on disk in the order of rows, and where the last whole line ends.
    """
    head, entries, end = None, list[Entry](), 0
    for line in file:
        try:
            record = json.loads(line)
            if not line.endswith(b"\n"):
                break
            if _HEAD in record:
                head = _head(record)
            elif head is not None and "rows" in record:
                entry = _entry(record, list(head.layout))
                replace(entries, entry.block.start, entry.block.stop, [entry])
            elif "taken_back" in record:
                for start, stop in record["taken_back"]:
                    replace(entries, int(start), int(stop), [])
            elif "pid" not in record:
                break
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            break
        end += len(line)
    return head, entries, end


def replace(entries: list[Entry], start: int, stop: int, new: list[Entry]) -> None:
    """Put blocks among others, in the order of rows, in place of all that have one of the rows."""
    first = bisect_right(entries, start, key=_stop)
    last = bisect_left(entries, stop, lo=first, key=_start)
    entries[first:last] = new


def _start(entry: Entry) -> int:
    return entry.block.start


def _stop(entry: Entry) -> int:
    return entry.block.stop


def rows_of(entries: Sequence[Entry]) -> RowRanges:
    """Which rows blocks have."""
    return RowRanges((entry.block.start, entry.block.stop) for entry in entries)


def line_of_head(head: Head) -> dict[str, Any]:
    """The line that says what a run is."""
    return {_HEAD: VERSION, **asdict(head)}


def _head(record: Mapping[str, Any]) -> Head:
    signature = dict(record["signature"])
    if record[_HEAD] not in _READABLE:
        signature["journal"] = record[_HEAD]
    return Head(str(record["run"]), str(record["started"]), dict(record["layout"]), signature)


def line_of(entry: Entry) -> dict[str, Any]:
    """The line of a block; checksums stand in the order of the head's layers."""
    block = entry.block
    record: dict[str, Any] = {"rows": [block.start, block.stop], "crc32": list(block.checksums.values())}
    if block.place:
        record["at"] = block.place
    if entry.failures:
        record["failed"] = [
            [failure.index, failure.key, failure.stage, failure.reason] for failure in entry.failures
        ]
    if entry.files:
        record["files"] = entry.files
    if entry.several_frames:
        record["several_frames"] = entry.several_frames
    if entry.overflows:
        record["overflows"] = dict(entry.overflows)
    if entry.keys:
        record["keys"] = entry.keys
    if any(entry.fields):
        record["fields"] = entry.fields
    return record


def _entry(record: Mapping[str, Any], layers: list[str]) -> Entry:
    start, stop = map(int, record["rows"])
    checksums = dict(zip(layers, map(int, record["crc32"]), strict=True))
    failures = tuple(
        Failure(int(index), str(key), stage, str(reason))
        for index, key, stage, reason in record.get("failed", [])
    )
    block = WrittenBlock(start, stop, checksums, int(record.get("at", 0)))
    overflows = {str(layer): int(count) for layer, count in record.get("overflows", {}).items()}
    frames = int(record.get("several_frames", 0))
    keys, fields = (tuple(map(str, record.get(name, ()))) for name in ("keys", "fields"))
    return Entry(block, failures, str(record.get("files", "")), frames, overflows, keys, fields)
