"""What compressing costs a run, and how long the end of one takes that only has to copy.

    python benchmarks/compressing.py [--rows 800]

Maps of 14x14x512 after a ReLU, made of noise, and a vector of 512 beside them, in batches of 8. What is told
is processor time: compressing is nothing else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from layerprobe.formats.codecs import METHODS
from layerprobe.formats.compressed_hdf5 import CompressedHDF5Writer
from layerprobe.formats.hdf5 import HDF5Writer
from layerprobe.records import Provenance, TensorSpec

LAYERS = [TensorSpec("maps", (14, 14, 512), "float32"), TensorSpec("vector", (512,), "float32")]
BATCH = 8
PROVENANCE = Provenance({}, [], {"rows": 0}, None, {}, {}, {}, "")


def measured(path: Path, compress: str | None, batch: dict[str, np.ndarray], rows: int) -> str:
    keys = [""] * rows
    if compress is None:
        writer = HDF5Writer(str(path), LAYERS, keys)
    else:
        writer = CompressedHDF5Writer(str(path), LAYERS, keys, compress=compress, batch_size=BATCH)
    started = time.process_time()
    for start in range(0, rows, BATCH):
        writer.write(start, batch)
    writer.sync()
    written = time.process_time()
    writer.commit({}, PROVENANCE)
    ended = time.process_time()
    size = sum(array.nbytes for array in batch.values()) // BATCH * rows
    return (
        f"{compress or 'not'}: {size / 1e6 / (written - started):.0f} MB a second of one processor, then "
        f"{ended - written:.2f} s to commit {size / 1e6:.0f} MB; ratio {size / os.path.getsize(path):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=800)
    rows = parser.parse_args().rows
    noise = np.random.default_rng(0)
    batch = {
        "maps": np.maximum(noise.standard_normal((BATCH, 14, 14, 512)).astype("f4"), 0),
        "vector": noise.standard_normal((BATCH, 512)).astype("f4"),
    }
    for compress in (None, *METHODS):
        with tempfile.TemporaryDirectory() as folder:
            print(measured(Path(folder) / "out.h5", compress, batch, rows), flush=True)


if __name__ == "__main__":
    main()
