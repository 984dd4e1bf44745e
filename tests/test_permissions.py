"""Files that the system does not let us read, also not as root: the program is run without that power."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="powers are dropped by prctl")

DROP, OVERRIDE, READ_SEARCH = 24, 1, 2
"""PR_CAPBSET_DROP, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: see prctl(2) and capabilities(7)."""


def without_powers() -> None:
    """Have files that nobody may read be such for the program that is run next, whoever runs it."""
    for power in (OVERRIDE, READ_SEARCH):
        ctypes.CDLL(None).prctl(DROP, power, 0, 0, 0)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "layerprobe", *map(str, words)]
    return subprocess.run(program, preexec_fn=without_powers, capture_output=True, text=True, timeout=120)


@pytest.fixture
def photos(tmp_path: Path, samples: Path) -> Path:
    """Two images of which one may not be read."""
    (tmp_path / "photos").mkdir()
    for name in ("circle_01.png", "star_09.png"):
        shutil.copy(samples / "images" / name, tmp_path / "photos")
    os.chmod(tmp_path / "photos" / "star_09.png", 0)
    return tmp_path / "photos"


def test_an_image_that_may_not_be_read_is_one_row_that_fails(
    tmp_path: Path, samples: Path, photos: Path
) -> None:
    images = sorted(photos.iterdir())
    ended = run(
        "extract", samples / "vgg_shapes.h5", "-l", "predictions", *images, "-o", tmp_path / "x.jsonl", "-q"
    )
    assert (ended.returncode, ended.stderr) == (3, "")
    first, second, _ = (tmp_path / "x.jsonl").read_text().splitlines()
    assert '"status": "ok"' in first
    assert '"error": "permission denied"' in second


@pytest.mark.parametrize("words", [["layers"], ["check"], ["extract", "-l", "x", "x.png"]])
def test_a_model_that_may_not_be_read_is_denied_by_the_system(
    tmp_path: Path, samples: Path, words: list[str]
) -> None:
    model = shutil.copy(samples / "vgg_shapes.h5", tmp_path)
    os.chmod(model, 0)
    ended = run(words[0], model, *words[1:])
    assert (ended.returncode, ended.stdout) == (77, "")
    assert ended.stderr == f"layerprobe: {model} cannot be read: permission denied.\n"


def test_an_output_that_may_not_be_read_is_denied_by_the_system(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK")
    os.chmod(tmp_path / "x.npz", 0)
    ended = run("info", tmp_path / "x.npz")
    assert ended.returncode == 77
    assert "permission denied" in ended.stderr
    assert "Usage" not in ended.stderr
