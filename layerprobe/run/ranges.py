"""Which rows: ranges of them, and the batches that fill the gaps. Their size does not grow with the rows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload


class RowRanges:
    """Rows as ranges, in order, apart from each other; what overlaps or touches becomes one.

    Args:
        ranges: First rows, and one after the last.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._rows = 0
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Take in the rows from `start` to before `stop`."""
        if stop <= start:
            return
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
            for place in range(first, last):
                self._rows -= self._stops[place] - self._starts[place]
        self._starts[first:last], self._stops[first:last] = [start], [stop]
        self._rows += stop - start

    def __len__(self) -> int:
        """How many rows."""
        return self._rows

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """First row, and one after the last, of each range."""
        return zip(self._starts, self._stops, strict=True)

    def gaps(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows, of 0 to `rows`, that are not there."""
        end = 0
        for start, stop in self:
            if start > end:
                yield end, start
            end = max(end, stop)
        if end < rows:
            yield end, rows


def together(ranges: Iterable[tuple[int, int]], enough: int) -> Iterator[tuple[int, int]]:
    """Fewer ranges where they touch, each of about `enough` rows: the next is asked for when it is needed."""
    at = end = 0
    for start, stop in ranges:
        if start == end and end - at < enough:
            end = stop
            continue
        if end > at:
            yield at, end
        at, end = start, stop
    if end > at:
        yield at, end


class BatchStarts(Sequence[int]):
    """First rows of batches, in order; parts of them, such as every third, are as small.

    Args:
        gaps: Ranges of rows that the batches fill, each from where a batch begins.
        size: B.
    """

    def __init__(self, gaps: Iterable[tuple[int, int]], size: int) -> None:
        found = list(gaps)
        self._size = size
        self._firsts = [start for start, _ in found]
        self._ends = list(accumulate(-(-(stop - start) // size) for start, stop in found))
        """How many batches there are to the end of each gap."""
        self._places = range(self._ends[-1] if self._ends else 0)
        """Which of all batches these are."""

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, wanted: int) -> int: ...
    @overload
    def __getitem__(self, wanted: slice) -> BatchStarts: ...

    def __getitem__(self, wanted: int | slice) -> int | BatchStarts:
        if isinstance(wanted, slice):
            part = object.__new__(BatchStarts)
            part._size, part._firsts, part._ends = self._size, self._firsts, self._ends
            part._places = self._places[wanted]
            return part
        place = self._places[wanted]
        gap = bisect_right(self._ends, place)
        before = self._ends[gap - 1] if gap else 0
        return self._firsts[gap] + (place - before) * self._size
