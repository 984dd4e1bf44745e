"""A million rows: how long what a run does with all of them takes, and that memory does not grow with them.

    python benchmarks/million.py

A small model, whose rows are tiny, so that what is measured is what a row costs beside decoding and
computing. Every time is that of a whole process, from its start to its end, once. Some rows of the whole run
are held against NumPy, and a run that is interrupted against one that is not. Memory is the peak (VmHWM) of a
run of 20,000 rows, held against one of 1,000; with `--processes` that of the process that lists and keeps the
journal. The short form has 20,000 rows instead of a million, fewer shards, and a few of the formats.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from measure import CACHE, Row, arguments, layerprobe, peak_memory, report, timed
from PIL import Image

ROWS, SHORT_ROWS = 1_000_000, 20_000
FEW, MANY = 1_000, 20_000
SIDE, CHANNELS = 8, 16
OPTIONS = ("-l", "conv", "--pool", "gap", "--quiet")
AT_MOST = 10.0
"""Seconds for listing, planning, resuming, and looking at what is there."""
WHOLE_AT_MOST = 180.0
"""Seconds for a whole run."""
GROWTH = 1.05
"""What the memory of many rows may be of that of few."""
LINKS = 30_000
"""Names that one file may have; ext4 allows 65,000."""
SHARDS = 8

FORMATS = ("m.npz", "m.h5", "m", "m.safetensors", "m.parquet", "m.jsonl", "m.tar")

UNTIL_FIRST_ROW = """
import sys
import layerprobe
from layerprobe.errors import StoppedError

model, inputs, output = sys.argv[1:]
try:
    layerprobe.extract(model, [inputs], ["conv"], output, pool="gap", resume=True, stop=lambda: True)
except StoppedError:
    pass
"""

UNTIL_MOST_ARE_DONE = """
import sys
import layerprobe
from layerprobe.errors import StoppedError

model, inputs, output = sys.argv[1:]
seen = [0]
def progress(done, rows, failed):
    seen[0] = done / rows
try:
    enough = lambda: seen[0] >= 0.99
    layerprobe.extract(model, [inputs], ["conv"], output, pool="gap", progress=progress, stop=enough)
except StoppedError:
    pass
