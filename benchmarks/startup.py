"""How long one image takes, from the start of the process to the file on disk.

    python benchmarks/startup.py

Each time a new process, and nothing of an earlier run is used (layerprobe keeps nothing); the operating
system has the model's file in memory, for both sides.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import photos
from extraction import command
from measure import HERE, Row, alternate, arguments, layerprobe, report, timed
from models import Model, made

TARGETS = {"MobileNetV2": 0.8, "ResNet50": 1.2, "VGG16": 2.0}
"""Seconds."""


def with_layerprobe(model: Model, image: Path, folder: Path) -> float:
    return timed(command(model, model.layers, [image], folder / "ours.npz"))[0]


def with_keras(model: Model, image: Path, folder: Path) -> float:
    program = [sys.executable, HERE / "with_keras.py", "one"]
    return timed([*program, model.name, image, folder / "theirs.npz"])[0]


def main() -> None:
    options = arguments("startup.py", __doc__)
    names = ["MobileNetV2"] if options.short else list(TARGETS)
    image = min(photos.folder(options.images).iterdir())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            given = (made(name), image, Path(folder))
            ways = {"layerprobe": partial(with_layerprobe, *given), "Keras": partial(with_keras, *given)}
            taken = alternate(options.rounds, ways)
            claim = f"{name}, one image, start of the process to the file on disk"
            against = "Keras: `load_model`, `predict`, `np.savez`"
            rows.append(Row(claim, "s", taken["layerprobe"], taken["Keras"], against, at_most=TARGETS[name]))
    helped = alternate(options.rounds, {"--help": lambda: timed(layerprobe("--help"))[0]})
    rows.append(Row("`layerprobe --help`", "s", helped["--help"], at_most=0.15))
    report("startup.py", rows, options)


if __name__ == "__main__":
    main()
