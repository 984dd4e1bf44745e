"""A run on a Ray cluster: what two workers reach beside one process, and what the driver costs.

    python benchmarks/cluster.py

The first compares two workers of one processor each with one process that has both. For the second the
workers compute nothing and only say that they have: what remains is the driver's own time and memory, over a
million blocks of which one in a hundred has a failed row, while workers die now and then. Its last tenth is
compared with its first.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import photos
from extraction import Taken, extract
from measure import ROOT, Row, alternate, arguments, report, timed
from models import made

BLOCKS = 1_000_000
FAILING = 0.01
"""Share of the blocks of which a row fails."""
DYING = 0.0002
"""Share of the spans at which a worker dies."""
PER_BLOCK = 5.0
"""Milliseconds of the driver for one block, at most."""
MORE = 8
"""Bytes of its memory for one block more, at most: the failed rows, each with its reason."""


@dataclass(frozen=True)
class Mark:
    """What the driver has taken up to a moment."""

    wall: float
    cpu: float
    memory: int
    """Bytes that it holds."""

    @classmethod
    def now(cls) -> Mark:
        """Now."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(time.perf_counter(), time.process_time(), pages * resource.getpagesize())


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
            return ("here", os.getpid()), [Written(self._entry(start), counts) for start in starts]

        def _entry(self, start: int) -> Entry:
            failed = (Failure(start, f"row {start}", "decode", "truncated"),)
            block = WrittenBlock(start, start + 1, {"predictions": start})
            return Entry(block, failed if random.random() < FAILING else ())

    RayCrew.worker = Idle
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch, "x.npy")
        # Nobody reads it, so that it takes no space.
        np.lib.format.open_memmap(inputs, "w+", np.uint8, (blocks, 112, 112, 3)).flush()
        marks: dict[int, Mark] = {}

        def progress(done: int, *_: int) -> None:
            if done in (0, blocks // 10, blocks - blocks // 10, blocks):
                marks[done] = Mark.now()

        extract(
            ROOT / "sample_models" / "vgg_shapes.h5", str(inputs), ["predictions"], Path(scratch, "out"),
            cluster="ray", workers=2, batch_size=1, progress=progress,
        )  # fmt: skip
        ended = Mark.now()
    begin, first, last, through = marks.values()
    rates = [(blocks // 10) / (end.cpu - start.cpu) for start, end in ((begin, first), (last, through))]
    print(
        json.dumps(
            {
                "wall": 1000 * (ended.wall - begin.wall) / blocks,
                "cpu": 1000 * (ended.cpu - begin.cpu) / blocks,
                "first": rates[0],
                "last": rates[1],
                "more": (through.memory - first.memory) / (blocks - blocks // 10),
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def cost_of_the_driver(blocks: int, short: bool) -> list[Row]:
    print(f"  the driver, {blocks:,} blocks", file=sys.stderr, flush=True)
    found = driver(blocks)
    what = f"driver of a cluster, {blocks:,} blocks"
    of_each = f"{what}, for each"
    return [
        Row(f"{of_each}, processor time", "ms", [found["cpu"]], at_most=PER_BLOCK),
        Row(of_each, "ms", [found["wall"]], at_most=PER_BLOCK),
        Row(
            f"{what}, the last tenth, by processor time",
            "blocks/s", [found["last"]], [found["first"]], "the first tenth", None if short else 0.8,
        ),
        Row(f"{what}, memory for one more", "bytes", [found["more"]], at_most=None if short else MORE),
        Row(f"{what}, peak memory", "MiB", [found["peak"]]),
    ]  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--drive"]:
        drive(int(sys.argv[2]))
        return
    options = arguments("cluster.py", __doc__)
    # Of its own: another's that runs here might end.
    os.environ["RAY_ADDRESS"] = "local"
    with tempfile.TemporaryDirectory() as scratch:
        rows = [against_one_process(options.images, options.rounds, Path(scratch))]
    rows += cost_of_the_driver(BLOCKS // (100 if options.short else 1), options.short)
    report("cluster.py", rows, options)


if __name__ == "__main__":
    main()
