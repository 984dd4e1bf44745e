"""What all benchmarks share: rounds, medians, the printed table, and the JSON with the machine beside it."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).parent
ROOT = HERE.parent
CACHE = HERE / ".cache"
"""Photos, models and environments, made once; safe to delete."""
RESULTS = HERE / "results"
"""One JSON file per script; the README's table is made from them."""

sys.path.insert(0, str(ROOT))
"""What runs here and in child processes is this checkout, also where another layerprobe is installed."""

PACKAGES = ("numpy", "pillow", "h5py", "openvino", "keras", "tensorflow")
SHORT = {"rounds": 1, "images": 48}

Side = TypeVar("Side")


@dataclasses.dataclass(frozen=True)
class Row:
    """One claim: what layerprobe took in each round, and what it is held against took."""

    claim: str
    unit: str
    """"s" and "MiB", of which less is better, or a rate."""
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    """In the same rounds; empty where there is nothing to compare with."""
    against: str = ""
    """What `theirs` is."""
    at_least: float | None = None
    """What the ratio should reach."""
    at_most: float | None = None
    """What our median should stay under, in `unit`."""

    @property
    def ratio(self) -> float | None:
        """Median over the rounds: how many times as fast as `theirs`, or of what size."""
        pairs = zip(self.ours, self.theirs, strict=bool(self.theirs))
        ratios = [other / own if self.unit == "s" else own / other for own, other in pairs]
        return statistics.median(ratios) if ratios else None

    @property
    def target(self) -> str:
        """The bound and whether it was kept; "" without one."""
        if self.at_least is not None and self.ratio is not None:
            return f">= {self.at_least:g} {'met' if self.ratio >= self.at_least else 'MISSED'}"
        if self.at_most is not None:
            kept = statistics.median(self.ours) <= self.at_most
            return f"<= {self.at_most:g} {self.unit} {'met' if kept else 'MISSED'}"
        return ""

    def cells(self) -> list[str]:
        """The claim, our median, theirs, what theirs is, and the ratio, as words."""
        theirs = amount(self.theirs, self.unit) if self.theirs else ""
        return [
            self.claim,
            amount(self.ours, self.unit),
            theirs,
            self.against,
            "" if self.ratio is None else f"{self.ratio:.2f}",
        ]


def amount(values: Sequence[float], unit: str) -> str:
    """Say a median with as many digits as mean something."""
    median = statistics.median(values)
    return f"{median:.0f} {unit}" if median >= 100 else f"{median:.3g} {unit}"


def arguments(script: str, doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options that every script takes; `rounds`, `images` and `short`."""
    parser = argparse.ArgumentParser(prog=script, description=(doc or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="Of all sides in turn. [default: 5]")
    parser.add_argument("--images", type=int, default=512, help="Photos. [default: 512]")
    parser.add_argument("--short", action="store_true", help="One round of few photos; not for the README.")
    options = parser.parse_args(argv)
    if options.short:
        vars(options).update(SHORT)
    return options


def alternate(rounds: int, sides: Mapping[str, Callable[[], Side]]) -> dict[str, list[Side]]:
    """Let all sides have their turn in each round, so that a busy minute meets them alike."""
    taken: dict[str, list[Side]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            print(f"  round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            taken[name].append(side())
    return taken


def environment() -> dict[str, str]:
    """Of child processes: this checkout's code, quiet TensorFlow, byte code kept, no cache of the user's."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "XDG_CACHE_HOME": str(CACHE / "home")}


def timed(command: Sequence[object]) -> tuple[float, str]:
    """Run a program -> seconds from its start to its end, and its standard output; ends all if it fails."""
    started = time.perf_counter()
    done = subprocess.run(list(map(str, command)), env=environment(), capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr}")
    return seconds, done.stdout


def peak_memory(command: Sequence[object], codes: Sequence[int] = (0,)) -> float:
    """Run a program -> MiB that it held at its peak.

    The kernel's VmHWM is read while it runs: what `wait4` reports has the parent's peak in it. Ends all if it
    ends with another exit code than `codes`.
    """
    running = subprocess.Popen(list(map(str, command)), env=environment(), stdout=subprocess.DEVNULL)
    peak = 0
    while running.poll() is None:
        status = Path(f"/proc/{running.pid}/status").read_text()
        peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), peak)
        time.sleep(0.005)
    if running.returncode not in codes:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {running.returncode}")
    return peak / 1024


def layerprobe(*options: object) -> list[object]:
    """The command line of layerprobe, of this checkout."""
    return [sys.executable, "-m", "layerprobe", *options]


def has_bfloat16() -> bool:
    """Whether this processor computes in it; layerprobe refuses to emulate it."""
    from layerprobe.engines.openvino_import import import_openvino

    import_openvino()
    from layerprobe.engines.openvino_cpu import check_precision
    from layerprobe.errors import PrecisionError

    try:
        check_precision("bfloat16")
    except PrecisionError:
        print("  not in bfloat16: this processor has none", file=sys.stderr, flush=True)
        return False
    return True


def machine() -> dict[str, str | int]:
    """Where the figures are from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def report(script: str, rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Print the table, and write the JSON; that of a short form stays in the cache."""
    from layerprobe.version import __version__

    cells = [[*row.cells(), row.target] for row in rows]
    cells.insert(0, ["claim", "layerprobe", "other", "which is", "ratio", "target"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    found = {
        "script": script,
        "rounds": options.rounds,
        "images": options.images,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"layerprobe": __version__, **{name: metadata.version(name) for name in PACKAGES}},
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    folder = CACHE / "short" if options.short else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    Path(folder, f"{script.removesuffix('.py')}.json").write_text(json.dumps(found, indent=1) + "\n")
