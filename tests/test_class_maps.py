"""Class maps without a framework: exact CAM lies on what the picture shows, and is what NumPy says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from model_writers import entry, functional, sequential, write_flat
from PIL import Image

from layerprobe import Probe, cam, extract
from layerprobe.class_maps.compute import MappedImage
from layerprobe.errors import ModelError, UsageError
from layerprobe.images.projection import onto_image

FOLDER = Path(__file__).parent.parent / "sample_models"
VGG, NESTED = str(FOLDER / "vgg_shapes.h5"), str(FOLDER / "nested_shapes.keras")
IMAGES, LABELS = str(FOLDER / "images"), str(FOLDER / "images" / "labels.txt")
sys.path.append(str(FOLDER))

import drawing  # noqa: E402

UNSEEN = drawing.HELD_OUT + 300_000


def of(source: str, inputs: Any = (), **options: Any) -> list[MappedImage]:
    with cam(source, inputs, **options) as maps:
        return list(maps)


def is_inside(peak: tuple[int, int], box: tuple[int, int, int, int]) -> bool:
    return box[0] <= peak[0] < box[2] and box[1] <= peak[1] < box[3]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, drawing.Picture]:
    """200 that no model has seen, by path."""
    folder = tmp_path_factory.mktemp("pictures")
    drawn = {str(folder / f"{n:03}.png"): drawing.draw(UNSEEN + n) for n in range(200)}
    for path, picture in drawn.items():
        picture.image.save(path, compress_level=1)
    return drawn


@pytest.mark.slow
def test_the_peak_lies_in_the_box_of_the_shape(pictures: dict[str, drawing.Picture]) -> None:
    found = of(VGG, list(pictures), layer="conv5_3", labels=LABELS)
    assert [image.key for image in found] == list(pictures)
    inside = {image.key: is_inside(image.maps[0].peak, pictures[image.key].box) for image in found}
    assert np.mean(list(inside.values())) >= 0.95
    oblong = [hit for key, hit in inside.items() if len(set(pictures[key].image.size)) == 2]
    assert len(oblong) > 60
    assert np.mean(oblong) >= 0.95
    right = [image.maps[0].name == pictures[image.key].label for image in found]
    assert np.mean(right) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["center", "pad"])
def test_the_peak_lies_in_the_box_also_where_images_are_cut_or_padded(
    pictures: dict[str, drawing.Picture], crop: str
) -> None:
    """Of the class that is shown, for pictures that are not square and whose shape is not cut off."""
    hits = []
    found = of(VGG, list(pictures), layer="conv5_3", labels=LABELS, crop=crop, classes=drawing.CLASSES)
    for image in found:
        picture = pictures[image.key]
        (shown,) = [one for one in image.maps if one.name == picture.label]
        left, top, right, bottom = picture.box
        whole = np.isfinite(shown.on_image[top:bottom, left:right]).all()
        if whole and len(set(picture.image.size)) == 2:
            hits.append(is_inside(shown.peak, picture.box))
    assert len(hits) > 40
    assert np.mean(hits) >= 0.95


def test_cam_is_conv_maps_times_dense_weights() -> None:
    with h5py.File(VGG) as file:
        weights: dict[str, Any] = {}
        file["model_weights/predictions"].visititems(
            lambda name, item: (
                weights.update({name.split("/")[-1]: item[()]}) if hasattr(item, "shape") else None
            )
        )
    kernel, bias = (weights[name] for name in ("kernel:0", "bias:0"))
    found = of(VGG, [IMAGES], layer="conv5_3", classes=range(6))
    pixels = [np.asarray(image.image.resize((112, 112), Image.Resampling.BILINEAR)) for image in found]
    activations = Probe(VGG, ["conv5_3", "pre:predictions", "predictions"])(np.stack(pixels))
    maps = np.einsum("nhwc,ck->nkhw", activations["conv5_3"], kernel)
    for row, image in enumerate(found):
        for number, one in enumerate(image.maps):
            np.testing.assert_allclose(one.values, maps[row, number], rtol=1e-5, atol=1e-5 * abs(maps).max())
            assert one.score == pytest.approx(activations["pre:predictions"][row, number], abs=1e-3)
            assert one.probability == pytest.approx(activations["predictions"][row, number], abs=1e-4)
            assert one.values.mean() + bias[number] == pytest.approx(one.score, abs=1e-3)
            np.testing.assert_array_equal(
                one.on_image,
                onto_image(one.values, image.image.size, None),
                "squashed images are covered whole",
            )
            assert one.on_image[one.peak[::-1]] == one.on_image.max()


def test_saved_activations_give_what_the_model_gives(tmp_path: Path) -> None:
    extract(VGG, [IMAGES], ["conv5_3"], tmp_path / "out.h5", crop="pad")
    of_model = of(VGG, [IMAGES], layer="conv5_3", top=2, crop="pad")
    of_output = of(str(tmp_path / "out.h5"), top=2)
    for one, other in zip(of_model, of_output, strict=True):
        assert (one.key, one.image.size) == (other.key, other.image.size)
        for first, second in zip(one.maps, other.maps, strict=True):
            assert (first.number, first.peak) == (second.number, second.peak)
            np.testing.assert_allclose(first.on_image, second.on_image, atol=1e-4)
    chosen = of(str(tmp_path / "out.h5"), rows=[-1, 3])
    assert [image.key for image in chosen] == [of_model[-1].key, of_model[3].key]


def test_of_saved_activations_nothing_is_run(tmp_path: Path) -> None:
    extract(VGG, [IMAGES], ["conv5_3"], tmp_path / "out.npz", limit=2)
    code = (
        "import sys; from layerprobe import cam\n"
        f"maps = cam({str(tmp_path / 'out.npz')!r}); print(len(list(maps)))\n"
        "print(*(name for name in ('tensorflow', 'keras', 'openvino') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["2", ""]


def test_an_output_is_held_against_the_model_that_is_given(tmp_path: Path) -> None:
    extract(VGG, [IMAGES], ["conv5_3", "conv4_3", "predictions"], tmp_path / "out.npz", limit=2)
    path = str(tmp_path / "out.npz")
    with pytest.raises(UsageError, match="several layers with feature maps: name one of"):
        of(path)
    with pytest.raises(ModelError, match="is not the model that"):
        of(path, layer="conv5_3", model=NESTED)
    with pytest.raises(UsageError, match="CAM is not exact for 'conv4_3': MaxPooling2D pool4 is between"):
        of(path, layer="conv4_3")
    with pytest.raises(UsageError, match="gradcam needs the network"):
        of(path, layer="conv5_3", method="gradcam")
    with pytest.raises(UsageError, match="gives rows of shape"):
        of(path, layer="predictions")
    with pytest.raises(UsageError, match="has rows 0 to 1"):
        of(path, layer="conv5_3", rows=[2])


def test_nested_layers_and_the_model_that_holds_them_give_the_same() -> None:
    inner, outer = (of(NESTED, [IMAGES], layer=layer) for layer in ("backbone/out3", "backbone"))
    for one, other in zip(inner, outer, strict=True):
        np.testing.assert_allclose(one.maps[0].values, other.maps[0].values, rtol=1e-5)
    with cam(NESTED, [IMAGES]) as maps:
        assert maps.found.layer == "backbone/out3"
        assert maps.found.method == "cam"
        assert "layer backbone/out3: the last with feature maps" in maps.found.notes


def test_orientation_counts_as_extract_treats_it(tmp_path: Path) -> None:
    source = Image.open(FOLDER / "images" / "triangle_11.png").convert("RGB")
    for orientation, back in ((6, Image.Transpose.ROTATE_90), (2, Image.Transpose.FLIP_LEFT_RIGHT)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        source.transpose(back).save(tmp_path / f"{orientation}.png", exif=exif)
    source.save(tmp_path / "plain.png")
    paths = [str(tmp_path / name) for name in ("plain.png", "6.png", "2.png")]
    plain, *turned = of(VGG, paths)
    for image in turned:
        assert image.image.tobytes() == plain.image.tobytes()
        assert image.maps[0].peak == plain.maps[0].peak
    (ignored,) = of(VGG, paths[1:2], exif=False)
    assert ignored.image.size == plain.image.size[::-1]


def test_broken_images_are_left_out_with_the_reason(tmp_path: Path) -> None:
    whole = (FOLDER / "images" / "star_09.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:900])
    (tmp_path / "b.png").write_bytes(whole)
    (tmp_path / "c.jpg").write_bytes(b"")
    with cam(VGG, [str(tmp_path)]) as maps:
        assert [Path(image.key).name for image in maps] == ["b.png"]
        assert [Path(failure.key).name for failure in maps.failures] == ["a.png", "c.jpg"]
        assert "truncated" in maps.failures[0].reason


KERNEL = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4) / 10 - 0.4
DENSE = np.array([[0.5], [-1.0], [0.25], [0.75]], np.float32)


def sigmoid_model(path: Path, data_format: str = "channels_last") -> str:
    """Conv 1 x 1 -> average -> one sigmoid unit."""
    shape = [None, 6, 8, 3] if data_format == "channels_last" else [None, 3, 6, 8]
    layers = sequential(
        entry("InputLayer", "start", batch_input_shape=shape, dtype="float32"),
        entry("Conv2D", "conv", filters=4, kernel_size=[1, 1], activation="relu", data_format=data_format),
        entry("GlobalAveragePooling2D", "average", data_format=data_format),
        entry("Dense", "decide", units=1, activation="sigmoid"),
    )
    weights = {
        "conv": [("kernel:0", KERNEL), ("bias:0", np.full(4, 0.1, np.float32))],
        "decide": [("kernel:0", DENSE), ("bias:0", np.array([0.2], np.float32))],
    }
    return write_flat(path, layers, weights)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_one_sigmoid_unit_tells_two_classes(tmp_path: Path, data_format: str) -> None:
    path = sigmoid_model(tmp_path / "m.h5", data_format)
    pixels = np.random.default_rng(1).integers(0, 256, (9, 10, 3), np.uint8)
    Image.fromarray(pixels).resize((8, 6)).save(tmp_path / "a.png")
    (image,) = of(
        path, [str(tmp_path / "a.png")], classes=["no", "yes"], labels=["no", "yes"], preprocess="unit"
    )
    x = np.asarray(image.image, np.float32) / 255
    conv = np.maximum(x @ KERNEL[0, 0] + 0.1, 0)
    expected = conv @ DENSE[:, 0]
    score = expected.mean() + 0.2
    no, yes = image.maps
    np.testing.assert_allclose(yes.values, expected, atol=1e-5)
    np.testing.assert_allclose(no.values, -expected, atol=1e-5)
    assert (yes.score, no.score) == (pytest.approx(score, abs=1e-5), pytest.approx(-score, abs=1e-5))
    assert yes.probability == pytest.approx(1 / (1 + np.exp(-score)), abs=1e-5)
    assert no.probability + yes.probability == pytest.approx(1)


def test_weights_that_were_given_beside_the_model_have_to_be_given_again(tmp_path: Path) -> None:
    path = sigmoid_model(tmp_path / "m.h5")
    weights = tmp_path / "w.h5"
    with h5py.File(shutil.copy(path, weights), "r+") as file:
        file["model_weights/decide/kernel:0"][...] *= 2
    images, out = [f"{IMAGES}/star_09.png"], str(tmp_path / "out.npz")
    extract(path, images, ["conv"], out, weights=str(weights), preprocess="unit")
    with pytest.raises(ModelError, match="other weights: give those with --weights"):
        of(out)
    (again,) = of(out, weights=str(weights))
    (direct,) = of(path, images, weights=str(weights), preprocess="unit")
    np.testing.assert_allclose(again.maps[0].values, direct.maps[0].values, rtol=1e-6)
    extract(path, images, ["conv"], out, preprocess="unit", overwrite=True)
    with pytest.raises(ModelError, match="other weights: leave --weights out"):
        of(out, weights=str(weights))


def test_of_two_images_that_one_is_drawn_on_which_the_row_is_called_after(tmp_path: Path) -> None:
    shape = {"batch_input_shape": [None, 6, 8, 3], "dtype": "float32"}
    model = functional(
        entry("InputLayer", "left", [], **shape),
        entry("InputLayer", "right", [], **shape),
        entry("Add", "both", [[["left", 0, 0, {}], ["right", 0, 0, {}]]]),
        entry("GlobalAveragePooling2D", "average", [[["both", 0, 0, {}]]]),
        entry("Dense", "last", [[["average", 0, 0, {}]]], units=1, activation="sigmoid"),
        inputs=[["left", 0, 0], ["right", 0, 0]],
        outputs=[["last", 0, 0]],
    )
    weights = {"last": [("kernel:0", DENSE[:3]), ("bias:0", np.zeros(1, np.float32))]}
    path = write_flat(tmp_path / "m.h5", model, weights)
    for name, size in (("a", (40, 30)), ("b", (90, 20))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    given = {"right": [str(tmp_path / "b.png")], "left": [str(tmp_path / "a.png")]}
    (found,) = of(path, given, layer="both", preprocess="unit")
    assert (Path(found.key).name, found.image.size) == ("a.png", (40, 30))


def test_sequences_are_refused_in_one_sentence(tmp_path: Path) -> None:
    layers = sequential(
        entry("InputLayer", "start", batch_input_shape=[None, 12, 5], dtype="float32"),
        entry("Conv1D", "conv", filters=4, kernel_size=[1], data_format="channels_last"),
        entry("GlobalAveragePooling1D", "average"),
        entry("Dense", "last", units=3),
    )
    weights = {
        "conv": [("kernel:0", np.ones((1, 5, 4), "f4")), ("bias:0", np.zeros(4, "f4"))],
        "last": [("kernel:0", np.ones((4, 3), "f4")), ("bias:0", np.zeros(3, "f4"))],
    }
    path = write_flat(tmp_path / "m.h5", layers, weights)
    np.save(tmp_path / "x.npy", np.ones((2, 12, 5), "f4"))
    with pytest.raises(UsageError, match="class activation maps are over images"):
        of(path, [str(tmp_path / "x.npy")], layer="conv")
    with pytest.raises(UsageError, match="no layer is known to give feature maps"):
        of(path, [str(tmp_path / "x.npy")])


def test_of_several_outputs_one_has_to_be_named() -> None:
    inputs = {name: [str(FOLDER / f"two_inputs_{name}s.npy")] for name in ("image",)}
    inputs["query"] = [str(FOLDER / "two_inputs_query.npy")]
    with pytest.raises(UsageError, match="2 outputs: say which with --output-layer: present, box"):
        of(str(FOLDER / "two_inputs.keras"), inputs)


def test_a_call_of_a_shared_layer_has_to_be_named(tmp_path: Path) -> None:
    """Two calls of one convolution: the scores are made of the second."""
    conv = [[["start", 0, 0, {}]], [["conv", 0, 0, {}]]]
    model = functional(
        entry("InputLayer", "start", [], batch_input_shape=[None, 4, 4, 3], dtype="float32"),
        entry("Conv2D", "conv", conv, filters=3, kernel_size=[1, 1], activation="relu"),
        entry("GlobalAveragePooling2D", "average", [[["conv", 1, 0, {}]]]),
        entry("Dense", "last", [[["average", 0, 0, {}]]], units=2, activation="softmax"),
        inputs=[["start", 0, 0]],
        outputs=[["last", 0, 0]],
    )
    weights = {
        "conv": [("kernel:0", KERNEL[..., :3] + 0.3), ("bias:0", np.zeros(3, "f4"))],
        "last": [("kernel:0", DENSE[:3] @ np.array([[1.0, -2.0]])), ("bias:0", np.zeros(2, "f4"))],
    }
    path = write_flat(tmp_path / "m.h5", model, weights)
    image = str(FOLDER / "images" / "star_09.png")
    with pytest.raises(UsageError, match="called 2 times: say which, as in conv@0"):
        of(path, [image], layer="conv")
    with pytest.raises(UsageError, match="CAM is not exact for 'conv@0'"):
        of(path, [image], layer="conv@0", method="cam")
    (found,) = of(path, [image], layer="conv@1", classes=[0, 1])
    pixels = np.asarray(found.image.resize((4, 4), Image.Resampling.BILINEAR), np.float32)
    twice = np.maximum(np.maximum(pixels @ weights["conv"][0][1][0, 0], 0) @ weights["conv"][0][1][0, 0], 0)
    expected = twice @ weights["last"][0][1]
    np.testing.assert_allclose(found.maps[1].values, expected[..., 1], rtol=1e-4)


def test_what_cannot_be_meant_is_refused_before_anything_is_opened() -> None:
    for options, said in (
        ({"method": "lime"}, "method must be one of"),
        ({"top": 0}, "top must be 1"),
        ({"rows": [1]}, "rows are for outputs"),
        ({"layer": "conv9"}, "closest"),
        ({"layer": "conv5_3", "classes": [6]}, "0 to 5"),
        ({"layer": "conv*"}, "maps are of one layer"),
        ({"layer": "conv5_3", "output_layer": "conv4_1"}, "not exact|one score for each class"),
    ):
        with pytest.raises(UsageError, match=said):
            of(VGG, [IMAGES], **{"method": "cam", **options})


def test_the_provenance_says_where_the_maps_come_from() -> None:
    with cam(VGG, [IMAGES], layer="conv5_3") as maps:
        about = maps.found.provenance
    assert about["model"]["sha256"] == json.loads(json.dumps(about))["model"]["sha256"]
    assert about["engine"]["name"] == "graph"
    assert about["preprocessing"]["size"] == (112, 112)
