"""The doctor finds the preprocessing that a model remembers, and says so only where that is clear."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from remembering_models import SIDE, Remembering, trained_on, write_pictures

import layerprobe
from layerprobe.cli import cli
from layerprobe.cli.doctor import _errors
from layerprobe.diagnosis.examination import Diagnosis
from layerprobe.errors import AllInputsFailedError, NoInputError, UsageError

SAMPLES = Path(__file__).parent.parent / "sample_models"
PRESETS = ["raw", "unit", "tf", "torch", "caffe", "127.5/255"]
ORDERED = ["bgr:raw", "bgr:unit", "bgr:tf", "bgr:torch", "rgb:caffe", "bgr:127.5/255"]

Doctor = Callable[..., Diagnosis]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 80)


@pytest.fixture
def doctor(tmp_path: Path, pictures: str) -> Doctor:
    """Asks about a model that remembers pictures prepared in one way."""

    def ask(how: str, kind: str = "plain", inputs: Any = None, **options: Any) -> Diagnosis:
        channels, scale = options.pop("channels", 3), options.pop("scale", 1.0)
        pixels = trained_on(how, channels, options.pop("resize", "bilinear"))
        model = Remembering.of(pixels, scale, first=kind == "first").write(tmp_path / "model.h5", kind)
        return layerprobe.doctor(model, inputs or [pictures], **options)

    return ask


@pytest.mark.parametrize("how", [*PRESETS, *ORDERED])
def test_the_preset_and_order_that_a_model_remembers_are_found(doctor: Doctor, how: str) -> None:
    found = doctor(how)
    assert found.presets[0].preset == how
    assert found.evidence == "statistics"
    assert found.command == f"--preprocess {how}"
    assert "`bn`" in found.preprocessing.reason
    assert (found.images, found.listed, len(found.failures)) == (64, 80, 0)


@pytest.mark.parametrize("kind", ["first", "nested", "channels_first", "bare"])
@pytest.mark.parametrize("how", ["bgr:unit", "caffe"])
def test_the_place_and_the_kind_of_the_layer_do_not_matter(doctor: Doctor, how: str, kind: str) -> None:
    found = doctor(how, kind)
    assert found.command == f"--preprocess {how}"
    assert found.layers == ("backbone/bn" if kind == "nested" else "bn",)
    assert any("frozen" in note for note in found.notes) == (kind == "bare")


@pytest.mark.parametrize("how", ["raw", "unit", "tf"])
def test_grey_models_have_no_order_of_colours_and_no_presets_for_colour(doctor: Doctor, how: str) -> None:
    found = doctor(how, channels=1)
    assert sorted(one.preset for one in found.presets) == ["127.5/255", "raw", "tf", "unit"]
    assert found.command == f"--preprocess {how}"


def test_an_order_that_grey_pictures_cannot_tell_is_named_as_a_tie(doctor: Doctor, tmp_path: Path) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for number, file in enumerate(sorted(Path(write_pictures(tmp_path / "colour", 40)).iterdir())):
        Image.open(file).convert("L").save(folder / f"{number:02}.png")
    found = doctor("unit", inputs=[str(folder)])
    assert found.command == "--preprocess unit"
    assert "--preprocess bgr:unit" in found.ties
    assert "RGB is assumed" in found.preprocessing.reason
    assert any("images are grey" in warning for warning in found.warnings)


@pytest.mark.parametrize(("resize", "wrong"), [("nearest", "bilinear"), ("bilinear", "nearest")])
def test_a_filter_that_shows_is_found(doctor: Doctor, resize: str, wrong: str) -> None:
    found = doctor("tf", resize=resize, limit=80)
    ranks = [one.preprocessing.resize for one in found.resizing]
    assert len(ranks) == len(set(ranks)) * (2 if len(ranks) > 6 else 1)
    assert ranks.index(resize) < ranks.index(wrong)
    assert found.preprocessing.resize == resize
    assert found.command == "--preprocess tf" + ("" if resize == "bilinear" else f" --resize {resize}")


def test_pictures_of_the_models_size_have_no_filter(doctor: Doctor, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "small", 20, size=(SIDE, SIDE))
    found = doctor("tf", inputs=[folder])
    assert found.resizing == ()
    assert "the images have the model's size: no filter is needed" in found.notes


def test_pictures_of_other_proportions_are_also_cut(doctor: Doctor) -> None:
    crops = {one.preprocessing.crop for one in doctor("unit").resizing}  # 60 x 48
    assert crops == {"none", "center"}


@pytest.mark.parametrize(("kind", "reason"), [("without", "no BatchNormalization"), ("layer_norm", "`even`")])
def test_without_a_layer_that_tells_there_is_no_evidence(doctor: Doctor, kind: str, reason: str) -> None:
    found = doctor("unit", kind)
    assert (found.evidence, found.presets, found.command) == ("none", (), "--preprocess raw")
    assert found.preprocessing.reason.startswith("assumed, for there is no evidence")
    assert reason in found.preprocessing.reason


def test_statistics_as_they_began_are_no_evidence(tmp_path: Path, pictures: str) -> None:
    model = Remembering.of(trained_on("unit", count=2))
    model.mean[:], model.variance[:] = 0, 1
    found = layerprobe.doctor(model.write(tmp_path / "model.h5"), [pictures])
    assert found.evidence == "none"
    assert "never trained" in found.preprocessing.reason


def test_what_the_model_says_itself_counts_more_and_a_contradiction_is_told(doctor: Doctor) -> None:
    agreed = doctor("raw", scale=1 / 255)
    assert (agreed.evidence, agreed.command, agreed.presets[0].preset) == ("model", "--preprocess raw", "raw")
    assert not any("--preprocess" in warning for warning in agreed.warnings)
    twice = doctor("unit", scale=1 / 255)
    assert (twice.evidence, twice.command) == ("model", "--preprocess raw")
    assert any("may have been trained with --preprocess unit" in warning for warning in twice.warnings)


def test_few_pictures_tell_nothing(doctor: Doctor) -> None:
    for limit, evidence in ((1, "none"), (7, "none"), (8, "statistics")):
        found = doctor("caffe", limit=limit)
        assert (found.images, found.evidence) == (limit, evidence)
        assert found.presets[0].family == "caffe"


def test_pictures_of_another_kind_tell_nothing(doctor: Doctor, tmp_path: Path) -> None:
    for number in range(30):
        dark = Image.new("RGB", (SIDE, SIDE), (number % 5, 0, number % 3))
        dark.save(tmp_path / f"{number}.png")
    found = doctor("tf", inputs=[str(tmp_path / "*.png")])
    assert found.evidence == "none"
    assert "is not what it has seen in training, whatever the preset" in found.preprocessing.reason


def test_the_sample_is_spread_over_the_list_and_always_the_same(doctor: Doctor, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "some", 30)
    Path(folder, "10015.png").write_bytes(b"not a picture")  # the middle of the eighth part of fifteen
    found, again = doctor("tf", inputs=[folder], limit=15), doctor("tf", inputs=[folder], limit=15)
    assert found == again
    assert [failure.index for failure in found.failures] == [15]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments])


@pytest.fixture
def model(tmp_path: Path) -> str:
    return Remembering.of(trained_on("bgr:unit")).write(tmp_path / "model.h5")


def test_the_command_prints_ranks_and_a_command_that_works(
    model: str, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(model, pictures)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["images", "64", "of", "80", "looked", "at,", "spread", "over", "the", "list"]
    ranks = [line.split()[0] for line in lines if line.split()[:1] and ":unit" in line.split()[0]]
    assert ranks[0] == "bgr:unit"
    advice = next(line for line in lines if line.startswith("to use it")).split("layerprobe ")[1]
    arguments = shlex.split(advice.removesuffix(" ..."))
    written = CliRunner().invoke(cli, [*arguments, "-l", "bn", f"{pictures}/10001.png", "-o", "x.npz"])
    assert written.exit_code == 0, written.output


def test_as_json_it_is_one_object(model: str, pictures: str) -> None:
    told = json.loads(run(model, pictures, "--json", "--limit", "10").stdout)
    assert told["command"] == "--preprocess bgr:unit"
    assert told["evidence"] == "statistics"
    assert told["preprocessing"]["channel_order"] == "bgr"
    assert (told["images"], told["listed"]) == (10, 80)
    assert told["presets"][0]["times"] == 1
    assert told["presets"][0]["layers"]["bn"] == pytest.approx(told["presets"][0]["divergence"])


def test_broken_pictures_are_named_and_the_exit_code_is_3(model: str, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "some", 12)
    Path(folder, "10003.png").write_bytes(b"")
    done = run(model, folder)
    assert done.exit_code == 3
    assert "image 3 failed" in done.stderr
    assert "10003.png" in done.stderr
    assert "evidence       statistics" in done.stdout


def test_what_cannot_be_looked_at_is_refused(model: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, SIDE, SIDE, 3)))
    with pytest.raises(UsageError, match="doctor looks at images"):
        layerprobe.doctor(model, [str(tmp_path / "x.npy")])
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(AllInputsFailedError, match="no image can be read, the first"):
        layerprobe.doctor(model, [str(tmp_path / "broken.png")])
    with pytest.raises(NoInputError):
        layerprobe.doctor(model, [str(tmp_path / "nothing.png")])
    with pytest.raises(UsageError, match="limit"):
        layerprobe.doctor(model, [str(tmp_path / "broken.png")], limit=0)


def test_a_model_of_several_inputs_is_compared_but_not_run_as_a_whole(pictures: str) -> None:
    found = layerprobe.doctor(str(SAMPLES / "two_inputs.keras"), [pictures])
    assert (found.evidence, found.layers) == ("model", ("norm1",))
    assert "its layers were not looked at, for the model takes more than one input" in found.notes


def test_standard_errors_without_end_are_told_briefly() -> None:
    assert [_errors(number) for number in (0.04, 8.61, 2.4e15, float("inf"))] == [
        "0.0",
        "8.6",
        ">999",
        ">999",
    ]
