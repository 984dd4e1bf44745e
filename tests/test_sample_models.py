"""The sample pictures are what their labels say, and the sample models are as good as their README says."""

from __future__ import annotations

import csv
import json
import math
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "sample_models"
sys.path.append(str(FOLDER))

import drawing  # noqa: E402
import pictures  # noqa: E402

UNSEEN = (
    drawing.HELD_OUT + 100_000
)  # neither trained on nor among the pictures that the README's numbers are for


def rows_of_labels() -> list[dict[str, str]]:
    with (FOLDER / "images" / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def changed_pixels(seed: int, picture: drawing.Picture) -> np.ndarray:
    """Where the picture differs from the same one without its shape."""
    without = np.asarray(drawing.draw_without_shape(seed, picture.image.size))
    return (np.asarray(picture.image) != without).any(axis=-1)


@pytest.mark.parametrize("seed", [0, 7, UNSEEN])
def test_a_picture_follows_from_its_seed(seed: int) -> None:
    first, second = drawing.draw(seed), drawing.draw(seed)
    assert (first.label, first.box) == (second.label, second.box)
    np.testing.assert_array_equal(np.asarray(first.image), np.asarray(second.image))


def test_another_seed_gives_another_picture() -> None:
    first, second = (np.asarray(drawing.draw(seed, (64, 64), "star").image, int) for seed in (1, 2))
    assert abs(first - second).mean() > 20


@pytest.mark.parametrize("seed", range(UNSEEN, UNSEEN + 40))
def test_the_box_holds_the_shape_and_nothing_else(seed: int) -> None:
    picture = drawing.draw(seed)
    down, across = changed_pixels(seed, picture).nonzero()
    left, top, right, bottom = picture.box
    assert left <= across.min() <= left + 1
    assert top <= down.min() <= top + 1
    assert right - 1 <= across.max() + 1 <= right
    assert bottom - 1 <= down.max() + 1 <= bottom


@pytest.mark.parametrize(
    ("label", "share"),
    [("circle", math.pi / 4), ("ring", math.pi / 4 * (1 - 0.55**2))],
)
def test_round_shapes_cover_the_share_of_their_box_that_geometry_says(label: str, share: float) -> None:
    picture = drawing.draw(3, (400, 300), label)
    left, top, right, bottom = picture.box
    assert changed_pixels(3, picture).sum() / ((right - left) * (bottom - top)) == pytest.approx(
        share, abs=0.03
    )


def test_shapes_stand_out_from_what_is_around_them() -> None:
    for seed in range(UNSEEN, UNSEEN + 40):
        picture = drawing.draw(seed)
        without = np.asarray(drawing.draw_without_shape(seed, picture.image.size), float)
        shape = changed_pixels(seed, picture)
        distance = np.asarray(picture.image, float)[shape].mean(axis=0) - without[shape].mean(axis=0)
        assert np.linalg.norm(distance) > 60


def test_pictures_by_chance_are_of_every_class_and_half_of_them_not_square() -> None:
    drawn = [drawing.draw(seed) for seed in range(UNSEEN, UNSEEN + 300)]
    counts = [sum(picture.label == label for picture in drawn) for label in drawing.CLASSES]
    assert min(counts) > 25
    assert sum(counts) == 300
    assert 100 < sum(picture.image.width != picture.image.height for picture in drawn) < 200


def test_the_table_of_sample_pictures_is_true() -> None:
    rows = rows_of_labels()
    assert sorted(row["file"] for row in rows) == sorted(
        path.name for path in (FOLDER / "images").iterdir() if path.suffix in (".png", ".jpg")
    )
    assert {row["label"] for row in rows} == set(drawing.CLASSES)
    for row in rows:
        seed, size = pictures.SAMPLES[row["file"]]
        box = tuple(int(row[edge]) for edge in ("left", "top", "right", "bottom"))
        with Image.open(FOLDER / "images" / row["file"]) as image:
            assert image.size == (int(row["width"]), int(row["height"])) == size
            assert image.mode == "RGB"
            stored = np.asarray(image, float)
        drawn = drawing.draw(seed, size, row["label"])
        assert box == drawn.box
        assert abs(stored - np.asarray(drawn.image, float)).mean() < (1 if row["file"].endswith("png") else 9)
        assert row["file"].startswith(row["label"])


def test_the_class_names_are_in_the_order_of_the_outputs() -> None:
    assert (FOLDER / "images" / "labels.txt").read_text(encoding="utf-8").split() == list(drawing.CLASSES)


def test_the_arrays_for_two_inputs_are_the_sample_pictures_in_order() -> None:
    images, query = np.load(FOLDER / "two_inputs_images.npy"), np.load(FOLDER / "two_inputs_query.npy")
    rows = rows_of_labels()
    assert images.shape == (len(rows), 64, 64, 3)
    for i, row in enumerate(rows):
        with Image.open(FOLDER / "images" / row["file"]) as image:
            small = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR), float)
        assert abs(images[i] - small).mean() < 3
        shown = drawing.CLASSES.index(row["label"])
        assert query[i].tolist() == [float(k == (shown + i % 2) % 6) for k in range(6)]


