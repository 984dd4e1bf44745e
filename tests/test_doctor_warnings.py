"""What the doctor finds wrong: each has its sentence, and nothing is said where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from remembering_models import SIDE, Remembering, picture, trained_on, write_pictures

import layerprobe

Changed = Callable[[Remembering], None]
Warnings = Callable[..., tuple[str, ...]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture
def warnings(tmp_path: Path, pictures: str) -> Warnings:
    """What is said of a model, changed in one place."""

    def ask(change: Changed | None = None, folder: str | None = None, how: str = "unit") -> tuple[str, ...]:
        model = Remembering.of(trained_on(how))
        if change is not None:
            change(model)
        return layerprobe.doctor(model.write(tmp_path / "model.h5"), [folder or pictures]).warnings

    return ask


def only(warnings: tuple[str, ...]) -> str:
    assert len(warnings) == 1, warnings
    return warnings[0]


def test_nothing_is_said_where_nothing_is_wrong(warnings: Warnings) -> None:
    assert warnings() == ()


def test_pictures_of_one_colour(warnings: Warnings, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for number in range(10):
        Image.new("RGB", (30, 30), (200, 25 * number, 90)).save(folder / f"{number}.png")
    assert "10 of 10 images are of one colour: look at the files" in warnings(folder=str(folder))


def test_pictures_that_are_all_the_same(warnings: Warnings, tmp_path: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    for number in range(10):
        picture(1).save(folder / f"{number}.png")
    assert "all 10 images are the same: look at the files" in warnings(folder=str(folder))


def test_pictures_much_smaller_than_the_model_takes(warnings: Warnings, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "small", 10, size=(11, 9))
    told = next(text for text in warnings(folder=folder) if "smaller" in text)
    assert told.startswith(
        f"10 of 10 images are much smaller than the model's {SIDE} x {SIDE} pixels (11 x 9 in the middle)"
    )
    assert not any(
        "smaller" in text for text in warnings(folder=write_pictures(tmp_path / "b", 10, size=(12, 9)))
    )


def test_grey_pictures_for_a_model_of_colour(warnings: Warnings, tmp_path: Path) -> None:
    folder = Path(write_pictures(tmp_path / "grey", 10))
    for file in sorted(folder.iterdir())[:6]:
        Image.open(file).convert("L").save(file)
    told = "6 of 10 images are grey, and the model takes colour"
    assert any(text.startswith(told) for text in warnings(folder=str(folder)))
    Image.open(file).convert("RGB").save(file)  # that alone gives it no colour
    assert any(text.startswith(told) for text in warnings(folder=str(folder)))
    picture(3).save(file)
    assert not any("grey" in text for text in warnings(folder=str(folder)))


def test_mostly_broken_files(warnings: Warnings, tmp_path: Path) -> None:
    folder = Path(write_pictures(tmp_path / "broken", 10))
    for file in sorted(folder.iterdir())[:6]:
        file.write_bytes(b"")
    assert "6 of 10 images are broken: are these the files that you mean?" in warnings(folder=str(folder))
    picture(1).save(file)
    assert not any("broken" in text for text in warnings(folder=str(folder)))


def test_what_is_far_outside_of_what_was_remembered(warnings: Warnings) -> None:
    def brighter(model: Remembering) -> None:
        model.mean -= 5 * np.sqrt(model.variance)

    told = next(text for text in warnings(brighter) if "standard deviations away" in text)
    assert told.startswith("what arrives at `bn` with --preprocess raw is ")


def test_a_layer_that_gives_nothing(warnings: Warnings) -> None:
    def dead(model: Remembering) -> None:
        model.beta[:] = -1e6

    told = next(text for text in warnings(dead) if "nothing but 0" in text)
    assert told.startswith("`relu`, `pool` gave nothing but 0 on all 24 images, with --preprocess unit")


def test_weights_that_are_not_finite_and_what_they_make_of_images(warnings: Warnings) -> None:
    def broken(model: Remembering) -> None:
        model.dense[0, 0] = np.nan
        model.bias[1] = np.inf

    told = warnings(broken)
    assert told[0].startswith(
        "weights are NaN or infinite: `predictions` (kernel), `predictions` (bias): training has failed"
    )
    assert told[1].startswith("`predictions` gave NaN or infinite values on 24 of 24 images")
    assert len(told) == 2


@pytest.mark.slow
def test_statistics_that_are_not_finite_are_no_evidence(warnings: Warnings) -> None:
    def broken(model: Remembering) -> None:
        model.variance[2] = np.nan

    told = warnings(broken)
    assert told[0].startswith("weights are NaN or infinite: `bn` (moving_variance)")
    assert told[1].startswith("`bn`, `relu`, ")
    assert "gave NaN or infinite values on 24 of 24 images" in told[1]


def test_a_softmax_that_is_flat(warnings: Warnings) -> None:
    def flat(model: Remembering) -> None:
        model.dense[:] = 0

    told = only(warnings(flat))
    assert told.startswith(
        "`predictions` gave about 1/4 for every class on all 24 images, with --preprocess unit"
    )


def test_a_softmax_that_is_the_same_on_every_picture(warnings: Warnings) -> None:
    def same(model: Remembering) -> None:
        model.dense[:] = 0
        model.bias[:] = [0, 3, 0, 0]

    told = only(warnings(same))
    assert told.startswith(
        "`predictions` gave the same on all 24 images, with --preprocess unit: class 1 with 0.87"
    )
