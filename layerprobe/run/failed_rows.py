"""Failed rows by their number, packed: every row may fail, and each has a sentence."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator, Mapping

from layerprobe.records import Failure

_ROWS = 256
"""Failed rows among so many neighbours are packed together."""
_OPEN = 4
"""So many of such groups are not packed, because more of them may come."""

_Group = dict[int, Failure]


class FailedRows(Mapping[int, Failure]):
    """Row -> its failure, in the order of rows."""

    def __init__(self) -> None:
        self._open: dict[int, _Group] = {}
        self._packed: dict[int, bytes] = {}
        self._unpacked: tuple[int, _Group] = (-1, {})
        self._count = 0

    def add(self, failure: Failure) -> None:
        """Put in a failure, in place of an earlier one of the same row."""
        number = failure.index // _ROWS
        if number not in self._open:
            self._open[number] = dict(self._group(number))
            self._packed.pop(number, None)
            if len(self._open) > _OPEN:
                self._pack(next(iter(self._open)))
        group = self._open[number]
        self._count += failure.index not in group
        group[failure.index] = failure

    def _pack(self, number: int) -> None:
        self._packed[number] = zlib.compress(pickle.dumps(self._open.pop(number), pickle.HIGHEST_PROTOCOL), 1)
        self._unpacked = (-1, {})

    def _group(self, number: int) -> _Group:
        if number in self._open:
            return self._open[number]
        if self._unpacked[0] != number:
            packed = self._packed.get(number)
            self._unpacked = number, {} if packed is None else pickle.loads(zlib.decompress(packed))
        return self._unpacked[1]

    def __getitem__(self, row: int) -> Failure:
        return self._group(row // _ROWS)[row]

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and row in self._group(row // _ROWS)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for number in sorted({*self._open, *self._packed}):
            yield from sorted(self._group(number))


class Reasons(Mapping[int, str]):
    """Row -> why it failed, as writers take it."""

    def __init__(self, failed: Mapping[int, Failure]) -> None:
        self._failed = failed

    def __getitem__(self, row: int) -> str:
        return self._failed[row].reason

    def __contains__(self, row: object) -> bool:
        return row in self._failed

    def __len__(self) -> int:
        return len(self._failed)

    def __iter__(self) -> Iterator[int]:
        return iter(self._failed)