def test_no_file_is_larger_than_a_megabyte() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.rglob("*") if path.suffix != ".pyc"}
    assert len(sizes) > 20
    assert max(sizes.values()) < 1_000_000


def load(name: str, **options: Any) -> Any:
    import keras

    return keras.models.load_model(FOLDER / name, compile=False, **options)


@pytest.fixture(scope="module")
def unseen_112() -> pictures.PictureSet:
    return pictures.draw_set(UNSEEN, 200, 112)


@pytest.fixture(scope="module")
def unseen_64() -> pictures.PictureSet:
    return pictures.draw_set(UNSEEN, 200, 64)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    assert probabilities.shape == (len(labels), 6)
    return float((probabilities.argmax(axis=1) == labels).mean())


@pytest.mark.slow
def test_both_vgg_files_are_right_and_agree(unseen_112: pictures.PictureSet) -> None:
    found = [
        load(name).predict(unseen_112.pixels, verbose=0) for name in ("vgg_shapes.keras", "vgg_shapes.h5")
    ]
    assert accuracy(found[0], unseen_112.labels) >= 0.97
    assert accuracy(found[1], unseen_112.labels) >= 0.97
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.slow
def test_keras_2_itself_reads_the_keras_2_file(unseen_112: pictures.PictureSet) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    old = tf_keras.models.load_model(FOLDER / "vgg_shapes.h5", compile=False)
    expected = load("vgg_shapes.keras").predict(unseen_112.pixels[:32], verbose=0)
    np.testing.assert_allclose(old.predict(unseen_112.pixels[:32], verbose=0), expected, atol=1e-5)


def test_the_keras_2_file_is_written_as_keras_2_wrote() -> None:
    import h5py

    with h5py.File(FOLDER / "vgg_shapes.h5") as file:
        text = file.attrs["model_config"]
        assert "optimizer_weights" not in file
        assert file.attrs["keras_version"].startswith("2.")
    config = json.loads(text)
    assert config["class_name"] == "Functional"
    assert config["config"]["layers"][0]["config"]["batch_input_shape"] == [None, 112, 112, 3]
    assert '"module"' not in text
    assert '"registered_name"' not in text


@pytest.mark.slow
def test_the_vgg_model_has_the_convolutions_and_names_of_vgg16() -> None:
    import keras

    original = [layer.name for layer in keras.applications.VGG16(weights=None).layers if "conv" in layer.name]
    model = load("vgg_shapes.keras")
    own = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [name.replace("conv", "block").replace("_", "_conv") for name in own] == original
    assert model.get_layer("conv5_3").output.shape == (None, 7, 7, 64)
    assert [layer.name for layer in model.layers[-2:]] == ["global_average_pooling", "predictions"]


