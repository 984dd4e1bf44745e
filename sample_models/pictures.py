"""Writes the sample pictures of `images/`, their labels, and the arrays for the model with two inputs.

Needs neither Keras nor TensorFlow. Run it alone, or let `train.py` run it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from drawing import CLASSES, HELD_OUT, draw
from PIL import Image

HERE = Path(__file__).resolve().parent

TWO_INPUTS_SIDE = 64
"""Pixels, of the pictures that `two_inputs.keras` takes."""

SAMPLES = {
    "circle_01.png": (HELD_OUT + 10_001, (160, 160)),
    "circle_02.jpg": (HELD_OUT + 10_002, (320, 200)),
    "cross_03.png": (HELD_OUT + 10_003, (112, 112)),
    "cross_04.jpg": (HELD_OUT + 10_004, (240, 320)),
    "ring_05.png": (HELD_OUT + 10_005, (128, 96)),
    "ring_06.jpg": (HELD_OUT + 10_006, (400, 300)),
    "square_07.png": (HELD_OUT + 10_007, (144, 144)),
    "square_08.png": (HELD_OUT + 10_008, (150, 200)),
    "star_09.png": (HELD_OUT + 10_009, (176, 132)),
    "star_10.jpg": (HELD_OUT + 10_010, (480, 480)),
    "triangle_11.png": (HELD_OUT + 10_011, (120, 170)),
    "triangle_12.jpg": (HELD_OUT + 10_012, (96, 96)),
}
"""File name, which begins with the label, to (seed, (width, height))."""


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures squashed to one size, and what is on them."""

    pixels: npt.NDArray[np.uint8]
    """(N, side, side, 3), 0 to 255, RGB."""
    labels: npt.NDArray[np.int64]
    """(N,), places in `CLASSES`."""
    boxes: npt.NDArray[np.float32]
    """(N, 4): left, top, right and bottom as fractions of the width and height."""


def draw_set(start: int, count: int, side: int) -> PictureSet:
    """Draw `count` pictures, seeds from `start`, squashed to `side` pixels with Pillow's bilinear filter."""
    pixels, labels, boxes = zip(*(_draw_one(seed, side) for seed in range(start, start + count)), strict=True)
    return PictureSet(np.stack(pixels), np.array(labels), np.array(boxes, np.float32))


def _draw_one(seed: int, side: int) -> tuple[npt.NDArray[np.uint8], int, list[float]]:
    picture = draw(seed)
    small = picture.image.resize((side, side), Image.Resampling.BILINEAR)
    fractions = [edge / length for edge, length in zip(picture.box, picture.image.size * 2, strict=True)]
    return np.asarray(small), CLASSES.index(picture.label), fractions


def write_pictures(folder: Path = HERE) -> None:
    """Write `images/` with its `labels.csv` and `labels.txt`, and `two_inputs_*.npy`, into `folder`."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str | int, ...]] = []
    small = []
    for name, (seed, size) in SAMPLES.items():
        picture = draw(seed, size, label=name.split("_")[0])
        picture.image.save(images / name, quality=92)
        rows.append((name, picture.label, *picture.box, *size))
        small.append(picture.image.resize((TWO_INPUTS_SIDE, TWO_INPUTS_SIDE), Image.Resampling.BILINEAR))
    _write_csv(images / "labels.csv", rows)
    (images / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    np.save(folder / "two_inputs_images.npy", np.stack([np.asarray(image) for image in small]))
    np.save(folder / "two_inputs_query.npy", _queries([str(row[1]) for row in rows]))


def _write_csv(path: Path, rows: Iterable[tuple[str | int, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "label", "left", "top", "right", "bottom", "width", "height"))
        writer.writerows(rows)


def _queries(labels: list[str]) -> npt.NDArray[np.float32]:
    """(N, classes) one-hot: rows 0, 2, 4, ... ask for the shape shown, the others for the next class."""
    asked = [(CLASSES.index(label) + row % 2) % len(CLASSES) for row, label in enumerate(labels)]
    return np.eye(len(CLASSES), dtype=np.float32)[asked]


if __name__ == "__main__":
    write_pictures()
