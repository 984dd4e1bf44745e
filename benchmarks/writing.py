"""How fast the maps of a convolution go to disk, against plain `pwrite` and `fsync` of as many bytes.

    python benchmarks/writing.py

First what writes, alone, per format: maps of 14x14x512, as VGG16's conv5_3 has them, in batches of 32. Then a
whole run that computes little and writes much: VGG16's first convolution, 12.8 MB an image.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import photos
from extraction import extract
from measure import Row, alternate, arguments, report
from models import made

from layerprobe import registry
from layerprobe.records import Provenance, TensorSpec

MAP = (14, 14, 512)
ROWS_PER_IMAGE = 4
"""So that the default of 512 images makes 820 MB."""
BATCH = 32
TARGET = 0.8
TARGETS = {"parquet": None, "zarr": None}
"""Those that compress: what they are fast at is not writing."""
OUTPUTS = {
    "npz": "out.npz",
    "hdf5": "out.h5",
    "npy": "out",
    "safetensors": "out.safetensors",
    "parquet": "out.parquet",
    "zarr": "out.zarr",
}
PIECE = 2**23
"""Bytes that plain writing hands over at a time."""
PLAIN = "plain `pwrite` and `fsync`"


def plain_write(path: Path, size: int) -> float:
    """Seconds to bring `size` bytes to disk as a new file."""
    data = memoryview(np.random.default_rng(0).bytes(PIECE))
    started = time.perf_counter()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        for start in range(0, size, PIECE):
            os.pwrite(descriptor, data[: size - start], start)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def written(name: str, scratch: Path, rows: int) -> float:
    """Seconds in which a writer brings `rows` maps to disk, from its start to the named file."""
    block = np.random.default_rng(0).random((BATCH, *MAP), np.float32)
    path = scratch / OUTPUTS[name]
    keys = [f"{row:06}.jpg" for row in range(rows)]
    provenance = Provenance({}, [], {}, None, {}, {}, {}, "")
    make = registry.find(registry.WRITERS, name, "format")  # imports, which are not what is measured
    started = time.perf_counter()
    writer = make(str(path), (TensorSpec("conv5_3", MAP, "float32"),), keys)
    for start in range(0, rows, BATCH):
        writer.write(start, {"conv5_3": block[: rows - start]})
    writer.commit({}, provenance)
    seconds = time.perf_counter() - started
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return seconds


def writers(images: int, rounds: int, scratch: Path) -> list[Row]:
    rows = images * ROWS_PER_IMAGE
    size = rows * int(np.prod(MAP)) * 4
    ways = {name: partial(written, name, scratch, rows) for name in OUTPUTS}
    taken = alternate(rounds, {**ways, "plain": partial(plain_write, scratch / "plain", size)})
    rates = {name: [size / 1e6 / seconds for seconds in runs] for name, runs in taken.items()}
    claim = "maps of conv5_3 to disk, {}"
    return [
        Row(claim.format(name), "MB/s", rates[name], rates["plain"], PLAIN, TARGETS.get(name, TARGET))
        for name in OUTPUTS
    ]


def whole_run(images: int, rounds: int, scratch: Path) -> Row:
    model, folder, output = made("VGG16"), photos.folder(images), scratch / "maps.h5"
    size = images * 224 * 224 * 64 * 4

    def run() -> float:
        return size / 1e6 / (images / extract(model, ["block1_conv1"], folder, output).rate)

    plain = partial(plain_write, scratch / "plain", size)
    taken = alternate(rounds, {"a run": run, "plain": lambda: size / 1e6 / plain()})
    claim = "a run that writes VGG16's first convolution, HDF5"
    return Row(claim, "MB/s", taken["a run"], taken["plain"], PLAIN, TARGET)


def main() -> None:
    options = arguments("writing.py", __doc__)
    with tempfile.TemporaryDirectory() as scratch:
        rows = writers(options.images, options.rounds, Path(scratch))
        if not options.short:  # VGG16 alone takes longer to make than the short form should
            rows.append(whole_run(options.images // 4, options.rounds, Path(scratch)))
    report("writing.py", rows, options)


if __name__ == "__main__":
    main()