"""


def model_file(path: Path) -> Path:
    """A convolution with 16 channels over images of 8 x 8, in the layout of Keras 2."""
    start = {"name": "image", "batch_input_shape": [None, SIDE, SIDE, 3], "dtype": "float32"}
    conv = {
        "name": "conv",
        "filters": CHANNELS,
        "kernel_size": [3, 3],
        "padding": "same",
        "activation": "relu",
    }
    layers = [
        {"class_name": "InputLayer", "config": start},
        {"class_name": "Conv2D", "config": conv},
    ]
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.11.0", "tensorflow"
        config = {"class_name": "Sequential", "config": {"name": "tiny", "layers": layers}}
        file.attrs["model_config"] = json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"image", b"conv"]
        weights.create_group("image").attrs["weight_names"] = np.array([], "S1")
        group = weights.create_group("conv")
        group.attrs["weight_names"] = [b"conv/kernel:0", b"conv/bias:0"]
        group["conv/kernel:0"] = random.normal(0, 0.1, (3, 3, 3, CHANNELS)).astype("float32")
        group["conv/bias:0"] = np.zeros(CHANNELS, "float32")
    return path


def array_file(path: Path, rows: int) -> Path:
    """Rows of noise."""
    found = np.lib.format.open_memmap(path, "w+", "uint8", (rows, SIDE, SIDE, 3))
    random = np.random.default_rng(1)
    for start in range(0, rows, 100_000):
        found[start : start + 100_000] = random.integers(0, 256, found[start : start + 100_000].shape)
    return path


def names(folder: Path, rows: int) -> Iterator[Path]:
    """Paths of images, as they are in a large data set."""
    return (folder / f"image_{row:07}.png" for row in range(rows))


def image_folder(folder: Path, rows: int, broken: int = 0) -> Path:
    """A folder with that many names of a few small images; of every `broken`, one is no image."""
    folder.mkdir()
    random = np.random.default_rng(2)
    one = folder.parent / "one.png"
    for row, name in enumerate(names(folder, rows)):
        if not row % LINKS:
            one.unlink(missing_ok=True)
            Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), "uint8")).save(one)
        if broken and not row % broken:
            name.write_bytes(b"no image")
        else:
            os.link(one, name)
    return folder


def list_file(path: Path, folder: Path, rows: int) -> Path:
    """The same names as a list."""
    path.write_text("".join(f"{name}\n" for name in names(folder, rows)))
    return path


def fields_file(path: Path, folder: Path, rows: int) -> Path:
    """The same as JSON lines, with something said of each."""
    lines = (
        {"path": str(name), "label": row % 1000, "split": "train"}
        for row, name in enumerate(names(folder, rows))
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def seconds(command: list[Any]) -> float:
    print(" ", *[str(word)[:60] for word in command[1:]], file=sys.stderr, flush=True)
    return timed(command)[0]


def planning(rows: int, scratch: Path) -> Iterator[Row]:
    """What lists rows, and says what would be done with them."""
    extract = layerprobe("extract", model_file(scratch / "tiny.h5"))
    plan = [*OPTIONS, "-o", scratch / "out.h5", "--dry-run"]
    folder = image_folder(scratch / "images", rows)
    listed = list_file(scratch / "list.txt", folder, rows)
    ways = {
        f"planning {rows:,} rows of an array": [array_file(scratch / "x.npy", rows)],
        f"listing and planning {rows:,} images of a list": ["--from-file", listed],
        f"listing and planning a folder of {rows:,} images": [folder],
    }
    for claim, inputs in ways.items():
        yield Row(claim, "s", [seconds([*extract, *inputs, *plan])], at_most=AT_MOST)


def running(rows: int, scratch: Path) -> Iterator[Row]:
    """A whole run, another that is interrupted, and what looks at an output afterwards."""
    model, array = model_file(scratch / "tiny.h5"), array_file(scratch / "x.npy", rows)
    extract = layerprobe("extract", model, array, *OPTIONS)
    whole, output = scratch / "whole.h5", scratch / "out.h5"
    once = partial(Row, unit="s")
    claim = f"{rows:,} rows of an array, pooled, the whole program"
    yield once(claim, ours=[seconds([*extract, "-o", whole])], at_most=WHOLE_AT_MOST)
    check_rows(model, array, whole)

    print("  99 % of the rows", file=sys.stderr, flush=True)
    timed([sys.executable, "-c", UNTIL_MOST_ARE_DONE, model, array, output])
    taken = timed([sys.executable, "-c", UNTIL_FIRST_ROW, model, array, output])[0]
    yield once(f"resuming at 99 % of {rows:,} rows, to the first new one", ours=[taken], at_most=AT_MOST)
    resumed = [*extract, "-o", output, "--resume"]
    yield once(f"resuming at 99 % of {rows:,} rows, to the end", ours=[seconds(resumed)])
    check_equal(whole, output)
    yield once(f"resuming {rows:,} rows of which all are done", ours=[seconds(resumed)], at_most=AT_MOST)
    for command in ("info", "stats", "verify"):
        taken = seconds(layerprobe(command, output))
        yield once(f"`{command}` of {rows:,} rows", ours=[taken], at_most=AT_MOST)


def merging(rows: int, scratch: Path) -> Iterator[Row]:
    """Shards, and what joins them."""
    shards = SHARDS if rows == ROWS else 2
    extract = layerprobe("extract", model_file(scratch / "tiny.h5"), array_file(scratch / "x.npy", rows))
    parts = [scratch / f"part{number}.h5" for number in range(1, shards + 1)]
    for number, part in enumerate(parts, 1):
        seconds([*extract, *OPTIONS, "-o", part, "--shard", f"{number}/{shards}"])
    merge = layerprobe("merge", scratch / "merged.h5", *parts, "--quiet")
    yield Row(f"`merge` of {rows:,} rows in {shards} shards", "s", [seconds(merge)])


def check_rows(model: Path, array: Path, output: Path) -> None:
    """Hold some rows of an output against NumPy; ends all if they differ."""
    images = np.load(array, mmap_mode="r")
    some = np.random.default_rng(3).integers(0, len(images), 200)
    with h5py.File(model) as weights:
        kernel, bias = (weights[f"model_weights/conv/conv/{name}:0"][()] for name in ("kernel", "bias"))
    padded = np.pad(images[some].astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    expected = np.maximum(np.einsum("nhwcij,ijck->nhwk", windows, kernel) + bias, 0).mean((1, 2))
    with h5py.File(output) as found:
        rows = found["conv"][:][some]
        paths = found["paths"][:][some].tolist()
    named = [f"{array}[{row}]".encode() for row in some]
    if paths != named or not np.allclose(rows, expected, rtol=1e-5, atol=1e-5):
        raise SystemExit(f"{output} does not hold what the model computes")


def check_equal(first: Path, second: Path) -> None:
    """End all unless two outputs hold the same values and texts."""
    with h5py.File(first) as one, h5py.File(second) as other:
        for name in ("conv", "paths", "status", "error"):
            if not np.array_equal(one[name][:], other[name][:]):
                raise SystemExit(
                    f"{name!r} of a run that was interrupted differs from that of one that was not"
                )


def peaks(rows: int, scratch: Path) -> Iterator[Row]:
    """What memory a run takes at most."""
    model = model_file(scratch / "tiny.h5")
    is_short = rows < ROWS
    few, many = (FEW // 5, MANY // 10) if is_short else (FEW, MANY)
    for count in (few, many):
        image_folder(scratch / f"good{count}", count)
        image_folder(scratch / f"broken{count}", count, broken=10)
        fields_file(scratch / f"fields{count}.jsonl", scratch / f"good{count}", count)

    def held(kind: str, output: str, more: tuple[str, ...], rows: int) -> float:
        where = scratch / "out"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        source = (
            ["--from-file", scratch / f"{kind}{rows}.jsonl"]
            if kind == "fields"
            else [scratch / f"{kind}{rows}"]
        )
        command = layerprobe(
            "extract", model, *source, "-l", "conv", "--pool", "gap", "-o", where / output, "-q", *more
        )
        return peak_memory(command, codes=(0, 3))

    ways = [(name, "good", name, ()) for name in FORMATS]
    ways += [
        ("--processes 2", "good", "m.h5", ("--processes", "2")),
        ("--stats", "good", "m.h5", ("--stats",)),
        ("every tenth row fails", "broken", "m.h5", ()),
        ("a list of JSON lines with fields", "fields", "m.h5", ()),
    ]
    for what, kind, output, more in ways[1::8] if is_short else ways:
        print(f"  memory: {what}", file=sys.stderr, flush=True)
        of_few, of_many = (held(kind, output, more, count) for count in (few, many))
        claim = f"peak memory, {many:,} images, {what}"
        yield Row(claim, "MiB", [of_many], [of_few], f"{few:,} images", at_most=GROWTH * of_few)


def main() -> None:
    options = arguments("million.py", __doc__)
    options.rounds, options.images = None, SHORT_ROWS if options.short else ROWS
    CACHE.mkdir(parents=True, exist_ok=True)
    found: list[Row] = []
    for part in (planning, running, merging, peaks):
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            found += part(options.images, Path(scratch))
    report("million.py", found, options)


if __name__ == "__main__":
    main()
