"""Peak memory of `layerprobe extract` does not depend on the number of images.

    python benchmarks/memory.py

Runs the command on 100 and on 5,000 pictures, for each format, three times each, and prints the median of the
peak resident memory and the ratio of the two.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

MODEL = Path(__file__).parent.parent / "sample_models" / "vgg_shapes.h5"
COUNTS = (100, 5000)
FORMATS = {"npz": "out.npz", "hdf5": "out.h5", "npy": "out"}
ROUNDS = 3


def make_pictures(folder: Path, count: int) -> None:
    """Write `count` different JPEG pictures of 160x120."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 120)).save(folder / f"{number:05}.jpg")


def peak_memory(pictures: Path, count: int, output: Path) -> float:
    """MiB that one run of the command holds at its peak."""
    command = [sys.executable, "-m", "layerprobe", "extract", MODEL, "-l", "conv5_3", "-l", "predictions"]
    command += [pictures, "--limit", str(count), "--quiet", "--overwrite", "-o", output]
    running = subprocess.Popen(list(map(str, command)))
    _, status, usage = os.wait4(running.pid, 0)
    if status:
        raise SystemExit(f"the run failed: {status}")
    return usage.ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        pictures.mkdir()
        make_pictures(pictures, max(COUNTS))
        print(f"{'format':8}" + "".join(f"{count:>8} images" for count in COUNTS) + "    ratio")
        for name, output in FORMATS.items():
            peaks = [
                statistics.median(peak_memory(pictures, count, Path(folder, output)) for _ in range(ROUNDS))
                for count in COUNTS
            ]
            print(
                f"{name:8}" + "".join(f"{peak:>11.0f} MiB" for peak in peaks) + f"{peaks[1] / peaks[0]:>9.3f}"
            )


if __name__ == "__main__":
    main()
