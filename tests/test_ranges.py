"""Ranges of rows and the batches in their gaps, against sets of numbers."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from layerprobe.run.ranges import BatchStarts, RowRanges

pairs = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(pairs))
def test_ranges_hold_the_rows_that_were_put_in(ranges: list[tuple[int, int]]) -> None:
    found, rows = RowRanges(ranges), {row for start, stop in ranges for row in range(start, stop)}
    assert len(found) == len(rows)
    assert {row for start, stop in found for row in range(start, stop)} == rows
    assert {row for start, stop in found.gaps(70) for row in range(start, stop)} == set(range(70)) - rows
    ends = [end for both in found for end in both]
    assert ends == sorted(set(ends))  # apart from each other, and in order


def test_a_million_batches_in_a_row_are_one_range() -> None:
    found = RowRanges((start, start + 8) for start in range(0, 8_000_000, 8))
    assert list(found) == [(0, 8_000_000)]


@given(st.sets(st.integers(0, 12)), st.integers(1, 5), st.integers(1, 4))
def test_batches_fill_what_is_missing_and_nothing_else(done: set[int], size: int, share: int) -> None:
    rows = 13 * size - size // 2  # the last batch is shorter
    ranges = RowRanges((place * size, min(place * size + size, rows)) for place in done)
    left = [start for start in range(0, rows, size) if start // size not in done]
    starts = BatchStarts(ranges.gaps(rows), size)
    assert list(starts) == left
    assert list(starts[1::share]) == left[1::share]
    assert list(pickle.loads(pickle.dumps(starts[::share]))[1:]) == left[::share][1:]


def test_a_share_of_a_million_batches_is_small_to_send() -> None:
    starts = BatchStarts(RowRanges([(0, 4_000_000)]).gaps(8_000_000), 8)
    assert len(starts) == 500_000
    assert len(pickle.dumps(starts[3::7])) < 500
