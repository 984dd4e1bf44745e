"""Peak memory of `layerprobe extract`: it does not depend on the number of images.

    python benchmarks/memory.py

The command runs on 100 photos, and on the same ones many times over, for each format; and with MobileNetV2.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import photos
from extraction import command
from measure import ROOT, Row, alternate, arguments, layerprobe, peak_memory, report
from models import made

MODEL = ROOT / "sample_models" / "vgg_shapes.h5"
FEW, MANY = 100, 2500
FORMATS = {
    "npz": "out.npz",
    "hdf5": "out.h5",
    "npy": "out",
    "safetensors": "out.safetensors",
    "parquet": "out.parquet",
    "zarr": "out.zarr",
}
MOBILENET = 400 / 1.048576
"""MiB in 400 MB."""


def flat(name: str, many: int, rounds: int, scratch: Path) -> Row:
    folder, output = photos.folder(FEW), scratch / FORMATS[name]
    layers = ["-l", "conv5_3", "-l", "predictions", "-o", output, "--overwrite", "--quiet"]

    def run(images: int) -> float:
        return peak_memory(layerprobe("extract", MODEL, *[folder] * (images // FEW), *layers))

    taken = alternate(rounds, {f"{images} images, {name}": partial(run, images) for images in (many, FEW)})
    of_many, of_few = taken.values()
    return Row(f"peak memory, {name}, {many} images", "MiB", of_many, of_few, f"{FEW} images")


def mobilenet(images: int, rounds: int, scratch: Path) -> Row:
    model = made("MobileNetV2")
    line = command(model, model.layers, [photos.folder(images)], scratch / "mobilenet.h5")
    taken = alternate(rounds, {"MobileNetV2": lambda: peak_memory(line)})
    claim = f"peak memory, MobileNetV2, {images} photos"
    return Row(claim, "MiB", taken["MobileNetV2"], at_most=MOBILENET)


def main() -> None:
    options = arguments("memory.py", __doc__)
    many = 3 * FEW if options.short else MANY
    with tempfile.TemporaryDirectory() as scratch:
        rows = [flat(name, many, options.rounds, Path(scratch)) for name in FORMATS]
        rows.append(mobilenet(options.images, options.rounds, Path(scratch)))
    report("memory.py", rows, options)


if __name__ == "__main__":
    main()
