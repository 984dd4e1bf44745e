"""Outputs for the tests of reports, with images, and the data that a page holds."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from output_samples import PROVENANCE, WAYS
from PIL import Image

import layerprobe
from layerprobe import registry
from layerprobe.records import TensorSpec

ROWS = 20
FAILED = {3: "truncated JPEG", 11: "<b>no such</b> file"}
GOOD = [row for row in range(ROWS) if row not in FAILED]
PREPROCESSING = {
    "size": [32, 32], "channels": 3, "resize": "bilinear", "crop": "none", "exif": True,
    "background": [255, 255, 255], "preset": "tf", "scale": 127.5, "mean": [1.0], "std": [],
    "channel_order": "rgb", "fast_decode": False, "reason": "asked for",
}  # fmt: skip
FIRST = {"first"}
"""Layers whose channels come first."""
EVIL_LAYER = "\"><img src=x onerror='window.hacked=1'>\u2028</script>"
EVIL_NAMES = [
    '<img src=x onerror="window.hacked=1">.png',
    'it\'s a "quote" & &lt;b&gt;.png',
    "\u202egnp.exe\u200f.png",
    "line\u2028paragraph\u2029end\n.png",
    "bytes \udcff\udc80.png",
    "</script><script>window.hacked=1</script><!--.png",
    "שלום.png",
]
LABELS = ["cat", "</script><script>window.hacked=1</script>", "cow", "hen"]


def sample_layers(rows: int = ROWS) -> dict[str, Any]:
    """Layers of every kind; `relu` has a dead channel, `maps` NaN and infinity, `ties` equal rows."""
    random = np.random.default_rng(5)
    draw = lambda *shape: random.normal(size=(rows, *shape)).astype("float32")  # noqa: E731
    relu = np.maximum(draw(8, 8, 6) * 3, 0)
    relu[..., 2] = 0
    maps = draw(6, 5, 4)
    maps[0, 0, 0, 0], maps[1, 2, 2, 1] = np.nan, np.inf
    scores = np.exp(2 * draw(4))
    return {
        "relu": relu,
        "maps": maps,
        "first": draw(3, 4, 4),
        "large": np.abs(draw(64, 48, 2)),
        "steps": draw(10, 3),
        "vector": draw(7).astype("float16"),
        "ties": np.repeat(draw(3)[: rows // 5], 5, 0),
        "number": draw(),
        "count": random.integers(-9, 9, (rows, 2)),
        "volume": draw(2, 3, 3, 2),
        "predictions": scores / scores.sum(1, keepdims=True),
    }


def write_images(folder: Path, rows: int = ROWS) -> list[str]:
    """Pictures that can be told apart by their colour, of different proportions."""
    folder.mkdir(exist_ok=True)
    random, paths = np.random.default_rng(1), []
    for row in range(rows):
        height, width = (60, 80) if row % 2 else (80, 60)
        colour = random.integers(0, 256, 3)
        pixels = np.clip(colour + random.normal(0, 4, (height, width, 3)), 0, 255).astype("uint8")
        paths.append(str(folder / f"{row:02d}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def write_output(
    path: Path,
    layers: Mapping[str, Any],
    paths: Sequence[str],
    failed: Mapping[int, str] = FAILED,
    preprocessing: Mapping[str, Any] | None = PREPROCESSING,
    fields: Sequence[str] | None = None,
    way: str = "",
) -> Path:
    """Write an output as `extract` does, in one of `WAYS`; failed rows hold NaN, or 0."""
    way = way or registry.SUFFIXES.get(path.suffix, "npy")
    specs = [TensorSpec(name, array.shape[1:], str(array.dtype)) for name, array in layers.items()]
    records = [
        {
            "name": spec.name, "layer": spec.name, "class_name": "Conv2D", "shape": list(spec.shape),
            "channel_axis": 0 if spec.name in FIRST else -1, "dtype": spec.dtype,
        }
        for spec in specs
    ]  # fmt: skip
    values = {name: array.copy() for name, array in layers.items()}
    for name, array in values.items():
        array[list(failed)] = np.nan if layers[name].dtype.kind == "f" else 0
    writer = WAYS[way](str(path), specs, list(paths))
    try:
        writer.write(0, values)
        writer.commit(
            failed,
            dataclasses.replace(
                PROVENANCE,
                layers=records,
                preprocessing=preprocessing,
                engine={"name": "graph", "device": "CPU", "precision": "float32", "batch_size": 8},
                started="2096-01-01T00:00:00+00:00",
            ),
            fields,
        )
    finally:
        writer.abort()
    return path


def page_data(page: Path) -> dict[str, Any]:
    """What a page holds."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert text is not None
    found: dict[str, Any] = json.loads(text[1])
    return found


def page_maps(maps: Mapping[str, Any]) -> Any:
    """(n, K, h, w) uint8."""
    packed = zlib.decompress(base64.b64decode(maps["packed"]))
    return np.frombuffer(packed, np.uint8).reshape(-1, maps["top"], maps["height"], maps["width"])


LAYERS = sample_layers()


def make_report(folder: Path) -> tuple[Path, Path]:
    """An output and the report about it."""
    output = write_output(folder / "out.h5", LAYERS, write_images(folder / "images"))
    made = layerprobe.report(output, folder / "out.html", top=4)
    assert (made.rows, made.failed, made.layers, made.pictures) == (ROWS, 2, len(LAYERS), ROWS - 2)
    assert made.size == (folder / "out.html").stat().st_size
    return output, folder / "out.html"


def make_page(folder: Path) -> Path:
    """A report in which names of files, layers and classes try to be more than names."""
    names = write_images(folder / "images")
    for number, evil in enumerate(EVIL_NAMES):
        path = folder / "images" / evil
        path.parent.mkdir(exist_ok=True, parents=True)
        Path(names[5 + number]).rename(path)
        names[5 + number] = str(path)
    layers = sample_layers()
    kept = {
        "relu": layers["relu"], "maps": layers["maps"], EVIL_LAYER: layers["vector"],
        "steps": layers["steps"], "predictions": layers["predictions"],
    }  # fmt: skip
    (folder / "labels.txt").write_text("\n".join(LABELS))
    output = write_output(folder / "<b>out.h5", kept, names)
    page = folder / "out.html"
    layerprobe.report(output, page, top=4, labels=folder / "labels.txt")
    return page
