"""Makes `report.png`: the page that the README's commands give, as Chromium shows it.

Run `python docs/images/make_report.py` in an environment with layerprobe; it needs `chromium`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "tests"))

from chromium import chromium, find_chromium  # noqa: E402
from PIL import Image  # noqa: E402

COMMANDS = re.compile(r"^\$ (layerprobe .*\bseen\.h5\b.*)$", re.MULTILINE)
"""The lines of the README that lead to the page."""
SIZE = (1240, 760)


def main() -> None:
    """Run the commands, and keep what is to be seen of the last convolution."""
    program = find_chromium()
    if program is None:
        sys.exit("there is no chromium")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "sample_models").symlink_to(ROOT / "sample_models")
        for line in COMMANDS.findall((ROOT / "README.md").read_text()):
            subprocess.run(["bash", "-c", line], cwd=folder, check=True)
        with chromium(program, folder / "profile") as browser:
            browser.resize(*SIZE)
            browser.open(folder / "seen.html", "#layer=1")
            browser.settle()
            browser.screenshot(folder / "shot.png")
        with Image.open(folder / "shot.png") as shot:
            shot.convert("RGB").save(HERE / "report.png", optimize=True)


if __name__ == "__main__":
    main()
