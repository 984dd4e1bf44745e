"""Makes `report.png`: a report on pictures that no sample model has seen, as Chromium shows it.

Run `python docs/images/make_report.py`; it needs `chromium` and Pillow, and about ten seconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "sample_models"), str(ROOT / "tests")]

from chromium import chromium, find_chromium  # noqa: E402
from drawing import HELD_OUT, draw  # noqa: E402
from PIL import Image  # noqa: E402

import layerprobe  # noqa: E402

PICTURES = 400
SIZE = (1240, 760)


def main() -> None:
    """Draw pictures, extract, report, and keep what is to be seen of the last convolution."""
    program = find_chromium()
    if program is None:
        sys.exit("there is no chromium")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "pictures").mkdir()
        for number in range(PICTURES):
            draw(HELD_OUT + number).image.save(folder / "pictures" / f"{number:03d}.png")
        model = ROOT / "sample_models" / "vgg_shapes.h5"
        output = folder / "shapes.h5"
        layers = ["conv4_3", "conv5_3", "predictions"]
        layerprobe.extract(model, [folder / "pictures"], layers, output)
        labels = ROOT / "sample_models" / "images" / "labels.txt"
        layerprobe.report(output, folder / "shapes.html", labels=labels)
        with chromium(program, folder / "profile") as browser:
            browser.resize(*SIZE)
            browser.open(folder / "shapes.html", "#layer=1")
            browser.settle()
            browser.screenshot(folder / "shot.png")
        with Image.open(folder / "shot.png") as shot:
            shot.convert("RGB").save(HERE / "report.png", optimize=True)


if __name__ == "__main__":
    main()
