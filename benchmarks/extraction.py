"""One run of `layerprobe extract`, as the benchmarks measure it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import layerprobe, timed
from models import Model


@dataclass(frozen=True)
class Taken:
    """What one run took."""

    seconds: float
    """Of the whole program."""
    rate: float
    """Images per second once loaded: without imports, listing the inputs, reading and compiling the model."""


def command(model: Model, layers: Sequence[str], inputs: Sequence[Path], output: Path) -> list[object]:
    """The command line."""
    named = [word for layer in layers for word in ("-l", layer)]
    return layerprobe("extract", model.path, *named, *inputs, "-o", output, "--overwrite", "--quiet")


def extract(model: Model, layers: Sequence[str], folder: Path, output: Path, *options: str) -> Taken:
    """Run it on the photos of a folder; the output is a new file."""
    output.unlink(missing_ok=True)
    seconds, out = timed([*command(model, layers, [folder], output), "--json", *options])
    done = json.loads(out)
    if done["failed"]:
        raise SystemExit(f"{done['failed']} of {done['rows']} photos failed")
    stages = done["seconds"]
    return Taken(seconds, done["rows"] / (stages["total"] - stages["list"] - stages["load"]))
