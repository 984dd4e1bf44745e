"""Images per second from JPEG files to an HDF5 file of a convolution's map and the softmax, against Keras.

    python benchmarks/throughput.py

Each side is a program of its own. "Once loaded" leaves out what it does before the first photo: imports, the
model, the compilation. The values of the one-image loop, which has the very same pixels, are compared with
layerprobe's.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import photos
from extraction import Taken, extract
from measure import HERE, Row, alternate, arguments, has_bfloat16, report, timed
from models import Model, made

TARGETS = {"MobileNetV2": {"rate": 2.2, "program": 4}, "ResNet50": {"rate": 1.6, "program": 2}}
LOOP = 10
"""The least ratio to the one-image loop."""
BFLOAT16 = 3
"""The least ratio of bfloat16 to `predict`."""
IN_BFLOAT16 = "layerprobe, bfloat16"
LOOPED = 24
"""So many photos are enough for the loop's rate."""
PREDICT = "Keras `predict` over `image_dataset_from_directory`"


def with_keras(way: str, model: Model, folder: Path, output: Path) -> Taken:
    seconds, out = timed([sys.executable, HERE / "with_keras.py", way, model.name, folder, output])
    return Taken(seconds, float(out))


def check(model: Model, ours: Path, theirs: Path) -> None:
    """End the benchmark if the sides did not compute the same."""
    with h5py.File(ours) as found, h5py.File(theirs) as expected:
        for name in model.layers:
            wanted = expected[name][:]
            error = np.abs(found[name][: len(wanted)] - wanted).max() / np.abs(wanted).max()
            print(f"  {model.name} {name}: relative difference to Keras {error:.1e}", file=sys.stderr)
            if not error < 1e-4:
                raise SystemExit(f"{model.name}, {name}: layerprobe and Keras differ by {error:.1e}")


def measure(model: Model, images: int, rounds: int, scratch: Path) -> list[Row]:
    folder, few = photos.folder(images), photos.folder(LOOPED)
    ours, looped = scratch / "ours.h5", scratch / "loop.h5"
    sides = {
        "layerprobe": partial(extract, model, model.layers, folder, ours),
        "Keras predict": partial(with_keras, "folder", model, folder, scratch / "theirs.h5"),
        "Keras loop": partial(with_keras, "loop", model, few, looped),
    }
    if has_bfloat16():
        coarse = scratch / "bfloat16.h5"
        sides[IN_BFLOAT16] = partial(extract, model, model.layers, folder, coarse, "--precision", "bfloat16")
    taken = alternate(rounds, sides)
    check(model, ours, looped)
    rates = {name: [one.rate for one in runs] for name, runs in taken.items()}
    programs = {name: [one.seconds for one in runs] for name, runs in taken.items()}
    target, name, unit = TARGETS[model.name], model.name, "images/s"
    own, keras = rates["layerprobe"], rates["Keras predict"]
    rows = [
        Row(f"{name}, once loaded", unit, own, keras, PREDICT, target["rate"]),
        Row(f"{name}, once loaded", unit, own, rates["Keras loop"], "Keras, one image at a time", LOOP),
        Row(
            f"{name}, the whole program on {images} photos", "s",
            programs["layerprobe"], programs["Keras predict"], PREDICT, target["program"],
        ),
    ]  # fmt: skip
    if IN_BFLOAT16 in rates:
        claim = f"{name}, once loaded, bfloat16"
        rows.append(Row(claim, unit, rates[IN_BFLOAT16], keras, PREDICT, BFLOAT16))
    return rows


def main() -> None:
    options = arguments("throughput.py", __doc__)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in ["MobileNetV2"] if options.short else TARGETS:
            rows += measure(made(name), options.images, options.rounds, Path(scratch))
    report("throughput.py", rows, options)


if __name__ == "__main__":
    main()
