"""Columns: as lists, but small."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from layerprobe.columns import AT_ONCE, Column, Packed

VALUES = [f"a/folder/{row:07}\udcff.jpg" for row in range(3 * AT_ONCE + 7)]
slices = st.builds(
    slice,
    st.none() | st.integers(-4000, 4000),
    st.none() | st.integers(-4000, 4000),
    st.sampled_from([None, 1, 2, -1, 1000]),
)


@given(slices, st.integers(-len(VALUES), len(VALUES) - 1))
def test_columns_are_as_lists(some: slice, one: int) -> None:
    packed = Packed(VALUES)
    for column in (packed, Column(len(VALUES), lambda start, stop: VALUES[start:stop])):
        assert len(column) == len(VALUES)
        assert list(column[some]) == VALUES[some]
        assert column[one] == VALUES[one]
    assert pickle.loads(pickle.dumps(packed))[some] == VALUES[some]


def test_columns_give_everything_in_order() -> None:
    packed = Packed(VALUES[:5])
    packed += VALUES[5:]
    assert list(packed) == VALUES
    assert list(Column(len(VALUES), lambda start, stop: VALUES[start:stop])) == VALUES
    assert list(Packed()) == list(Column(0, lambda *_: [])) == []


@given(st.lists(st.integers(0, 2 * AT_ONCE), max_size=5))
def test_values_are_packed_alike_however_they_come(counts: list[int]) -> None:
    packed: Packed[int] = Packed()
    for number, count in enumerate(counts):
        if number % 2:
            packed.extend(range(count))
        else:
            for value in range(count):
                packed.append(value)
    at_once = Packed(value for count in counts for value in range(count))
    assert packed.__getstate__() == at_once.__getstate__()


def test_a_million_paths_take_little_memory() -> None:
    packed = Packed(f"/data/photos/{row // 1000:04}/{row:08}.jpg" for row in range(1_000_000))
    assert len(pickle.dumps(packed)) < 8_000_000
    assert packed[765_432] == "/data/photos/0765/00765432.jpg"


def test_what_cannot_be_packed_is_kept_as_it_is() -> None:
    streams = [lambda: None for _ in range(AT_ONCE + 1)]
    assert list(Packed(streams)) == streams
