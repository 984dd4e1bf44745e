"""How near layerprobe comes to the limit that the parts set: the model alone, decoding alone, the disk alone.

    python benchmarks/limits.py

Each part has the machine for itself when it is measured, and the time of one image is the sum of the three.
The model alone is OpenVINO's `benchmark_app` (`-hint throughput`) on what OpenVINO's converter makes of the
Keras model with the same two outputs, in batches of 32; decoding alone is Pillow and NumPy in a
thread per core; the disk alone is `pwrite` and `fsync` of as many bytes.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import photos
from extraction import extract
from measure import Row, alternate, arguments, report, timed
from models import converted, made
from PIL import Image
from writing import plain_write

TARGET = 0.95
BATCH, SIZE = 32, (224, 224)


def compute_alone(path: Path, seconds: int) -> float:
    """Images per second of `benchmark_app`."""
    options = ["-d", "CPU", "-hint", "throughput", "-infer_precision", "f32", "-t", seconds]
    shape = f"[{BATCH},{SIZE[0]},{SIZE[1]},3]"
    application = Path(sys.executable).with_name("benchmark_app")
    out = timed([application, "-m", path, "-shape", shape, *options])[1]
    found = re.search(r"Throughput:\s*([\d.]+) FPS", out)
    if found is None:
        raise SystemExit(f"benchmark_app named no throughput:\n{out}")
    return float(found[1])


def decode_alone(folder: Path) -> float:
    """Images per second from files to float32 arrays of the model's size."""

    def decode(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR), np.float32)

    paths = sorted(folder.iterdir())
    started = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(decode, paths):
            pass
    return len(paths) / (time.perf_counter() - started)


def measure(name: str, images: int, rounds: int, seconds: int, scratch: Path) -> Row:
    model, path, folder = made(name), converted(name), photos.folder(images)
    ours = scratch / "ours.h5"
    taken = alternate(
        rounds,
        {
            "layerprobe": lambda: extract(model, model.layers, folder, ours).rate,
            "the model alone": partial(compute_alone, path, seconds),
            "decoding alone": partial(decode_alone, folder),
            "the disk alone": lambda: images / plain_write(scratch / "plain", ours.stat().st_size),
        },
    )
    own = taken.pop("layerprobe")
    limits = [1 / sum(1 / rate for rate in rates) for rates in zip(*taken.values(), strict=True)]
    parts = ", ".join(f"{part} {statistics.median(rates):.4g}" for part, rates in taken.items())
    return Row(f"{name}, once loaded", "images/s", own, limits, f"the limit of the parts: {parts}", TARGET)


def main() -> None:
    options = arguments("limits.py", __doc__)
    names, seconds = (["MobileNetV2"], 3) if options.short else (["MobileNetV2", "ResNet50"], 10)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [measure(name, options.images, options.rounds, seconds, Path(scratch)) for name in names]
    report("limits.py", rows, options)


if __name__ == "__main__":
    main()
