"""A run on a Ray cluster: what two workers reach beside one process, and what the driver costs.

    python benchmarks/cluster.py

The first compares two workers of one processor each with one process that has both. For the second the
workers compute nothing and only say that they have: what remains is the driver's own time and memory, over a
million blocks of which one in a hundred has a failed row, while workers die now and then.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import photos
from extraction import Taken, extract
from measure import ROOT, Row, alternate, arguments, report, timed
from models import made

BLOCKS = 1_000_000
FEWER = 10
"""The same with so many times fewer blocks, for what grows."""
FAILING = 0.01
"""Share of the blocks of which a row fails."""
DYING = 0.0002
"""Share of the spans at which a worker dies."""
PER_BLOCK = 5.0
"""Milliseconds of the driver for one block, at most."""


def against_one_process(images: int, rounds: int, scratch: Path) -> Row:
    model = made("ResNet50")
    run = partial(extract, model, model.layers, photos.folder(images), scratch / "out.h5")
    sides = {"one process": run, "two workers": partial(run, "--cluster", "ray", "--workers", "2")}
    taken: dict[str, list[Taken]] = alternate(rounds, sides)
    rates = {name: [one.rate for one in runs] for name, runs in taken.items()}
    claim = "ResNet50, once loaded, two workers of a cluster on this machine"
    return Row(claim, "images/s", rates["two workers"], rates["one process"], "one process", 0.9)


def driver(blocks: int) -> dict[str, float]:
    """Run one driver in a program of its own."""
    _, told = timed([sys.executable, __file__, "--drive", blocks])
    found: dict[str, float] = json.loads(told)
    return found


def drive(blocks: int) -> None:
    """Be that program."""
    from layerprobe import extract
    from layerprobe.cluster.ray_crew import RayCrew
    from layerprobe.cluster.worker import ClusterWorker
    from layerprobe.records import Failure, WrittenBlock
    from layerprobe.run.entries import Entry
    from layerprobe.workers.remote import Written
    from layerprobe.workers.worker import count

    class Idle(ClusterWorker):
        """Says that batches are computed."""

        def compute(self, places: Any, starts: Sequence[int]) -> Any:
            if random.random() < DYING:
                os._exit(1)
            counts = count(self._run, self._clock)
            return os.getpid(), [Written(self._entry(start), counts) for start in starts]

        def _entry(self, start: int) -> Entry:
            failed = (Failure(start, f"row {start}", "decode", "truncated"),)
            block = WrittenBlock(start, start + 1, {"predictions": start})
            return Entry(block, failed if random.random() < FAILING else ())

    RayCrew.worker = Idle
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch, "x.npy")
        # Nobody reads it, so that it takes no space.
        np.lib.format.open_memmap(inputs, "w+", np.uint8, (blocks, 112, 112, 3)).flush()
        began: list[tuple[float, float]] = []

        def progress(done: int, *_: int) -> None:
            if not began:
                began.append((time.perf_counter(), time.process_time()))

        extract(
            ROOT / "sample_models" / "vgg_shapes.h5", str(inputs), ["predictions"], Path(scratch, "out"),
            cluster="ray", workers=2, batch_size=1, progress=progress,
        )  # fmt: skip
        wall, cpu = time.perf_counter() - began[0][0], time.process_time() - began[0][1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": 1000 * wall / blocks, "cpu": 1000 * cpu / blocks, "peak": peak}))


def cost_of_the_driver(blocks: int, rounds: int) -> list[Row]:
    taken = alternate(
        rounds, {f"{count} blocks": partial(driver, count) for count in (blocks, blocks // FEWER)}
    )
    many, few = taken.values()
    beside = f"of {blocks // FEWER:,} blocks"

    def row(claim: str, unit: str, name: str, at_most: float | None = None) -> Row:
        ours, theirs = ([one[name] for one in runs] for runs in (many, few))
        return Row(claim, unit, ours, theirs, beside, at_most=at_most)

    return [
        row(f"driver of a cluster, {blocks:,} blocks, for each", "ms", "wall", PER_BLOCK),
        row(f"driver of a cluster, {blocks:,} blocks, processor time for each", "ms", "cpu", PER_BLOCK),
        row(f"driver of a cluster, {blocks:,} blocks, peak memory", "MiB", "peak"),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--drive"]:
        drive(int(sys.argv[2]))
        return
    options = arguments("cluster.py", __doc__)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [against_one_process(options.images, options.rounds, Path(scratch))]
    rows += cost_of_the_driver(BLOCKS // (100 if options.short else 1), 1)
    report("cluster.py", rows, options)


if __name__ == "__main__":
    main()
