"""What `--fast-decode` gains on photos of 12 megapixels, and how much it changes the pixels.

    python benchmarks/fast_decode.py

The layer that is extracted is the model's input, unnormalised, so that decoding and resizing to 224x224 is
nearly all there is to do, and the outputs are the pixels that are compared. The more bytes a photo has, the
less is gained: they are all read either way. These have 2.6 MB on average, as those of phones do.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import photos
from extraction import extract
from measure import Row, alternate, arguments, report
from models import made

INPUT = "#0"


def pixels(path: Path) -> np.ndarray:
    """(N, 224, 224, 3) float32, 0 to 255."""
    with h5py.File(path) as file:
        (layer,) = (name for name in file if file[name].ndim == 4)
        return file[layer][:]


def main() -> None:
    options = arguments("fast_decode.py", __doc__)
    model, folder = made("MobileNetV2"), photos.folder(options.images // 16, photos.LARGE)
    with tempfile.TemporaryDirectory() as scratch:
        outputs = {"exact": Path(scratch, "exact.h5"), "fast": Path(scratch, "fast.h5")}
        run = partial(extract, model, [INPUT], folder)
        raw = ("--preprocess", "raw")
        taken = alternate(
            options.rounds,
            {
                "fast": lambda: run(outputs["fast"], *raw, "--fast-decode").rate,
                "exact": lambda: run(outputs["exact"], *raw).rate,
            },
        )
        difference = np.abs(pixels(outputs["fast"]) - pixels(outputs["exact"]))
    claim = "12-megapixel photos decoded with `--fast-decode`"
    rows = [
        Row(claim, "images/s", taken["fast"], taken["exact"], "decoded in full"),
        Row(f"{claim}, change of a pixel on average", "of 255", [float(difference.mean())]),
        Row(f"{claim}, largest change of a pixel", "of 255", [float(difference.max())]),
    ]
    report("fast_decode.py", rows, options)


if __name__ == "__main__":
    main()
