"""`layerprobe cam`: pictures, their numbers, what is said, and how it ends."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from layerprobe import cam, extract
from layerprobe.errors import UsageError

FOLDER = Path(__file__).parent.parent / "sample_models"
VGG, IMAGES, LABELS = FOLDER / "vgg_shapes.h5", FOLDER / "images", FOLDER / "images" / "labels.txt"
STAR, RING = IMAGES / "star_09.png", IMAGES / "ring_06.jpg"


def opened(path: Path | str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_image_gives_a_picture_and_its_numbers(command: Any) -> None:
    ended = command("cam", VGG, STAR, "--labels", LABELS, "--top", "2")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines()[-1] == "layerprobe: 1 image -> star_09.cam.png"
    assert sorted(path.name for path in Path().iterdir()) == ["star_09.cam.npz", "star_09.cam.png"]
    with cam(str(VGG), [str(STAR)], top=2) as maps:
        (expected,) = maps
    with np.load("star_09.cam.npz") as found:
        assert found["names"].tolist() == [["star", "cross"]]
        assert found["classes"].tolist() == [[4, 1]]
        assert found["paths"].tolist() == [str(STAR)]
        assert found["sizes"].tolist() == [list(expected.image.size)]
        for number, one in enumerate(expected.maps):
            np.testing.assert_array_equal(found["maps"][0, number], one.values)
            np.testing.assert_array_equal(found["on_image"][number], one.on_image)
            assert found["scores"][0, number] == pytest.approx(one.score)
            assert found["probabilities"][0, number] == pytest.approx(one.probability)
            assert tuple(found["peaks"][0, number]) == one.peak
        about = json.loads(str(found["provenance"]))
    assert (about["layer"], about["method"], about["output"]) == ("conv5_3", "cam", "pre:predictions")
    assert len(about["model"]["sha256"]) == 64
    assert opened("star_09.cam.png").width > 3 * 400


def test_the_picture_shows_the_image_and_covers_the_peak(command: Any) -> None:
    command("cam", VGG, RING, "-o", "x.png")
    with np.load("x.npz") as found:
        x, y = found["peaks"][0, 0] / found["sizes"][0]
    picture = np.asarray(opened("x.png"), float)
    original = np.asarray(opened(RING).resize((420, 420 * 200 // 267)), float)
    height = original.shape[0]
    rows = slice(92, 92 + height)
    assert abs(picture[rows, 16:436] - original)[20:-20, 20:-20].mean() < 30
    overlay = picture[rows, 452:872].mean(2)
    across, down = int(x * 420), int(y * height)
    around = overlay[max(down - 3, 0) : down + 4, max(across - 3, 0) : across + 4].mean()
    assert around > np.quantile(overlay, 0.9)


def test_several_images_give_a_sheet_or_a_folder(command: Any) -> None:
    assert command("cam", VGG, IMAGES, "-q").err == ""
    with np.load("cam.npz") as found:
        assert found["maps"].shape == (12, 1, 7, 7)
        assert "on_image" not in found
    assert command("cam", VGG, IMAGES, "-o", "maps", "-q").code == 0
    names = sorted(path.name for path in Path("maps").iterdir())
    assert names == sorted(f"{path.stem}{end}" for path in IMAGES.glob("*.*g") for end in (".npz", ".png"))
    with np.load("maps/star_09.npz") as found:
        assert found["on_image"].shape == (1, *opened(STAR).size[::-1])


def test_equal_names_of_different_folders_are_kept_apart(command: Any) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "x.png").write_bytes(STAR.read_bytes())
    assert command("cam", VGG, "a", "b", "-o", "maps", "-q").code == 0
    assert sorted(path.name for path in Path("maps").iterdir()) == ["x.npz", "x.png", "x~2.npz", "x~2.png"]


def test_broken_images_are_skipped_with_the_reason_and_exit_code_3(command: Any) -> None:
    Path("photos").mkdir()
    Path("photos/good.png").write_bytes(STAR.read_bytes())
    Path("photos/cut\x1b.png").write_bytes(STAR.read_bytes()[:500])
    ended = command("cam", VGG, "photos", "--json")
    assert ended.code == 3
    assert "layerprobe: skipped photos/cut\\x1b.png: truncated PNG" in ended.err
    told = json.loads(ended.out)
    assert [image["path"] for image in told["images"]] == ["photos/good.png"]
    assert told["failed"][0]["path"] == "photos/cut\x1b.png"
    assert opened("cam.png").width > 400


def test_where_every_image_is_broken_nothing_is_written(command: Any) -> None:
    Path("a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    ended = command("cam", VGG, "a.png", "-o", "x.png")
    assert ended.code == 70
    assert "layerprobe: no image could be used: 'a.png'" in ended.err
    assert [path.name for path in Path().iterdir()] == ["a.png"]


def test_json_has_classes_scores_and_peaks(command: Any) -> None:
    ended = command("cam", VGG, STAR, "--json", "-q", "--class", "star", "--class", "0", "--labels", LABELS)
    told = json.loads(ended.out)
    (image,) = told["images"]
    assert [(one["class"], one["name"]) for one in image["maps"]] == [(4, "star"), (0, "circle")]
    assert image["maps"][0]["probability"] > 0.99
    assert image["size"] == list(opened(STAR).size)
    left, top = image["maps"][0]["peak"]
    assert (112 - 3 < left < 112 + 3, 46 - 3 < top < 46 + 3) == (True, True)
    assert ended.err == ""


def test_a_class_that_nothing_speaks_for_is_seen_nowhere(command: Any) -> None:
    ended = command("cam", FOLDER / "nested_shapes.keras", STAR, "--labels", LABELS, "--class", "circle")
    assert ended.err.startswith(f"layerprobe: {STAR}: circle nowhere\n")


def test_stored_activations_give_the_same_picture(command: Any) -> None:
    extract(str(VGG), [str(IMAGES)], ["conv5_3"], "all.h5")
    assert command("cam", VGG, STAR, "-o", "model.png", "-q").code == 0
    assert command("cam", "all.h5", "--row", "8", "-o", "output.png", "-q").code == 0
    one, other = (np.asarray(opened(f"{name}.png"), int) for name in ("model", "output"))
    assert abs(one - other).max() <= 2


def test_images_that_are_gone_are_skipped(command: Any) -> None:
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(STAR.read_bytes())
    extract(str(VGG), ["a.png", "b.png"], ["conv5_3"], "out.npz")
    Path("a.png").unlink()
    ended = command("cam", "out.npz")
    assert ended.code == 3
    assert "skipped a.png: no such file" in ended.err


def test_tar_streams_are_read_once(command: Any) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(STAR, "in/star.png")
    ended = command("cam", VGG, "-", "-o", "maps", "--json", stdin=packed.getvalue())
    assert ended.code == 0, ended.err
    assert [image["path"] for image in json.loads(ended.out)["images"]] == ["-::in/star.png"]
    assert sorted(path.name for path in Path("maps").iterdir()) == ["star.npz", "star.png"]
    assert command("cam", VGG, "-", "-o", "x.png", stdin=packed.getvalue()).code == 2


def test_a_stream_without_images_is_said_to_be_one(command: Any) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(LABELS, "notes.md")
    ended = command("cam", VGG, "-", "-o", "maps", stdin=packed.getvalue())
    assert ended.code == 66
    assert ended.err.splitlines()[-1].startswith("layerprobe: no images came: expected some")


def test_a_compressed_tar_is_read_for_an_input_that_is_named(command: Any) -> None:
    with tarfile.open("photos.tgz", "w:gz") as archive:
        archive.add(STAR, "star.png")
    ended = command("cam", VGG, "--input", "image=photos.tgz", "-o", "maps")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in Path("maps").iterdir()) == ["star.npz", "star.png"]


def test_scores_that_are_no_numbers_are_null_in_json(command: Any) -> None:
    with h5py.File(shutil.copy(VGG, "m.h5"), "r+") as file:
        file["model_weights/predictions"].visititems(
            lambda _, found: (
                found.write_direct(np.full(found.shape, np.nan, found.dtype))
                if isinstance(found, h5py.Dataset)
                else None
            )
        )
    ended = command("cam", "m.h5", STAR, "--json")
    told = json.loads(ended.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (one,) = told["images"][0]["maps"]
    assert (one["score"], one["probability"]) == (None, None)


def test_arrays_are_drawn_as_images(command: Any) -> None:
    pixels = np.asarray(opened(STAR).resize((112, 112)))
    np.save("x.npy", np.stack([pixels, pixels]))
    ended = command("cam", VGG, "x.npy", "--json")
    assert [image["path"] for image in json.loads(ended.out)["images"]] == ["x.npy[0]", "x.npy[1]"]
    assert json.loads(ended.out)["images"][0]["size"] == [112, 112]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--class", "star", "--top", "2"], 2, "--class names the classes"),
        (["--class", "star"], 2, "--labels"),
        (["--class", "99"], 2, "0 to 5"),
        (["--top", "0"], 2, "0 is not in the range"),
        (["-o", "x.jpg"], 2, "written as PNG"),
        (["-o", "gone/x.png"], 73, "no folder"),
        (["-l", "conv9"], 2, "closest"),
        (["-l", "conv4_1", "--method", "cam"], 2, "CAM is not exact for 'conv4_1': "),
        (["-l", "predictions"], 2, "class activation maps are over images"),
        (["--labels", "gone.txt"], 66, "cannot be read"),
        (["--labels", "three.txt"], 2, "name 3 classes, but the model has 6"),
        (["--row", "0"], 2, "rows are for outputs"),
        (["--engine", "graph", "--method", "gradcam"], 2, "gradients are Keras's"),
        (["--input", "image=a.png"], 2, "every input of the model with --input"),
        (["--output-layer", "conv4_3", "--method", "cam"], 2, "CAM is not exact"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    command: Any, arguments: list[str], code: int, said: str
) -> None:
    Path("three.txt").write_text("a\nb\nc\n")
    ended = command("cam", VGG, STAR, *arguments)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert ended.err.splitlines()[-1].startswith("layerprobe: ")
    assert [path.name for path in Path().iterdir()] == ["three.txt"]


def test_nothing_is_replaced_unless_that_is_asked_for(command: Any) -> None:
    Path("x.npz").write_text("mine")
    ended = command("cam", VGG, STAR, "-o", "x.png")
    assert (ended.code, Path("x.npz").read_text()) == (73, "mine")
    assert not Path("x.png").exists()
    assert command("cam", VGG, STAR, "-o", "x.png", "--overwrite").code == 0
    extract(str(VGG), [str(STAR)], ["conv5_3"], "star.npz")
    before = Path("star.npz").read_bytes()
    ended = command("cam", "star.npz", "-o", "star.png", "--overwrite")
    assert ended.code == 73
    assert Path("star.npz").read_bytes() == before, "the numbers would have replaced the activations"
    Path("photo.png").write_bytes(STAR.read_bytes())
    assert command("cam", VGG, "photo.png", "-o", "photo.png", "--overwrite").code == 73
    assert command("cam", VGG, STAR, "photo.png", "-o", ".", "--overwrite").code == 73
    assert Path("photo.png").read_bytes() == STAR.read_bytes()


def test_a_file_that_is_no_output_asks_for_images(command: Any) -> None:
    ended = command("cam", VGG)
    assert ended.code == 65
    assert "give images too" in ended.err


def test_help_and_stored_activations_import_no_framework(tmp_path: Path) -> None:
    extract(str(VGG), [str(STAR)], ["conv5_3"], tmp_path / "out.npz")
    heavy = {"tensorflow", "keras", "jax", "openvino"}
    for arguments, banned in (
        (["cam", "--help"], heavy | {"numpy", "PIL", "h5py", "rich"}),
        (["cam", "out.npz", "-o", "x.png"], heavy),
        (["cam", str(VGG), str(STAR), "-o", "y.png"], heavy - {"openvino"}),
    ):
        code = (
            "import sys\nfrom layerprobe.cli import main\n"
            f"sys.argv = ['layerprobe', *{arguments!r}]\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert end.code in (None, 0), end.code\n"
            "sys.stderr.write('\\n' + ' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
        )
        run = [sys.executable, "-c", code]
        done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=True)
        assert not set(done.stderr.splitlines()[-1].split()) & banned, arguments


def test_what_has_no_meaning_is_refused_before_anything_is_made(command: Any) -> None:
    extract(str(VGG), [str(STAR)], ["conv5_3"], "kept.npz")
    for arguments, sentence in (
        (("kept.npz", "--crop", "center"), "--crop says how a model is run: with an output, leave it out."),
        ((VGG, STAR, "-o", "-"), "pictures do not go to standard output"),
        ((VGG, STAR, "--row", "1"), "rows are for outputs"),
        ((VGG, STAR, "--model", VGG), "another model is for outputs"),
    ):
        ended = command("cam", *arguments)
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
        assert sentence in ended.err
    assert [path.name for path in Path().iterdir()] == ["kept.npz"]


def test_class_maps_are_no_output_of_extract_and_that_is_said(command: Any) -> None:
    command("cam", VGG, STAR, "-o", "x.png")
    ended = command("info", "x.npz")
    assert (ended.code, ended.out) == (65, "")
    assert "'x.npz' holds class maps, which `layerprobe cam` wrote" in ended.err


@pytest.mark.parametrize("classes", [4, "star"])
def test_one_class_is_not_taken_for_a_list(classes: Any) -> None:
    with pytest.raises(UsageError, match="classes must be a list"):
        cam(str(VGG), [str(STAR)], classes=classes)


def test_the_pictures_in_the_readme_are_what_its_commands_draw(command: Any) -> None:
    Path("sample_models").symlink_to(FOLDER)
    readme = (FOLDER.parent / "README.md").read_text()
    lines = [
        shlex.split(line) for line in re.findall(r"^\$ layerprobe ((?:cam|show) .*)$", readme, re.MULTILINE)
    ]
    drawn = [line[line.index("-o") + 1] for line in lines]
    shown = re.findall(r"\]\(docs/images/(.*?)\)", readme)
    assert set(shown) - set(drawn) == {"report.png"}, "which docs/images/make_report.py makes"
    for line, name in zip(lines, drawn, strict=True):
        assert command(*line).code == 0
        new, kept = opened(name), opened(FOLDER.parent / "docs" / "images" / name)
        assert new.size == kept.size
        apart = np.abs(np.asarray(new, int) - np.asarray(kept, int)).max(-1)
        assert np.mean(apart > 2) < 0.01, "letters may lie a pixel beside where they were"
