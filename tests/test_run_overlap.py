"""The stages of a run overlap: nothing is overwritten too early; an error in any of them ends them all."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from layerprobe.options import ExtractOptions
from layerprobe.records import Sample, TensorSpec
from layerprobe.run.clock import Clock
from layerprobe.run.feed import ArrayFeed
from layerprobe.run.feeds import Feeds
from layerprobe.run.fitting import FittingEngine
from layerprobe.run.loop import Run

PROBED = SimpleNamespace(note=None, path="m.h5")


class Broken(Exception):
    """What no stage expects."""


class Fuse:
    """Raises at the n-th call."""

    def __init__(self, stage: str, call: int, error: type[BaseException] = Broken) -> None:
        self._stage, self._left, self._error = stage, call, error
        self._lock = threading.Lock()

    def __call__(self, stage: str) -> None:
        with self._lock:
            self._left -= stage == self._stage
            if stage == self._stage and self._left == 0:
                raise self._error(stage)


class Rows:
    """A source of rows (2,), each its index; reading takes its time."""

    kind = "arrays"
    row_shape = (2,)

    def __init__(self, count: int, fuse: Callable[[str], None]) -> None:
        self._count, self._fuse = count, fuse
        self._pauses = random.Random(1).choices([0, 0.0002, 0.002], k=count)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self._count):
            self._fuse("list")
            yield Sample(index, f"row {index}", lambda index=index: self._read(index))

    def _read(self, index: int) -> np.ndarray:
        self._fuse("read")
        time.sleep(self._pauses[index])
        return np.full(2, index)


class RowsInParts(Rows):
    """The same rows, many at a time."""

    def values(self, start: int, stop: int) -> Iterator[np.ndarray]:
        middle = (start + stop) // 2
        for first, last in ((start, middle), (middle, stop)):
            yield np.array([self._read(index) for index in range(first, last)]).reshape(-1, 2)


class LateEngine:
    """Looks at its inputs only when it is collected, and has memory for the results of two batches."""

    outputs = (TensorSpec("double", (2,), "float32", layer="double"),)
    finish = None

    def __init__(self, batch_size: int, fuse: Callable[[str], None]) -> None:
        self.batch_size, self._fuse = batch_size, fuse
        self._memory = deque(np.full((batch_size, 2), np.nan, "float32") for _ in range(2))
        self.overflowed: dict[str, int] = {}
        self.begun = 0
        self.computing: set[int] = set()

    def start(self, inputs: tuple[np.ndarray, ...]) -> Callable[[], dict[str, np.ndarray]]:
        self._fuse("start")
        memory = self._memory[0]
        self._memory.rotate()
        memory[:] = np.nan  # as soon as the engine may, it overwrites
        number = self.begun
        self.begun += 1
        self.computing.add(number)
        assert len(self.computing) <= 2

        def collect() -> dict[str, np.ndarray]:
            self._fuse("collect")
            self.computing.discard(number)
            np.multiply(inputs[0], 2, out=memory[: len(inputs[0])])
            return {"double": memory[: len(inputs[0])]}

        return collect


class Memory:
    """A writer that keeps a copy of everything; writing takes its time."""

    def __init__(self, fuse: Callable[[str], None]) -> None:
        self.rows: list[np.ndarray] = []
        self._fuse = fuse

    def write(self, start: int, activations: dict[str, np.ndarray]) -> None:
        self._fuse("write")
        time.sleep(0.001)
        self.rows += list(activations["double"].copy())


def fill(
    count: int, batch_size: int, workers: int, fuse: Fuse, rows: type[Rows] = Rows
) -> tuple[LateEngine, Memory, list[object]]:
    """Run in a thread, so that a run that never ends is noticed; also gives what it raised."""
    engine, writer, raised = LateEngine(batch_size, fuse), Memory(fuse), []
    feeds = Feeds([ArrayFeed(TensorSpec("x", (None,), "float32"), rows(count, fuse), Clock())])
    run = Run(PROBED, feeds, FittingEngine(engine, None), ExtractOptions(workers=workers), Clock())

    def filling() -> None:
        try:
            run.fill(writer, lambda *_: fuse("progress"))
        except BaseException as error:  # an interrupt, too
            raised.append(error)

    thread = threading.Thread(target=filling, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive(), "the run hangs"
    assert not [other for other in threading.enumerate() if other.name.startswith("layerprobe")]
    return engine, writer, raised


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
@pytest.mark.parametrize("workers", [1, 2, 5, 16])
@pytest.mark.parametrize("rows", [Rows, RowsInParts])
def test_no_batch_is_overwritten_before_it_is_computed_and_written(
    batch_size: int, workers: int, rows: type[Rows]
) -> None:
    engine, writer, raised = fill(50, batch_size, workers, Fuse("nothing", 0), rows)
    assert not raised
    np.testing.assert_array_equal(writer.rows, np.repeat(np.arange(50) * 2, 2).reshape(50, 2))
    assert engine.begun == -(-50 // batch_size)


@pytest.mark.parametrize("stage", ["list", "read", "start", "collect", "write", "progress"])
@pytest.mark.parametrize("call", [1, 2, 5, 7])
def test_an_error_anywhere_ends_the_run_and_everything_in_it(stage: str, call: int) -> None:
    error = KeyboardInterrupt if stage == "progress" else Broken
    engine, writer, raised = fill(28, 4, 2, Fuse(stage, call, error))
    assert [type(found) for found in raised] == [error]
    assert not engine.computing, "nothing computes on memory that is given back"
    assert [list(row) for row in writer.rows] == [[2 * row, 2 * row] for row in range(len(writer.rows))]


def test_the_next_batch_is_computed_while_one_is_written() -> None:
    engine = LateEngine(4, Fuse("nothing", 0))
    begun = []
    writer = SimpleNamespace(write=lambda start, _: begun.append((start, engine.begun)))
    feeds = Feeds([ArrayFeed(TensorSpec("x", (2,), "float32"), Rows(16, Fuse("nothing", 0)), Clock())])
    Run(PROBED, feeds, FittingEngine(engine, None), ExtractOptions(workers=2), Clock()).fill(writer)
    assert begun == [(0, 2), (4, 3), (8, 4), (12, 4)]


@pytest.mark.parametrize("slow", ["read", "collect", "write"])
def test_the_run_says_which_stage_it_waited_for(slow: str) -> None:
    def pause(stage: str) -> None:
        time.sleep({"read": 0.02, "collect": 0.04, "write": 0.04}[stage] if stage == slow else 0)

    feeds = Feeds([ArrayFeed(TensorSpec("x", (2,), "float32"), Rows(24, pause), clock := Clock())])
    run = Run(
        PROBED,
        feeds,
        FittingEngine(LateEngine(4, pause), None),
        ExtractOptions(workers=2, preprocess="raw"),
        clock,
    )
    run.fill(Memory(pause))
    assert run.report("out").bound_by == {"collect": "compute"}.get(slow, slow)
