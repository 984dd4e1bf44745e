"""Time grows with the images and with the bytes, and with nothing else.

    python benchmarks/scaling.py

MobileNetV2 on half of the photos, on them twice and four times over: the second half of the longest run must
be as fast per image as the second half of the middle one. Then ten layers instead of the last of them: what
that costs is held against writing the additional bytes.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import photos
from extraction import command
from measure import Row, alternate, arguments, report, timed
from models import made
from writing import PLAIN, plain_write

TEN = [f"block_{number}_add" for number in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)]
"""Of MobileNetV2, in order: the last needs all others."""


def linear(images: int, rounds: int, scratch: Path) -> Row:
    model, folder, output = made("MobileNetV2"), photos.folder(images), scratch / "out.h5"

    def run(times: int) -> float:
        return timed(command(model, model.layers, [folder] * times, output))[0]

    taken = alternate(rounds, {f"{times * images} images": partial(run, times) for times in (1, 2, 4)})
    once, twice, four = taken.values()
    early = [images / (second - first) for first, second in zip(once, twice, strict=True)]
    late = [2 * images / (second - first) for first, second in zip(twice, four, strict=True)]
    claim = f"MobileNetV2, images {2 * images + 1} to {4 * images}"
    return Row(claim, "images/s", late, early, f"images {images + 1} to {2 * images}", 0.95)


def ten_layers(images: int, rounds: int, scratch: Path) -> Row:
    model, folder = made("MobileNetV2"), photos.folder(images)

    def run(layers: list[str], output: Path) -> float:
        return timed(command(model, layers, [folder], output))[0]

    one, ten = scratch / "one.h5", scratch / "ten.h5"
    taken = alternate(
        rounds,
        {
            "one layer": partial(run, TEN[-1:], one),
            "ten layers": partial(run, TEN, ten),
            "plain": lambda: plain_write(scratch / "plain", os.path.getsize(ten) - os.path.getsize(one)),
        },
    )
    more = [many - single for single, many in zip(taken["one layer"], taken["ten layers"], strict=True)]
    megabytes = (ten.stat().st_size - one.stat().st_size) / 1e6
    claim = f"ten layers of MobileNetV2 instead of one, what the additional {megabytes:.0f} MB take"
    return Row(claim, "s", more, taken["plain"], PLAIN)


def main() -> None:
    options = arguments("scaling.py", __doc__)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            linear(options.images // 2, options.rounds, Path(scratch)),
            ten_layers(options.images, options.rounds, Path(scratch)),
        ]
    report("scaling.py", rows, options)


if __name__ == "__main__":
    main()
