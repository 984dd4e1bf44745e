"""Runs of `layerprobe extract` that are interrupted at a random moment: how, and what must come of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from measure import ROOT, environment

import layerprobe
from layerprobe import registry
from layerprobe.errors import LayerprobeError
from layerprobe.run.journal import written_rows
from layerprobe.verification import verify

MODEL = ROOT / "sample_models" / "vgg_shapes.h5"
LAYERS = ("conv5_3", "output")
BATCH = 4
DONE = 3
"""The exit code of a whole run: one of its images is broken."""
USAGE = 2
SECONDS = 120
"""A run that takes longer hangs."""
PATIENCE = 10
"""Seconds in which a run must end that was asked to."""

# The command as users have it, but that rows are brought to disk 20 times a second instead of once: a run of
# two seconds then has as many moments to be interrupted in as one of a minute.
PROGRAM = (
    "from layerprobe import cli; from layerprobe.run import journal; journal.SECONDS_BETWEEN_FLUSHES = 0.05; "
    "import sys; sys.argv[0] = 'layerprobe'; cli.main()"
)


WITHOUT_EFFECT = ("resume", "processes", "cluster", "workers")
"""Options that an output records and that must not change it."""


class Wrong(Exception):
    """What must not happen, in words."""


@dataclass(frozen=True)
class Kind:
    """One way to store an output."""

    name: str
    file: str
    options: tuple[str, ...] = ()


VARIANTS = (Kind("hdf5, gzip", "out.h5", ("--compress", "gzip")),)
"""Ways to store an output that its suffix does not tell."""


def kinds() -> list[Kind]:
    """Every format of the registry, once, and the variants of them."""
    suffixes = {file_format: suffix for suffix, file_format in reversed(registry.SUFFIXES.items())}
    return [*(Kind(name, f"out{suffix}") for name, suffix in sorted(suffixes.items())), *VARIANTS]


@dataclass(frozen=True)
class Spans:
    """How long an uninterrupted run takes, in seconds from its start."""

    begun: float
    """Until something is on disk."""
    whole: float


@dataclass(frozen=True)
class Sample:
    """The images, and one kind of output of them that was never interrupted."""

    images: Path
    kind: Kind
    processes: bool
    """Whether several can write to it."""
    spans: Spans
    reference: dict[str, object]
    bytes: int
    """What it takes on disk, or its rows do where they wait to be compressed."""


class Place:
    """A folder in which one output comes into being."""

    def __init__(self, folder: Path, sample: Sample) -> None:
        self.folder, self.sample = folder, sample
        self.output = folder / sample.kind.file

    def command(self, *options: str) -> list[str]:
        """The words of a run that goes on with what is there."""
        return command(self.sample.images, self.output, *self.sample.kind.options, "--resume", *options)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Begin, or go on."""
        return start(self.command(*options))

    @property
    def rows(self) -> int:
        """Rows that are on disk, as the journal says."""
        found = written_rows(str(self.folder / f".{self.output.name}.journal"))
        return 0 if found is None else sum(stop - start for start, stop in found[1])

    def state(self) -> str:
        """Say what is there, in a few words."""
        names = os.listdir(self.folder)
        if self.output.name in names:
            return "named" if names == [self.output.name] else "named, not tidied up"
        if not names:
            return "nothing there"
        total = len(self.sample.reference["paths"])  # type: ignore[arg-type]
        return (
            "no rows kept" if not self.rows else "all rows kept" if self.rows >= total else "some rows kept"
        )

    def check(self) -> None:
        """Raise Wrong unless the output is the reference, and alone."""
        if (names := os.listdir(self.folder)) != [self.output.name]:
            raise Wrong(f"beside the output there is {sorted(set(names) - {self.output.name})}")
        if problems := verify(self.output).problems:
            raise Wrong(f"verify says: {problems[0]}")
        found = contents(self.output)
        for name, wanted in self.sample.reference.items():
            if found[name] != wanted:
                raise Wrong(f"{name!r} is not that of the uninterrupted run")


def write_images(folder: Path, count: int) -> None:
    """Write small pictures of noise, one of them broken."""
    from PIL import Image

    random_numbers = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        noise = random_numbers.integers(0, 256, (28, 28, 3), "uint8")
        Image.fromarray(noise).save(folder / f"{number:05}.png")
    (folder / "00013.png").write_bytes(b"no image")


def command(images: Path, output: Path, *options: str) -> list[str]:
    """The words of a run."""
    layers = [word for layer in LAYERS for word in ("-l", layer)]
    how = ["--batch-size", str(BATCH), "-q", "-o", str(output)]
    return [sys.executable, "-c", PROGRAM, "extract", str(MODEL), str(images), *layers, *how, *options]


