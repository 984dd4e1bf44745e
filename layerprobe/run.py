"""The loop of a run: batches of rows through the engine and the reduction into the writer."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, cast

import numpy as np

from layerprobe import registry
from layerprobe.errors import AllInputsFailedError, UsageError
from layerprobe.feeds import Clock, Feeds
from layerprobe.prefetch import ordered_map
from layerprobe.probed_model import ProbedModel
from layerprobe.records import Batch, ExtractOptions, Failure, Provenance, RunReport, TensorSpec
from layerprobe.version import __version__

if TYPE_CHECKING:
    from layerprobe.protocols import Engine, Reduction, Writer
    from layerprobe.records import Array

Progress = Callable[[int, int, int], None]
"""Called with rows done, rows in all, and failed rows, after each batch."""

KEPT_FAILURES = 1000
"""So many failures are kept for the report; the output's `error` has them all."""


class Run:
    """One run, its parts built: `fill` a writer, `commit` it, `report`.

    Args:
        probed: The model, for the provenance.
        feeds: Its inputs.
        engine: What computes.
        stored: What is stored of the engine's outputs, in the same order.
        how: The user's options.
        clock: Counts the seconds of each stage.
    """

    def __init__(
        self,
        probed: ProbedModel,
        feeds: Feeds,
        engine: Engine,
        stored: Sequence[TensorSpec],
        how: ExtractOptions,
        clock: Clock,
    ) -> None:
        self._probed, self._feeds, self._engine = probed, feeds, engine
        self._stored, self._how, self._clock = tuple(stored), how, clock
        self._reduce: Reduction = registry.find(registry.REDUCTIONS, how.pool, "reduction")
        self._failures: dict[int, Failure] = {}
        self._overflows: dict[str, int] = {}
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def fill(self, writer: Writer, progress: Progress | None) -> None:
        """Compute every row and hand it to the writer, in order."""
        with closing(self._batches()) as batches:
            for batch in batches:
                now = time.perf_counter()
                batch, results = self._compute(batch)
                self._clock.add("compute", now)
                self._failures.update((failure.index, failure) for failure in batch.failures)
                activations = self._reduced(results) if batch.rows else {}
                now = time.perf_counter()
                writer.write(batch.start, self._blocks(batch, activations))
                self._clock.add("write", now)
                if progress is not None:
                    progress(batch.start + batch.size, len(self._feeds), len(self._failures))

    def commit(self, writer: Writer) -> None:
        """Give the output its name; raises AllInputsFailedError instead when there is nothing in it."""
        if len(self._failures) == len(self._feeds):
            first = next(iter(self._failures.values()))
            others = f"; {len(self._failures) - 1} more failed too" if len(self._failures) > 1 else ""
            raise AllInputsFailedError(
                f"no input could be used, so nothing was written: {first.key!r}: {first.reason}{others}."
            )
        now = time.perf_counter()
        reasons = {index: failure.reason for index, failure in self._failures.items()}
        writer.commit(reasons, self._provenance())
        self._clock.add("write", now)

    def report(self, path: str) -> RunReport:
        """What was done, after `commit`."""
        return RunReport(
            output=path,
            rows=len(self._feeds),
            failures=tuple(itertools.islice(self._failures.values(), KEPT_FAILURES)),
            failed=len(self._failures),
            layers=self._stored,
            seconds={stage: round(seconds, 4) for stage, seconds in self._clock.seconds.items()},
            notes=tuple(self._notes()),
        )

    def _batches(self) -> Generator[Batch, None, None]:
        workers = self._how.workers or len(os.sched_getaffinity(0))
        size = self._engine.batch_size
        # Two batches are prepared ahead: one to compute on while the next one fills.
        rows = ordered_map(self._feeds.rows, self._feeds.samples(), workers=workers, window=2 * size)
        with closing(rows):
            for start in range(0, len(self._feeds), size):
                yield self._batch(start, list(itertools.islice(rows, size)))

    def _batch(self, start: int, taken: Sequence[tuple[Array, ...] | Failure]) -> Batch:
        good = [place for place, row in enumerate(taken) if not isinstance(row, Failure)]
        columns = zip(*(taken[place] for place in good), strict=True) if good else ()
        return Batch(
            start=start,
            size=len(taken),
            rows=good,
            inputs=tuple(np.stack(column) for column in columns),
            failures=tuple(row for row in taken if isinstance(row, Failure)),
        )

    def _compute(self, batch: Batch) -> tuple[Batch, dict[str, Array]]:
        """What the engine gives for a batch, and the batch without the rows that the model cannot take."""
        if not batch.rows:
            return batch, {}
        try:
            return batch, self._engine.run(batch.inputs)
        except UsageError:
            if self._how.training:  # Rows influence each other then: to leave one out changes the others.
                raise
        reasons = self._refused(batch.inputs, batch.rows)
        failures = [
            Failure(batch.start + place, self._keys[batch.start + place], "compute", reason)
            for place, reason in reasons.items()
        ]
        kept = [number for number, place in enumerate(batch.rows) if place not in reasons]
        batch = dataclasses.replace(
            batch,
            rows=[batch.rows[number] for number in kept],
            inputs=tuple(column[kept] for column in batch.inputs),
            failures=(*batch.failures, *failures),
        )
        return batch, self._engine.run(batch.inputs) if kept else {}

    def _refused(self, inputs: Sequence[Array], rows: Sequence[int]) -> dict[int, str]:
        """Why the engine refuses some rows of a batch, by place: it is halved until they are alone."""
        try:
            self._engine.run(inputs)
        except UsageError as error:
            if len(rows) == 1:
                return {rows[0]: str(error)}
            middle = len(rows) // 2
            first = self._refused([column[:middle] for column in inputs], rows[:middle])
            return first | self._refused([column[middle:] for column in inputs], rows[middle:])
        return {}

    @cached_property
    def _keys(self) -> list[str]:
        return self._feeds.keys()

    def _reduced(self, results: Mapping[str, Array]) -> dict[str, Array]:
        now = time.perf_counter()
        activations = {}
        for spec in self._engine.outputs:
            reduced = self._reduce(results[spec.name], spec.channel_axis)
            with np.errstate(over="ignore"):
                stored = reduced.astype(stored_dtype(str(reduced.dtype), self._how.dtype), copy=False)
            if stored.dtype == np.float16:
                self._count_overflow(spec.name, reduced, stored)
            activations[spec.name] = stored
        self._clock.add("reduce", now)
        return activations

    def _blocks(self, batch: Batch, activations: Mapping[str, Array]) -> Mapping[str, Array]:
        """Every row of the batch at its place; failed ones hold NaN, or 0 where the type has no NaN."""
        if len(batch.rows) == batch.size:
            return activations
        blocks = {}
        for spec in self._stored:
            fill = np.nan if "float" in spec.dtype else 0
            blocks[spec.name] = np.full((batch.size, *cast(tuple[int, ...], spec.shape)), fill, spec.dtype)
            if batch.rows:
                blocks[spec.name][list(batch.rows)] = activations[spec.name]
        return blocks

    def _count_overflow(self, name: str, exact: Array, stored: Array) -> None:
        count = int(np.isinf(stored).sum()) - int(np.isinf(exact).sum())
        if count:
            self._overflows[name] = self._overflows.get(name, 0) + count

    def _notes(self) -> Iterator[str]:
        if self._probed.note is not None:
            yield self._probed.note
        how = self._feeds.preprocessing
        if how is not None and self._how.preprocess == "auto":
            yield f"preprocess {how.preset}: {how.reason}"
        if self._feeds.animated:
            yield f"{self._feeds.animated} of the images have several frames: the first was taken"
        for name, count in self._overflows.items():
            yield f"{name}: {count} values are too large for float16 and became infinite: use --dtype float32"

    def _provenance(self) -> Provenance:
        classes = {layer.address: layer.class_name for layer in self._probed.info.layers}
        how = self._feeds.preprocessing
        return Provenance(
            model=self._probed.provenance(),
            layers=[
                {
                    "name": spec.name,
                    "layer": spec.layer,
                    "class_name": classes.get(spec.layer, self._probed.info.class_name),
                    "shape": list(spec.shape),
                    "channel_axis": spec.channel_axis,
                    "dtype": spec.dtype,
                }
                for spec in self._stored
            ],
            inputs={
                "rows": len(self._feeds),
                "failed": len(self._failures),
                "several_frames": self._feeds.animated,
                "specs": [dataclasses.asdict(spec) for spec in self._feeds.specs],
            },
            preprocessing=None if how is None else dataclasses.asdict(how),
            options=dataclasses.asdict(self._how),
            engine={**self._engine.describe(), "batch_size": self._engine.batch_size},
            versions=_versions(str(self._engine.describe()["name"])),
            started=self._started,
        )


def stored_dtype(dtype: str, asked: str) -> str:
    """What values of one type are stored as: floats as asked for, all others as they are."""
    return asked if "float" in dtype else dtype


_PACKAGES = {
    "graph": ("openvino",),
    "keras": ("tensorflow", "keras"),
    "converted": ("openvino", "tensorflow", "keras"),
}
"""Engine -> the packages that its numbers come from."""


def _versions(engine: str) -> dict[str, str]:
    """Of everything that had a part in the numbers."""
    packages = (*_PACKAGES.get(engine, ()), "numpy", "pillow", "h5py")
    return {"layerprobe": __version__, "python": platform.python_version()} | {
        package: metadata.version(package) for package in packages
    }
