"""Failed rows, packed: as a dictionary of them, in the order of rows."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from layerprobe.records import Failure
from layerprobe.run.failed_rows import FailedRows, Reasons


@given(st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(["one reason", "another"]))))
def test_failed_rows_are_found_whatever_order_they_came_in(came: list[tuple[int, str]]) -> None:
    failed, wanted = FailedRows(), {}
    for row, reason in came:
        failed.add(Failure(row, f"{row}.jpg", "decode", reason))
        wanted[row] = reason
        assert row in failed
    assert list(Reasons(failed).items()) == sorted(wanted.items())
    assert len(failed) == len(wanted)
    assert [row for row in range(3001) if row in failed] == sorted(wanted)


def test_a_hundred_thousand_failed_rows_take_little_memory() -> None:
    tracemalloc.start()
    failed = FailedRows()
    for row in range(100_000):
        failed.add(Failure(row, f"images/{row:07}.jpg", "decode", "cannot identify image file"))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 2_500_000
    assert failed[77_777].key == "images/0077777.jpg"
