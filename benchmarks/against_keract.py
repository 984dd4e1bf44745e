"""Images per second against keract, which needs Keras 2 and so runs on TensorFlow 2.15.

    python benchmarks/against_keract.py

keract has an environment of its own, which is made when it is not there (Python 3.11, 1.7 GB). Photos,
weights and layers are the same, and so must the values be.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import photos
from extraction import Taken, extract
from measure import CACHE, HERE, Row, alternate, arguments, report, timed
from models import Model, made
from throughput import check

PACKAGES = ("tensorflow==2.15.*", "keract==4.5.*", "pillow")
KERACT = "keract on TensorFlow 2.15"


def environment_with_keract() -> Path:
    """The Python of the environment."""
    place = CACHE / "keract"
    if not (place / "ready").exists():
        python = shutil.which("python3.11")
        if python is None:
            raise SystemExit("TensorFlow 2.15 needs Python 3.11: put python3.11 on the PATH.")
        subprocess.run([python, "-m", "venv", "--clear", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
        (place / "ready").touch()
    return place / "bin" / "python"


def with_keract(python: Path, model: Model, folder: Path, output: Path) -> Taken:
    architecture = f"{model.module}.{model.name}"
    program = [python, HERE / "with_keract.py", architecture, model.path, folder, output]
    seconds, out = timed([*program, *model.layers])
    return Taken(seconds, float(out.splitlines()[-1]))


def main() -> None:
    options = arguments("against_keract.py", __doc__)
    python, model, folder = environment_with_keract(), made("MobileNetV2"), photos.folder(options.images)
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = Path(scratch, "ours.h5"), Path(scratch, "theirs.h5")
        taken = alternate(
            options.rounds,
            {
                "layerprobe": partial(extract, model, model.layers, folder, ours),
                "keract": partial(with_keract, python, model, folder, theirs),
            },
        )
        check(model, ours, theirs)
    rates, seconds = (
        {name: [getattr(one, what) for one in runs] for name, runs in taken.items()}
        for what in ("rate", "seconds")
    )
    whole = f"{model.name}, the whole program on {options.images} photos"
    rows = [
        Row(f"{model.name}, once loaded", "images/s", rates["layerprobe"], rates["keract"], KERACT),
        Row(whole, "s", seconds["layerprobe"], seconds["keract"], KERACT),
    ]
    report("against_keract.py", rows, options)


if __name__ == "__main__":
    main()
