"""The pictures of a report: those of their rows, as the model saw them, found wherever they are now."""

from __future__ import annotations

import base64
import io
import os
import shutil
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_samples import (
    FAILED,
    PREPROCESSING,
    page_data,
    sample_layers,
    write_images,
    write_output,
)

import layerprobe
from layerprobe.errors import UsageError
from layerprobe.reporting.originals import Originals


def thumbnail(image: dict[str, Any]) -> Image.Image:
    url, width, height = image["picture"]
    opened = Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))
    assert opened.size == (width, height)
    return opened.convert("RGB")


def test_pictures_are_those_of_their_rows_in_their_own_proportions(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out.h5", sample_layers(), write_images(tmp_path / "images"))
    layerprobe.report(output, tmp_path / "out.html", top=4)
    for image in page_data(tmp_path / "out.html")["images"]:
        if image["row"] in FAILED:
            assert "picture" not in image
            continue
        original, shown = Image.open(image["name"]), thumbnail(image)
        assert shown.size == original.size
        difference = np.asarray(original, float).mean((0, 1)) - np.asarray(shown, float).mean((0, 1))
        assert np.abs(difference).max() < 4


@pytest.mark.parametrize(("crop", "size"), [("center", (200, 200)), ("pad", (400, 400))])
def test_a_picture_shows_what_the_model_saw(tmp_path: Path, crop: str, size: tuple[int, int]) -> None:
    pixels = np.zeros((200, 400, 3), "uint8")
    pixels[:, :100], pixels[:, 100:300], pixels[:, 300:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "a.png", exif=exif)
    how = {**PREPROCESSING, "crop": crop, "background": [0, 0, 0]}
    output = write_output(
        tmp_path / "a.npz", {"x": np.ones((1, 2), "f4")}, [str(tmp_path / "a.png")], {}, how
    )
    layerprobe.report(output, tmp_path / "a.html")
    shown = thumbnail(page_data(tmp_path / "a.html")["images"][0])
    seen = np.asarray(shown, float)
    assert shown.size == size or crop == "center"
    assert shown.width == shown.height
    middle = seen[shown.height // 2, :: shown.width - 1]
    if crop == "center":
        assert (seen.mean((0, 1)) > (-1, 200, -1)).all()
        assert (seen.mean((0, 1)) < (20, 256, 20)).all(), "only the middle is left"
    else:
        np.testing.assert_allclose(middle, [(255, 0, 0), (0, 0, 255)], atol=30)
        assert seen[: shown.height // 5].max() < 30, "padding"


def test_the_most_important_pictures_come_first_and_the_size_is_kept(tmp_path: Path) -> None:
    random, paths = np.random.default_rng(2), []
    (tmp_path / "images").mkdir()
    for row in range(80):
        paths.append(str(tmp_path / "images" / f"{row}.jpg"))
        Image.fromarray(random.integers(0, 256, (150, 150, 3), "uint8")).save(paths[-1])
    values = np.zeros((80, 3), "f4")
    values[[70, 71, 72], [0, 1, 2]] = 5
    output = write_output(tmp_path / "a.h5", {"x": values + 1e-3}, paths, {})
    made = layerprobe.report(output, tmp_path / "a.html", top=1, max_size=90_000)
    assert 70_000 < made.size <= 90_000
    images = {image["row"]: image for image in page_data(tmp_path / "a.html")["images"]}
    assert 3 <= made.pictures < len(images)
    assert all("picture" in images[row] for row in (70, 71, 72))
    assert made.notes[-1] == f"{made.pictures} of {len(images)} images have a picture, for size."
    with pytest.raises(UsageError, match="and 20 KiB are allowed: give --max-size"):
        layerprobe.report(output, tmp_path / "b.html", max_size=20_480)
    assert not (tmp_path / "b.html").exists()


def test_a_file_of_the_second_in_which_the_run_began_is_not_said_to_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    originals = Originals("", "", "2026-01-02T03:04:05+00:00")
    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    changed = []
    for later in (-9.0, 0.9, 1.5):
        os.utime(path, (began + later, began + later))
        changed.append(originals.has_changed(str(path)))
    assert changed == [False, False, True]


def test_images_are_found_where_they_moved_to_and_what_is_gone_or_changed_is_said(
    tmp_path: Path, command: Any
) -> None:
    paths = write_images(tmp_path / "old", 6)
    output = write_output(tmp_path / "a.h5", {"x": np.eye(6, dtype="f4")}, paths, {})
    os.utime(paths[4], (5e9, 5e9))
    os.remove(paths[1])
    Path(paths[2]).write_bytes(b"no picture")
    ended = command("report", output, "-o", tmp_path / "a.html")
    assert ended.code == 0
    assert ended.err.splitlines()[:2] == [
        "layerprobe: 2 images cannot be read any more: --images DIR finds those that moved.",
        "layerprobe: 1 image changed since: pictures are of what is there now.",
    ]
    images = page_data(tmp_path / "a.html")["images"]
    assert images[1]["fault"] == "no such file"
    assert "picture" in images[4]
    assert images[4]["fault"] == "changed since it was computed"
    assert "text" in images[2]["fault"]
    (tmp_path / "new" / "old").mkdir(parents=True)
    for path in (paths[0], paths[3], paths[5]):
        shutil.move(path, tmp_path / "new" / "old")
    made = layerprobe.report(output, tmp_path / "b.html", images=tmp_path / "new")
    assert made.pictures == 4, "where the folder does not have one, it may still be where it was"
    found = page_data(tmp_path / "b.html")["images"]
    assert found[3]["picture"] == images[3]["picture"]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_images_in_tar_files_are_shown(tmp_path: Path, suffix: str) -> None:
    paths = write_images(tmp_path / "images", 4)
    mode = "w:gz" if suffix == "tar.gz" else "w"
    with tarfile.open(tmp_path / f"x.{suffix}", mode) as archive:
        for path in paths[:3]:
            archive.add(path, Path(path).name)
    keys = [f"{tmp_path}/x.{suffix}::{Path(path).name}" for path in paths]
    output = write_output(
        tmp_path / "a.h5", {"x": np.eye(4, dtype="f4")}, [*keys[2:], keys[0], "-::a.png"], {}
    )
    made = layerprobe.report(output, tmp_path / "a.html")
    images = page_data(tmp_path / "a.html")["images"]
    assert made.pictures == 2
    assert np.abs(np.asarray(thumbnail(images[2]), float) - np.asarray(Image.open(paths[0]))).mean() < 6
    assert [image.get("fault") for image in images] == [
        None, "no longer in the tar file", None, "came through a pipe",
    ]  # fmt: skip


def test_images_in_stores_are_shown_and_a_store_that_fails_is_no_end(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    (path,) = write_images(tmp_path / "images", 1)
    fsspec.filesystem("memory").pipe("/report/a.png", Path(path).read_bytes())
    keys = [
        "memory://report/a.png",
        "https://***@example.org/c.png",
        "nosuch://d.png",
    ]
    output = write_output(tmp_path / "a.h5", {"x": np.eye(3, dtype="f4")}, keys, {})
    assert layerprobe.report(output, tmp_path / "a.html").pictures == 1
    images = page_data(tmp_path / "a.html")["images"]
    assert thumbnail(images[0]).size == (60, 80)
    assert images[1]["fault"] == "the password in its URL is not recorded"
    assert "nosuch" in images[2]["fault"]
