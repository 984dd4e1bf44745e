from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from layerprobe.run.prefetch import ordered_map


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("layerprobe")]


@pytest.mark.parametrize(("workers", "window"), [(1, 1), (1, 8), (4, 1), (4, 4), (4, 64)])
def test_results_come_in_order_however_long_each_takes(workers: int, window: int) -> None:
    pauses = random.Random(3).choices([0.0, 0.0005, 0.003], k=60)

    def square(number: int) -> int:
        time.sleep(pauses[number])
        return number**2

    assert list(ordered_map(square, range(60), workers=workers, window=window)) == [n**2 for n in range(60)]
    assert not our_threads()


def test_nothing_gives_nothing() -> None:
    assert list(ordered_map(abs, [], workers=2, window=2)) == []


def test_several_items_are_worked_on_at_a_time() -> None:
    together = threading.Barrier(3, timeout=10)
    assert list(ordered_map(lambda _: together.wait() >= 0, range(3), workers=3, window=3)) == [True] * 3


@pytest.mark.parametrize("window", [1, 5])
def test_items_are_read_no_further_ahead_than_the_window(window: int) -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(1, 101):
            read.append(number)
            yield number

    given = ordered_map(lambda number: number, items(), workers=4, window=window)
    for number in range(1, 41):
        assert next(given) == number
        time.sleep(0.001)
        assert len(read) - (number - 1) <= window
    given.close()


def test_an_exception_comes_where_its_item_would_have_come() -> None:
    def reciprocal(number: int) -> float:
        time.sleep(0.002 * (3 - number))
        return 1 / number

    given = ordered_map(reciprocal, [2, 1, 0, 4], workers=4, window=4)
    assert [next(given), next(given)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(given)
    assert next(given, "over") == "over"
    assert not our_threads()


@pytest.mark.parametrize("window", [2, 50])
def test_closing_early_drops_what_has_not_begun_and_leaves_no_thread(window: int) -> None:
    begun = []

    def slow(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        return number

    given = ordered_map(slow, range(1000), workers=2, window=window)
    assert next(given) == 0
    given.close()
    assert len(begun) < 20
    assert not our_threads()


def test_an_interrupt_in_the_caller_ends_the_map() -> None:
    given = ordered_map(time.sleep, [0.001] * 1000, workers=2, window=10)
    next(given)
    with pytest.raises(KeyboardInterrupt):
        given.throw(KeyboardInterrupt)
    assert not our_threads()


def test_a_result_is_let_go_once_it_is_given() -> None:
    class Row:
        pass

    given = ordered_map(lambda _: Row(), range(10), workers=2, window=4)
    row = weakref.ref(next(given))
    next(given)
    deadline = time.monotonic() + 5
    while row() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert row() is None
    given.close()
