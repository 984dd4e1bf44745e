"""One value for each row of a run, held in little memory or not at all: there may be millions of rows."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar, overload

Value = TypeVar("Value")

AT_ONCE = 1024
"""So many values are unpacked, or found out, in one step."""


class Column(Sequence[Value]):
    """Values that are found out when they are asked for.

    Args:
        length: N.
        part: Gives the values of the rows from a first to before a last.
    """

    def __init__(self, length: int, part: Callable[[int, int], Sequence[Value]]) -> None:
        self._length, self._part = length, part

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, wanted: int) -> Value: ...
    @overload
    def __getitem__(self, wanted: slice) -> Sequence[Value]: ...

    def __getitem__(self, wanted: int | slice) -> Value | Sequence[Value]:
        if isinstance(wanted, slice):
            rows = range(self._length)[wanted]
            if rows.step == 1:
                return list(self._part(rows.start, rows.stop)) if rows else []
            return [self[row] for row in rows]
        row = range(self._length)[wanted]
        return self._part(row, row + 1)[0]

    def __iter__(self) -> Iterator[Value]:
        for start in range(0, self._length, AT_ONCE):
            yield from self._part(start, min(start + AT_ONCE, self._length))


class Packed(Sequence[Value], Generic[Value]):
    """A list to which values are added, packed: of a million paths of a folder some 5 MB instead of 100.

    Args:
        values: The first ones.
    """

    def __init__(self, values: Iterable[Value] = ()) -> None:
        self._packed: list[bytes | list[Value]] = []
        """Of `AT_ONCE` values each; lists of such as cannot be packed."""
        self._last: list[Value] = []
        self._unpacked: tuple[int, list[Value]] = (-1, [])
        self.extend(values)

    def append(self, value: Value) -> None:
        """Add a value."""
        self.extend((value,))

    def extend(self, values: Iterable[Value]) -> None:
        """Add values."""
        each = iter(values)
        while more := list(islice(each, AT_ONCE - len(self._last))):
            self._last += more
            if len(self._last) == AT_ONCE:
                self._packed.append(_pack(self._last))
                self._last = []

    def __iadd__(self, values: Iterable[Value]) -> Packed[Value]:
        self.extend(values)
        return self

    def __len__(self) -> int:
        return AT_ONCE * len(self._packed) + len(self._last)

    def blocks(self, start: int = 0) -> Iterator[list[Value]]:
        """The values from the row `start` on, many at a time."""
        first, skipped = divmod(start, AT_ONCE)
        for number in range(first, len(self._packed) + 1):
            block = self._block(number)
            yield block[skipped:] if skipped else block
            skipped = 0

    def _block(self, number: int) -> list[Value]:
        if number == len(self._packed):
            return self._last
        packed = self._packed[number]
        if isinstance(packed, list):
            return packed
        kept, block = self._unpacked  # in one step: threads may ask for others
        if kept != number:
            block = pickle.loads(zlib.decompress(packed))
            self._unpacked = number, block
        return block

    @overload
    def __getitem__(self, wanted: int) -> Value: ...
    @overload
    def __getitem__(self, wanted: slice) -> list[Value]: ...

    def __getitem__(self, wanted: int | slice) -> Value | list[Value]:
        if isinstance(wanted, slice):
            rows = range(len(self))[wanted]
            if rows.step != 1:
                return [self[row] for row in rows]
            found: list[Value] = []
            for block in self.blocks(rows.start):
                if len(found) >= len(rows):
                    break
                found += block[: len(rows) - len(found)]
            return found
        row = range(len(self))[wanted]
        return self._block(row // AT_ONCE)[row % AT_ONCE]

    def __iter__(self) -> Iterator[Value]:
        for block in self.blocks():
            yield from block

    def __getstate__(self) -> tuple[list[bytes | list[Value]], list[Value]]:
        return self._packed, self._last

    def __setstate__(self, state: tuple[list[bytes | list[Value]], list[Value]]) -> None:
        self._packed, self._last = state
        self._unpacked = (-1, [])


def _pack(values: list[Value]) -> bytes | list[Value]:
    try:
        return zlib.compress(pickle.dumps(values, pickle.HIGHEST_PROTOCOL), 1)
    except (pickle.PicklingError, AttributeError, TypeError):
        return values  # a stream is of this process