def start(words: Sequence[str], errors: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Begin a run in the background; its words on standard error are kept."""
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=errors or subprocess.PIPE, env=environment()
    )


def contents(output: Path) -> dict[str, object]:
    """All that an output holds: layers, texts, checksums; and its record, but for times and chance."""
    with layerprobe.open(output) as reader:
        found: dict[str, object] = {layer: np.asarray(reader[layer]).tobytes() for layer in reader}
        record = {**reader.provenance, "started": "", "run": {**reader.provenance["run"], "id": ""}}
        record["options"] = {**record["options"], **dict.fromkeys(WITHOUT_EFFECT)}
        texts = {"paths": reader.paths, "status": reader.status, "error": reader.error}
        return {**found, **texts, "checksums": reader.checksums, "provenance": record}


def sample_of(kind: Kind, images: Path, folder: Path) -> Sample:
    """Find out what a format can, how long a run takes, and what comes of it."""
    folder.mkdir()
    output = folder / kind.file
    processes = _takes(command(images, output, *kind.options, "--processes", "2"))
    remove(output)
    started, begun = time.monotonic(), 0.0
    with start(command(images, output, *kind.options)) as process:
        while process.poll() is None:
            begun = begun or (time.monotonic() - started if os.listdir(folder) else 0.0)
            time.sleep(0.001)
    if process.returncode != DONE:
        raise SystemExit(f"an uninterrupted run to {kind.file} ended with {process.returncode}")
    spans = Spans(begun, time.monotonic() - started)
    files = output.iterdir() if output.is_dir() else [output]
    reference = contents(output)
    rows = sum(len(values) for values in reference.values() if isinstance(values, bytes))
    size = max(rows, sum(file.stat().st_size for file in files if file.is_file()))
    return Sample(images, kind, processes, spans, reference, size)


def _takes(words: Sequence[str]) -> bool:
    """Whether the options of a run are accepted."""
    done = subprocess.run(words, capture_output=True, env=environment())
    if done.returncode not in (DONE, USAGE):
        raise SystemExit(f"{' '.join(words)}\nended with {done.returncode}:\n{done.stderr.decode()}")
    return done.returncode == DONE


def remove(output: Path) -> None:
    """Remove a file or a folder."""
    subprocess.run(["rm", "-rf", str(output)], check=True)


def random_moment(place: Place, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Wait for a moment: of starting, of computing, about the end, just after it, or any."""
    spans, total = place.sample.spans, len(place.sample.reference["paths"])  # type: ignore[arg-type]
    moment = chance.choice(["starting", "filling", "filling", "ending", "named", "any"])
    if moment == "starting":
        wait(process, spans.begun * chance.uniform(0, 1.2))
    elif moment == "filling":
        wait(process, SECONDS, lambda: len(os.listdir(place.folder)) > 0)
        wait(process, (spans.whole - spans.begun) * chance.random())
    elif moment == "ending":
        share = chance.uniform(0.8, 1)
        wait(process, SECONDS, lambda: place.rows >= share * total - 2 * BATCH)
        wait(process, chance.uniform(0, 0.2))
    elif moment == "named":
        wait(process, SECONDS, place.output.exists)
        wait(process, chance.uniform(0, 0.004))
    else:
        wait(process, spans.whole * chance.uniform(0, 1.1))


def wait(process: subprocess.Popen[bytes], seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Wait for a time, a condition or the end of the process, whichever comes first."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None and not until():
        time.sleep(min(0.0005, max(0.0, end - time.monotonic())))


def ended(process: subprocess.Popen[bytes], seconds: float) -> tuple[int, str]:
    """Wait for the end; raises Wrong where it does not come in time."""
    try:
        _, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise Wrong(f"it did not end within {seconds} s") from error
    return process.returncode, told.decode(errors="replace")


def expect(code: int, told: str, allowed: Sequence[int]) -> None:
    """Raise Wrong unless a run ended as it may."""
    if code not in allowed or "Traceback" in told:
        raise Wrong(f"exit code {code}: {' '.join(told.split())[-300:]}")


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that one has started and that are there."""
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    except OSError:
        return []
    return [int(number) for number in text.split()]


def gone(pids: Sequence[int], seconds: float) -> bool:
    """Whether processes end within some seconds, by themselves."""
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if _lives(pid)]) and time.monotonic() < end:
        time.sleep(0.01)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not left


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def finish(place: Place, *options: str) -> None:
    """Go on to the end, and compare."""
    code, told = ended(place.start(*options), SECONDS)
    expect(code, told, [DONE])
    try:
        place.check()
    except (LayerprobeError, LookupError, OSError) as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error
