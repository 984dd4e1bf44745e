"""Progress lines: now and then, never of no rows, and no faster than the work itself."""

from __future__ import annotations

import pytest

from layerprobe.cli import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for `clock[0] += seconds`."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_rate_is_of_what_was_done_since_the_first_word(clock, capsys):
    with progress.progress(quiet=False) as update:
        clock[0] += 60  # loading
        update(500, 1000, 0)  # an earlier run's
        clock[0] += 5
        update(600, 1000, 0)
        clock[0] += 5
        update(700, 1000, 3)
        clock[0] += 1
        update(720, 1000, 3)
    assert capsys.readouterr().err == "layerprobe: 700 of 1000 rows, 20.0 rows/s, 15 s left, 3 failed\n"


def test_nothing_is_said_before_anything_was_done_nor_when_all_is(clock, capsys):
    with progress.progress(quiet=False, unit="blocks") as update:
        update(0, 10, 0)
        clock[0] += 11
        update(0, 10, 0)
        clock[0] += 11
        update(10, 10, 0)
    assert capsys.readouterr().err == ""
