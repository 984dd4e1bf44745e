"""Interrupt runs of `layerprobe extract` at random moments, resume each until it is done, and compare.

    python benchmarks/kill.py [--runs 200] [--mode KILL]... [--format NAME]... [--seed 0]

Every output must equal that of an uninterrupted run, every row of every layer bit for bit, with nothing left
beside it; whatever the format, and whatever the run was doing: starting, computing, writing, committing,
tidying up. The command is the real one, in a process of its own. `--runs` outputs are made under SIGKILL, and
a fifth as many in each of the other modes: SIGTERM; SIGTERM with SIGKILL after it, as SLURM does; SIGKILL of
a run with two worker processes, and of one of its workers; a disk that is full for a while (root only).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import measure
from interrupting import (
    DONE,
    PATIENCE,
    SECONDS,
    Kind,
    Place,
    Sample,
    Wrong,
    children,
    ended,
    expect,
    finish,
    gone,
    kinds,
    random_moment,
    sample_of,
    wait,
    write_images,
)

FULL = 74


@dataclass
class Tally:
    """What was seen in one mode with one format."""

    outputs: int = 0
    equal: int = 0
    interrupted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    """What was there after an interruption."""
    wrong: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.outputs + other.outputs,
            self.equal + other.equal,
            self.interrupted + other.interrupted,
            self.states + other.states,
            [*self.wrong, *other.wrong],
        )

    def note(self, place: Place) -> None:
        """Count an interruption."""
        self.interrupted += 1
        self.states[place.state()] += 1


Mode = Callable[[Place, random.Random, Tally], None]


def by_signal(*numbers: signal.Signals, options: tuple[str, ...] = ()) -> Mode:
    """One to three times the process gets the signals, the second soon after the first."""

    def interrupt(place: Place, chance: random.Random, tally: Tally) -> None:
        for _ in range(chance.randint(1, 3)):
            process = place.start(*options)
            random_moment(place, process, chance)
            workers, running = children(process), process.poll() is None
            for number in numbers:
                process.send_signal(number)
                if number is not numbers[-1]:
                    wait(process, chance.uniform(0, 0.3))
            code, told = ended(process, PATIENCE)
            # Before its handlers are there, a signal ends Python itself.
            expect(
                code, told, [DONE, *(-number for number in numbers), *(128 + number for number in numbers)]
            )
            if not gone(workers, PATIENCE):
                raise Wrong("worker processes are left")
            if code == DONE or not running:
                break
            tally.note(place)
        finish(place, *options)

    return interrupt


def worker_killed(place: Place, chance: random.Random, tally: Tally) -> None:
    """Once or twice one of two worker processes is killed: the run goes on."""
    process = place.start("--processes", "2")
    workers: list[int] = []
    for _ in range(chance.randint(1, 2)):
        wait(process, SECONDS, lambda: bool(children(process)))
        wait(process, chance.uniform(0, place.sample.spans.whole))
        if workers := children(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
            tally.note(place)
    workers += children(process)
    code, told = ended(process, SECONDS)
    expect(code, told, [DONE])
    if not gone(workers, PATIENCE):
        raise Wrong("worker processes are left")
    finish(place)


def full_disk(place: Place, chance: random.Random, tally: Tally) -> None:
    """At a random moment something else takes all that is free of the disk."""
    process, filler = place.start(), place.folder / "filler"
    random_moment(place, process, chance)
    with open(filler, "wb", buffering=0) as file:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                for size in (1 << 20, 1 << 14, 1 << 10, 1):
                    while file.write(bytes(size)) == size:
                        pass
            wait(process, 0.01)
    code, told = ended(process, PATIENCE)
    expect(code, told, [DONE, FULL])
    filler.unlink()
    if code == FULL:
        if "space" not in told:
            raise Wrong(f"it does not say that the disk is full: {told}")
        tally.note(place)
    finish(place)


@dataclass(frozen=True)
class Way:
    """One way to interrupt a run, and where it can be tried."""

    claim: str
    interrupt: Mode
    processes: bool = False
    disk: bool = False


MODES = {
    "KILL": Way("killed by SIGKILL", by_signal(signal.SIGKILL)),
    "TERM": Way("ended by SIGTERM", by_signal(signal.SIGTERM)),
    "TERM+KILL": Way("ended by SIGTERM, then SIGKILL", by_signal(signal.SIGTERM, signal.SIGKILL)),
    "parent": Way(
        "of two worker processes, killed by SIGKILL",
        by_signal(signal.SIGKILL, options=("--processes", "2")),
        processes=True,
    ),
    "worker": Way("that lost one of two worker processes", worker_killed, processes=True),
    "disk": Way("stopped by a full disk", full_disk, disk=True),
}


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Have a folder be a file system of so many bytes, in memory. Raises OSError where only root may."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def place_for(folder: Path, sample: Sample, way: Way) -> Iterator[Place]:
    """A fresh folder for one output; it stays where something was wrong."""
    if way.disk:
        with small_disk(folder, 4 * sample.bytes + (1 << 20)):
            yield Place(folder, sample)
        folder.rmdir()
    else:
        folder.mkdir()
        yield Place(folder, sample)
        shutil.rmtree(folder)


def try_one(folder: Path, sample: Sample, way: Way, seed: str) -> Tally:
    """Make one output, interrupted on its way."""
    tally = Tally(outputs=1)
    try:
        with place_for(folder, sample, way) as place:
            way.interrupt(place, random.Random(seed), tally)
        tally.equal = 1
    except Wrong as wrong:
        tally.wrong.append(f"{sample.kind.name}, seed {seed!r}, in {folder}: {wrong}")
        print(tally.wrong[-1], file=sys.stderr, flush=True)
    return tally


def try_mode(name: str, runs: int, samples: list[Sample], scratch: Path, seed: int) -> dict[str, Tally]:
    """Make so many outputs, of each format in turn; gives what was seen by format."""
    way = MODES[name]
    able = [sample for sample in samples if sample.processes or not way.processes]
    found: dict[str, Tally] = {}
    for run in range(runs if able else 0):
        sample = able[run % len(able)]
        tally = try_one(scratch / f"{name}-{run}", sample, way, f"{seed} {name} {run}")
        found[sample.kind.name] = found.get(sample.kind.name, Tally()) + tally
        if (run + 1) % 10 == 0:
            print(f"{name}: {run + 1} outputs", file=sys.stderr, flush=True)
    return found


def tell(mode: str, found: dict[str, Tally]) -> None:
    """Print one line for each format, and what was there after interruptions."""
    print(f"{MODES[mode].claim}:")
    for kind, tally in found.items():
        states = ", ".join(f"{count} {state}" for state, count in tally.states.most_common())
        counts = f"{tally.equal} of {tally.outputs} equal, {tally.interrupted} interruptions"
        print(f"  {kind:12} {counts} ({states})", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    names = [kind.name for kind in kinds()]
    parser.add_argument("--runs", type=int, default=200, help="Outputs under SIGKILL. [default: 200]")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--mode", action="append", choices=list(MODES), help="Only this one; repeats.")
    parser.add_argument("--format", action="append", choices=names, help="Only this one; repeats.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="A few runs; not for the README.")
    options = parser.parse_args()
    options.rounds = None
    return options


def main() -> None:
    options, started = parsed(), time.monotonic()
    chosen: list[Kind] = [kind for kind in kinds() if not options.format or kind.name in options.format]
    modes = options.mode or list(MODES)
    runs = {mode: options.runs if mode == "KILL" else options.runs // 5 for mode in modes}
    if options.short:
        runs = {mode: len(chosen) if mode == "KILL" else 1 for mode in modes}
    scratch = Path(tempfile.mkdtemp(prefix="layerprobe-kill-"))
    write_images(scratch / "images", 100 if options.short else options.images)
    samples = [sample_of(kind, scratch / "images", scratch / kind.name) for kind in chosen]
    for sample in samples:
        print(f"{sample.kind.name}: {sample.spans.whole:.1f} s uninterrupted", flush=True)
    found: dict[str, dict[str, Tally]] = {}
    for mode in modes:
        if MODES[mode].disk:
            try:
                with small_disk(scratch / "mounted", 1 << 20):
                    pass
                (scratch / "mounted").rmdir()
            except OSError as error:
                print(f"left out: {MODES[mode].claim}, for no file system can be mounted here ({error})")
                continue
        found[mode] = try_mode(mode, runs[mode], samples, scratch, options.seed)
        tell(mode, found[mode])
    print(f"{time.monotonic() - started:.0f} s")
    sums = {mode: sum(formats.values(), Tally()) for mode, formats in found.items()}
    rows = [
        measure.Row(
            f"runs {MODES[mode].claim}: equal in the end ({tally.interrupted} interruptions)",
            "outputs",
            [tally.equal],
            [tally.outputs],
            f"in {len(found[mode])} formats",
        )
        for mode, tally in sums.items()
        if tally.interrupted  # Else nothing was tried.
    ]
    if options.mode or options.format:
        options.short = True  # A part of it is not for the README either.
    measure.report("kill.py", rows, options)
    if wrong := [text for tally in sums.values() for text in tally.wrong]:
        raise SystemExit("\n".join([f"{len(wrong)} outputs went wrong:", *wrong]))
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
