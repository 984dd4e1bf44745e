"""How many rows are computed at once: fewer when memory runs out, or as many as measuring finds best."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import numpy as np

from layerprobe.errors import LayerprobeError, ResourceError, UsageError

if TYPE_CHECKING:
    from layerprobe.options import Finish
    from layerprobe.protocols import Collect, Engine, Outline
    from layerprobe.records import Array, TensorSpec

    Built = TypeVar("Built", bound=Outline)

OUT_OF_MEMORY = (ResourceError, MemoryError)

SIZES = (4, 8, 16, 32, 64, 128, 256)
"""The batch sizes that are tried."""
SECONDS_TO_MEASURE = 10.0
"""A size that would take longer, together with those before it, is not tried."""
SECONDS_PER_SIZE = 0.5
NEARLY_BEST = 0.97
"""Of the best rate: what a smaller size has to reach to be taken instead."""

Build = Callable[[int], "Engine"]
"""The same engine for another batch size."""


class FittingEngine:
    """An engine that goes on with half as many rows at once when a batch does not fit into memory.

    Batches stay as large as they were, for blocks of an output are made of them: they are computed in parts.
    See `protocols.Engine`.

    Args:
        engine: For the first try.
        build: Makes it anew; None: it cannot be had for other batch sizes.
        batch_size: B, where the engine could be built for fewer rows only.
    """

    def __init__(self, engine: Engine, build: Build | None, batch_size: int | None = None) -> None:
        self._engine, self._build = engine, build
        self.batch_size = batch_size or engine.batch_size
        self.outputs = engine.outputs
        self.overflowed: Mapping[str, int] = {}
        self._begun: list[_Begun] = []

    @property
    def at_once(self) -> int:
        """How many rows are computed at once by now."""
        return self._engine.batch_size

    @property
    def finish(self) -> Finish | None:
        """See `protocols.Engine`."""
        return self._engine.finish

    def describe(self) -> dict[str, Any]:
        """See `protocols.Engine`; how many rows it computes at once is no part of it."""
        return self._engine.describe()

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`; what is computed in parts is computed when it is collected."""
        if self.at_once < self.batch_size:
            return partial(self.run, inputs)
        try:
            begun = _Begun(self._engine, self._engine.start(inputs))
            self._begun = [*self._begun[-1:], begun]
            return partial(self._collected, begun, inputs)
        except OUT_OF_MEMORY:
            pass
        self._shrink(inputs)
        return partial(self.run, inputs)

    def _collected(self, begun: _Begun, inputs: Sequence[Array]) -> dict[str, Array]:
        if begun in self._begun:
            try:
                results, self.overflowed = begun.collected()
                self._begun.remove(begun)
                return results
            except OUT_OF_MEMORY:
                pass
            self._shrink(inputs)
        return self.run(inputs)

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`.

        Raises:
            UsageError: As the engine does.
            ResourceError: Not even one row fits into memory, or the engine takes no other number of them.
        """
        while True:
            try:
                return self._in_parts(inputs)
            except OUT_OF_MEMORY:
                pass
            self._shrink(inputs)

    def _in_parts(self, inputs: Sequence[Array]) -> dict[str, Array]:
        rows, step = len(inputs[0]), self.at_once
        found: dict[str, Array] = {}
        overflowed: dict[str, int] = {}
        for start in range(0, rows, step):
            results = self._engine.run([column[start : start + step] for column in inputs])
            for name, count in self._engine.overflowed.items():
                overflowed[name] = overflowed.get(name, 0) + count
            if rows <= step:
                found = results
                break
            for name, values in results.items():
                if not start:
                    found[name] = np.empty((rows, *values.shape[1:]), values.dtype)
                found[name][start : start + step] = values
        self.overflowed = overflowed
        return found

    def _shrink(self, inputs: Sequence[Array]) -> None:
        """Halve the number of rows; outside of any `except`, for an exception holds on to memory."""
        if self._build is None:
            raise ResourceError(
                f"not enough memory for a batch of {self.at_once} rows, which the model or --training fixes: "
                "record smaller layers, or give another --device."
            )
        taken = sum(column[:1].nbytes for column in inputs)
        if not self.halved(taken):
            raise ResourceError(
                f"not enough memory to compute it alone: it takes {taken:,} bytes of input and "
                f"{row_bytes(self.outputs):,} of activations, and what the model needs in between"
            )

    def halved(self, row_bytes: int) -> bool:
        """Compute half as many rows at once from now on, to have more memory; False: there is no half.

        Args:
            row_bytes: Of the input of one.

        Raises:
            ResourceError: There is no room to build an engine any more.
        """
        if self._build is None or self.at_once == 1:
            return False
        # While the next engine is built nothing of this one may take memory.
        for begun in self._begun:
            begun.give_up()
        self._begun = []
        self._engine = _Gone(self._engine)
        self._engine = built(self._build, self.at_once // 2, row_bytes)
        return True


class _Begun:
    """A batch that an engine is at."""

    def __init__(self, engine: Engine, collect: Collect) -> None:
        self._engine: Engine | None = engine
        self._collect: Collect | None = collect

    def collected(self) -> tuple[dict[str, Array], Mapping[str, int]]:
        """The engine's results, and its `overflowed`."""
        assert self._engine is not None
        assert self._collect is not None
        results = self._collect()
        return results, self._engine.overflowed

    def give_up(self) -> None:
        """Let the engine go, once it no longer reads the rows."""
        if self._collect is not None:
            with suppress(Exception):
                self._collect()
        self._engine = self._collect = None


class _Gone:
    """What is known of an engine that was let go, so that a smaller one has room; see `protocols.Engine`."""

    def __init__(self, engine: Engine) -> None:
        self.batch_size, self.outputs, self.finish = engine.batch_size, engine.outputs, engine.finish
        self.overflowed: Mapping[str, int] = {}
        self._about = engine.describe()

    def run(self, inputs: Sequence[Array]) -> NoReturn:
        """Compute nothing any more."""
        raise ResourceError("not enough memory to build the model again: give a smaller --batch-size.")

    start = run

    def describe(self) -> dict[str, Any]:
        """What the engine said of itself."""
        return self._about


def built(build: Callable[[int], Built], rows: int, row_bytes: int) -> Built:
    """Build an engine for so many rows at once, or for half as many and so on until memory holds it.

    Args:
        build: Makes the engine.
        rows: At most.
        row_bytes: Of the input of one.

    Raises:
        ResourceError: There is no room for one that computes one row.
    """
    while True:
        try:
            return build(rows)
        except OUT_OF_MEMORY as error:
            reason = str(error).rstrip(".") or "not enough memory to build the model"
        if rows == 1:
            raise ResourceError(f"{reason}, also for one row at a time, of {row_bytes:,} bytes of input.")
        rows //= 2


def row_bytes(specs: Sequence[TensorSpec]) -> int:
    """Bytes of one row of all these, as float32."""
    return sum(4 * math.prod(cast(tuple[int, ...], spec.shape)) for spec in specs)


def refused(engine: Engine, inputs: Sequence[Array], rows: Sequence[int]) -> dict[int, LayerprobeError]:
    """Why an engine cannot compute some rows of a batch, by place: it is halved until they are alone.

    Args:
        engine: Raises UsageError or ResourceError for some of them.
        inputs: (n, ...) arrays, as for `Engine.run`.
        rows: The n places.
    """
    try:
        engine.run(inputs)
    except (UsageError, ResourceError) as error:
        if len(rows) == 1:
            return {rows[0]: error}
        middle = len(rows) // 2
        first = refused(engine, [column[:middle] for column in inputs], rows[:middle])
        return first | refused(engine, [column[middle:] for column in inputs], rows[middle:])
    return {}


def measured(inputs: Sequence[Array], build: Build, most: int) -> tuple[Engine | None, dict[int, float]]:
    """Find out with how many rows at once an engine is fastest, or nearly so.

    Args:
        inputs: (n, ...) arrays, as for `Engine.run`: rows to try with.
        build: Makes the engine.
        most: Rows at once that memory shall hold.

    Returns:
        An engine, None where there is nothing to choose from; and rows per second by batch size.
    """
    rates: dict[int, float] = {}
    started = time.monotonic()
    engine: Engine | None = None
    for size in (size for size in SIZES if size <= most):
        left = SECONDS_TO_MEASURE - (time.monotonic() - started)
        best, last = max(rates.values(), default=math.inf), list(rates.values() or [math.inf])[-1]
        if left < 4 * size / last or last < NEARLY_BEST**2 * best:
            break
        try:
            tried = build(size)
            rate = _rate(tried, _repeated(inputs, size))
        except OUT_OF_MEMORY:
            break
        if engine is None or rate > rates[engine.batch_size] / NEARLY_BEST:
            engine = tried
        rates[size] = rate
    return engine, rates


def _repeated(inputs: Sequence[Array], rows: int) -> list[Array]:
    """So many rows, the first ones again where there are fewer."""
    return [column[np.arange(rows) % len(column)] for column in inputs]


def _rate(engine: Engine, inputs: Sequence[Array]) -> float:
    """Rows per second, with two batches at a time as a run has them."""
    engine.run(inputs)
    started, rows = time.perf_counter(), 0
    pending: deque[Collect] = deque([engine.start(inputs)])
    while time.perf_counter() - started < SECONDS_PER_SIZE:
        pending.append(engine.start(inputs))
        pending.popleft()()
        rows += len(inputs[0])
    pending.popleft()()
    return (rows + len(inputs[0])) / (time.perf_counter() - started)