@pytest.mark.slow
def test_the_class_activation_map_of_the_vgg_model_peaks_in_the_box(unseen_112: pictures.PictureSet) -> None:
    import keras

    model = load("vgg_shapes.keras")
    maps = keras.Model(model.input, model.get_layer("conv5_3").output).predict(unseen_112.pixels, verbose=0)
    weights = model.get_layer("predictions").kernel.numpy()[:, unseen_112.labels]
    peaks = []
    for scores in np.einsum("nhwc,cn->nhw", maps, weights).astype(np.float32):
        enlarged = Image.fromarray(scores).resize((112, 112), Image.Resampling.BILINEAR)
        peaks.append(np.unravel_index(np.asarray(enlarged).argmax(), (112, 112)))
    down, across = (np.array(peaks).T + 0.5) / 112
    left, top, right, bottom = unseen_112.boxes.T
    inside = (left <= across) & (across <= right) & (top <= down) & (down <= bottom)
    assert inside.mean() >= 0.97


@pytest.mark.slow
def test_the_nested_model_has_its_backbone_as_one_layer_and_is_right(unseen_64: pictures.PictureSet) -> None:
    import keras

    model = load("nested_shapes.keras")
    backbone = model.get_layer("backbone")
    assert isinstance(backbone, keras.Model)
    assert any(isinstance(layer, keras.layers.BatchNormalization) for layer in backbone.layers)
    assert accuracy(model.predict(unseen_64.pixels, verbose=0), unseen_64.labels) >= 0.95


@pytest.mark.slow
def test_the_subclassed_model_loads_with_its_code_and_is_right(unseen_64: pictures.PictureSet) -> None:
    from subclassed_shapes import ShapeClassifier

    model = load("subclassed_shapes.keras", custom_objects={"ShapeClassifier": ShapeClassifier})
    assert accuracy(model.predict(unseen_64.pixels, verbose=0), unseen_64.labels) >= 0.95


@pytest.mark.slow
def test_the_model_with_two_inputs_answers_what_it_is_asked(unseen_64: pictures.PictureSet) -> None:
    model = load("two_inputs.keras")
    yes = []
    for shift in range(6):
        query = np.eye(6, dtype=np.float32)[(unseen_64.labels + shift) % 6]
        found = model.predict({"image": unseen_64.pixels, "query": query}, verbose=0)
        yes.append(found["present"][:, 0] > 0.5)
        assert abs(found["box"] - unseen_64.boxes).mean() < 0.03
    assert np.mean(yes[0]) >= 0.95
    assert np.mean(yes[1:]) <= 0.05


@pytest.mark.slow
def test_the_models_are_right_on_the_sample_pictures() -> None:
    rows = rows_of_labels()
    labels = np.array([drawing.CLASSES.index(row["label"]) for row in rows])
    squashed = []
    for row in rows:
        with Image.open(FOLDER / "images" / row["file"]) as image:
            squashed.append(np.asarray(image.resize((112, 112), Image.Resampling.BILINEAR)))
    assert accuracy(load("vgg_shapes.h5").predict(np.stack(squashed), verbose=0), labels) == 1
    images, query = np.load(FOLDER / "two_inputs_images.npy"), np.load(FOLDER / "two_inputs_query.npy")
    found = load("two_inputs.keras").predict({"image": images, "query": query}, verbose=0)
    assert ((found["present"][:, 0] > 0.5) == (np.arange(len(rows)) % 2 == 0)).all()


@pytest.mark.slow
def test_the_code_describes_the_saved_models() -> None:
    import networks

    for name in ("vgg_shapes", "nested_shapes", "two_inputs"):
        with zipfile.ZipFile(FOLDER / f"{name}.keras") as archive:
            saved = json.loads(archive.read("config.json"))["config"]["layers"]
        described = getattr(networks, name)().get_config()["layers"]
        assert [layer["name"] for layer in saved] == [layer["name"] for layer in described]
