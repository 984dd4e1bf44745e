"""Each stage of a run alone, and all of them together, on the user's machine with the user's model."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe import registry
from layerprobe.bench.advice import advise
from layerprobe.bench.photos import make_photos
from layerprobe.errors import AllInputsFailedError, UnavailableError, UsageError
from layerprobe.formats.placement import check_target
from layerprobe.options import ModelOptions
from layerprobe.records import Batch
from layerprobe.run.batches import batches, worker_threads
from layerprobe.run.bottleneck import INPUT, bound_by
from layerprobe.run.clock import Clock
from layerprobe.run.loop import Run
from layerprobe.run.preparing import prepare_run
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.request import open_sources, read_options

if TYPE_CHECKING:
    from layerprobe.options import ExtractOptions
    from layerprobe.records import Array

ROWS = 128
"""Rows of a round where nothing else is asked for."""

TOGETHER = "end to end"


@dataclasses.dataclass(frozen=True, slots=True)
class BenchReport:
    """What one engine reaches."""

    engine: Mapping[str, Any]
    """Name, device, precision and batch size."""
    rows: int
    """Of one round."""
    workers: int
    """Threads that read, decode and preprocess."""
    row_bytes: int
    """Written per row."""
    load_seconds: float
    """Until the model could compute."""
    rates: Mapping[str, float]
    """Rows per second, median of the rounds: of each stage alone, and "end to end"."""
    limit: float
    """Rows per second end to end if stages cost each other nothing but the processor they share."""
    bound_by: str
    """The stage that all of them together waited for longest."""
    advice: tuple[str, ...]
    """What to change, from what was measured."""


def bench(
    model: str | os.PathLike[str],
    inputs: Sequence[str] = (),
    layers: Sequence[str] = ("output",),
    folder: str | os.PathLike[str] = ".",
    *,
    rounds: int = 3,
    needs: ModelOptions | None = None,
    **options: Any,
) -> BenchReport:
    """Measure what bounds a run of `extract`. What it writes is gone afterwards.

    Args:
        model: Path of a saved model.
        inputs: As for `extract`; none: made-up photographs of 500 x 375.
        layers: Addresses and patterns.
        folder: Where writing is measured.
        rounds: Each measures every stage once; medians are reported.
        needs: What the model's file needs beside itself.
        options: The fields of `options.ExtractOptions`; `limit` is 128 rows where it is not given.

    Raises:
        AllInputsFailedError: Not one input can be used.
        OutputError: There is no such folder, or it denies writing.
        LayerprobeError: As `extract`.
    """
    how = read_options({**options, "limit": options.get("limit") or ROWS})
    check_target(os.path.join(folder, "layerprobe-bench"), "hdf5", overwrite=True)
    with tempfile.TemporaryDirectory(prefix=".layerprobe-bench-", dir=folder) as scratch:
        if not inputs:
            assert how.limit is not None
            photos = make_photos(scratch)
            inputs = [photos[number % len(photos)] for number in range(how.limit)]
        with closing(ProbedModel(model, layers, needs or ModelOptions(), how.engine, how.device)) as probed:
            return _Bench(probed, inputs, how, scratch).report(rounds)


class _Bench:
    """One model, loaded, and its stages one by one."""

    def __init__(self, probed: ProbedModel, inputs: Sequence[str], how: ExtractOptions, scratch: str) -> None:
        started = time.perf_counter()
        self._probed, self._inputs, self._how, self._scratch = probed, inputs, how, scratch
        self._clock = Clock()
        self._run = self._prepared(how)
        self._load_seconds = time.perf_counter() - started
        self._workers = worker_threads(how, self._run.feeds)
        if self._run.feeds.rows is None:
            raise UsageError("bench goes through its inputs again and again: give images, not a stream.")
        self._rows = self._run.feeds.rows
        self._batch = self._whole_batch()
        self._results = self._run.engine.run(self._batch.inputs)
        self._block = self._run.storing.block(self._batch, self._results)

    def report(self, rounds: int) -> BenchReport:
        measured = [self._round() for _ in range(rounds)]
        rates = {stage: statistics.median(rate[stage] for rate, _ in measured) for stage in measured[0][0]}
        waits = {stage: statistics.median(wait[stage] for _, wait in measured) for stage in measured[0][1]}
        bound = bound_by(waits)
        run = self._run
        return BenchReport(
            engine={**run.engine.describe(), "batch_size": run.engine.batch_size},
            rows=self._rows,
            workers=self._workers,
            row_bytes=self._row_bytes(),
            load_seconds=self._load_seconds,
            rates=rates,
            limit=1 / sum(1 / rates[stage] for stage in ("input", "compute", "reduce", "write")),
            bound_by=bound,
            advice=advise(bound, self._how, run.engine.outputs, self._row_bytes(), self._faster(bound)),
        )

    def _round(self) -> tuple[dict[str, float], dict[str, float]]:
        """Rows per second of every stage, and the seconds that all together waited for each."""
        rates = self._input(self._run)
        rates["compute"] = self._rate(lambda: self._compute(self._run))
        rates["reduce"] = self._rate(lambda: self._repeat(self._reduce))
        rates["write"] = self._rate(self._write)
        before = dict(self._clock.seconds)
        rates[TOGETHER] = self._rate(self._together)
        waits = {stage: spent - before.get(stage, 0.0) for stage, spent in self._clock.seconds.items()}
        return rates, waits

    def _prepared(self, how: ExtractOptions) -> Run:
        return prepare_run(self._probed, open_sources(self._inputs, how.limit), how, self._clock)

    def _whole_batch(self) -> Batch:
        """One batch of the inputs, with memory of its own; others of its rows stand for those that failed."""
        with closing(batches(self._run.feeds, self._run.engine.batch_size, self._workers)) as taken:
            for batch in taken:
                if batch.rows:
                    filled = np.resize(np.arange(len(batch.rows)), batch.size)
                    inputs = tuple(array[filled] for array in batch.inputs)
                    return dataclasses.replace(batch, rows=range(batch.size), inputs=inputs, failures=())
        raise AllInputsFailedError("no input can be used: give others to measure with.")

    def _rate(self, work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        return self._rows / (time.perf_counter() - started)

    def _repeat(self, work: Callable[[int], None]) -> None:
        """Do as many batches as the rows make; the last may be smaller in a run, and counts for less here."""
        for start in range(0, self._rows, self._batch.size):
            work(start)

    def _input(self, run: Run) -> dict[str, float]:
        """All of it together, and each part by the seconds that its threads took for it."""
        before = dict(self._clock.seconds)

        def drain() -> None:
            with closing(batches(run.feeds, run.engine.batch_size, self._workers)) as taken:
                for _ in taken:
                    pass

        together = self._rate(drain)
        spent = {part: self._clock.seconds.get(part, 0.0) - before.get(part, 0.0) for part in INPUT}
        rates = {part: self._rows * self._workers / seconds for part, seconds in spent.items() if seconds}
        return {**rates, "input": together}

    def _compute(self, run: Run) -> None:
        engine, collect = run.engine, None
        for _ in range(0, self._rows, self._batch.size):
            following = engine.start(self._batch.inputs)
            if collect is not None:
                collect()
            collect = following
        if collect is not None:
            collect()

    def _reduce(self, _: int) -> None:
        self._run.storing.block(self._batch, self._results)

    def _write(self) -> None:
        writer = registry.find(registry.WRITERS, "hdf5", "format")(*self._output())
        try:
            self._repeat(lambda start: writer.write(start, self._rows_from(start)))
            self._run.commit(writer)
        finally:
            writer.abort()

    def _rows_from(self, start: int) -> dict[str, Array]:
        return {name: array[: self._rows - start] for name, array in self._block.items()}

    def _together(self) -> None:
        writer = registry.find(registry.WRITERS, "hdf5", "format")(*self._output())
        try:
            self._run.fill(writer)
            self._run.commit(writer)
        finally:
            writer.abort()

    def _output(self) -> tuple[str, Any, Sequence[str]]:
        return os.path.join(self._scratch, "out.h5"), self._run.stored, self._run.feeds.keys()

    def _row_bytes(self) -> int:
        return sum(array[0].nbytes for array in self._block.values())

    def _faster(self, bound: str) -> tuple[float, float] | None:
        """Rows per second of the stage as it is, and with the option that is for it, where there is one."""
        how = self._how
        if bound in INPUT and not how.fast_decode and self._run.feeds.preprocessing is not None:
            fast = self._prepared(dataclasses.replace(how, fast_decode=True))
            return self._input(self._run)["input"], self._input(fast)["input"]
        if bound == "compute" and how.precision == "float32":
            try:
                fast = self._prepared(dataclasses.replace(how, precision="bfloat16"))
            except UnavailableError:
                return None
            fast.engine.run(self._batch.inputs)
            now = self._rate(lambda: self._compute(self._run))
            return now, self._rate(lambda: self._compute(fast))
        return None
