"""Class maps against Keras: CAM is exact where it says so, and the others are what tape gradients give."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layerprobe
from layerprobe.errors import UsageError

FOLDER = Path(__file__).parent.parent / "sample_models"
VGG, NESTED = str(FOLDER / "vgg_shapes.keras"), str(FOLDER / "nested_shapes.keras")
IMAGES = [str(FOLDER / "images" / name) for name in ("star_09.png", "ring_06.jpg", "cross_04.jpg")]
sys.path.append(str(FOLDER))

pytestmark = pytest.mark.slow

Heads = dict[str, Callable[[Any, Any], Any]]


def of(*arguments: Any, **options: Any) -> list[Any]:
    with layerprobe.cam(*arguments, **options) as maps:
        return list(maps)


EXACT: Heads = {
    "dense": lambda k, x: k.Dense(5, activation="softmax")(k.GlobalAveragePooling2D()(x)),
    "dropout and flatten": lambda k, x: k.Dense(5, activation="sigmoid")(
        k.Dropout(0.5)(k.Flatten()(k.GlobalAveragePooling2D(keepdims=True)(k.SpatialDropout2D(0.5)(x))))
    ),
    "normalised and mixed": lambda k, x: k.Activation("softmax")(
        k.Dense(5)(
            k.BatchNormalization()(k.GlobalAveragePooling2D()(k.Conv2D(7, 1)(k.BatchNormalization()(x))))
        )
    ),
    "as MobileNet ends": lambda k, x: k.Softmax()(
        k.Reshape((5,))(k.Conv2D(5, 1)(k.Dropout(0.1)(k.Reshape((1, 1, 6))(k.GlobalAveragePooling2D()(x)))))
    ),
    "as old ResNets end": lambda k, x: k.Dense(5, activation="softmax")(
        k.Flatten()(k.AveragePooling2D((6, 4))(x))
    ),
    "tiles": lambda k, x: k.Dense(5)(
        k.GlobalAveragePooling2D()(k.Rescaling(0.3, offset=1.5)(k.AveragePooling2D((3, 2))(x)))
    ),
    "dense at each position": lambda k, x: k.GlobalAveragePooling2D()(k.Dense(5)(x)),
    "one unit": lambda k, x: k.Dense(1, activation="sigmoid")(k.GlobalAveragePooling2D()(x)),
}
INEXACT: Heads = {
    "ReLU": lambda k, x: k.Dense(5)(k.GlobalAveragePooling2D()(k.ReLU()(x))),
    "GlobalMaxPooling2D": lambda k, x: k.Dense(5)(k.GlobalMaxPooling2D()(x)),
    "with activation tanh": lambda k, x: k.Dense(5)(
        k.Dense(4, activation="tanh")(k.GlobalAveragePooling2D()(x))
    ),
    "does not keep the average": lambda k, x: k.Dense(5)(
        k.GlobalAveragePooling2D()(k.AveragePooling2D(2, strides=1)(x))
    ),
    "AveragePooling2D": lambda k, x: k.Dense(5)(
        k.Flatten()(k.AveragePooling2D((6, 4), strides=1, padding="same")(x))
    ),
    "average_pooling2d": lambda k, x: k.Dense(5)(
        k.GlobalAveragePooling2D()(k.AveragePooling2D((6, 4), strides=1, padding="same")(x))
    ),
    "Conv2D": lambda k, x: k.Dense(5)(k.GlobalAveragePooling2D()(k.Conv2D(4, 3)(x))),
    "Flatten": lambda k, x: k.Dense(5)(k.Flatten()(x)),
    "Concatenate": lambda k, x: k.Dense(5)(
        k.Concatenate()([k.GlobalAveragePooling2D()(x), k.GlobalMaxPooling2D()(x)])
    ),
    "no global average": lambda k, x: k.Dense(5)(k.BatchNormalization()(x)),
    "Reshape": lambda k, x: k.Dense(5)(k.Reshape((-1,))(x)),
}


def saved(path: Path, head: Callable[[Any, Any], Any]) -> Any:
    """A model that ends so, with weights and statistics as after training."""
    import keras

    keras.utils.set_random_seed(3)
    start = keras.Input((6, 4, 3))
    maps = keras.layers.Conv2D(6, 1, activation="relu", name="maps")(start)
    model = keras.Model(start, head(keras.layers, maps))
    random = np.random.default_rng(4)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.path else -1.0
        weight.assign(random.uniform(low, 1.5, weight.shape))
    model.save(path)
    return model


def logits_of(model: Any, x: Any) -> Any:
    """What goes into the last activation, by Keras's own."""
    import keras

    last = model.layers[-1]
    before = keras.Model(model.input, last.input)(x)
    if isinstance(last, keras.layers.Dense):
        return np.asarray(before) @ np.asarray(last.kernel) + np.asarray(last.bias)
    if isinstance(last, keras.layers.Softmax | keras.layers.Activation):
        return np.asarray(before)
    return np.asarray(model(x))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("small") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.mark.parametrize("name", EXACT)
def test_where_cam_is_exact_its_mean_is_the_score_of_keras(name: str, tmp_path: Path, small: str) -> None:
    import keras

    model = saved(tmp_path / "m.keras", EXACT[name])
    with Image.open(small) as image:
        x = np.asarray(image, np.float32)[np.newaxis] / 255
    logits, outputs = logits_of(model, x)[0], np.asarray(model(x))[0]
    count = len(logits)
    options = {"layer": "maps", "preprocess": "unit"}
    (found,) = of(str(tmp_path / "m.keras"), [small], classes=range(max(count, 2)), method="cam", **options)
    signs, values = ([-1, 1], np.repeat(logits, 2)) if count == 1 else ([1] * count, logits)
    np.testing.assert_allclose([one.score for one in found.maps], signs * values, rtol=1e-4, atol=1e-5)
    if found.maps[0].probability is not None:
        np.testing.assert_allclose(found.maps[-1].probability, outputs[-1], atol=1e-5)
    maps = np.asarray(keras.Model(model.input, model.get_layer("maps").output)(x))[0]
    assert found.maps[0].values.shape == maps.shape[:2]
    # The mean is the score but for what does not depend on the image: it follows every change of the maps.
    darker = tmp_path / "b.png"
    Image.fromarray((x[0] * 128).astype(np.uint8)).save(darker)
    (other,) = of(str(tmp_path / "m.keras"), [str(darker)], classes=range(max(count, 2)), **options)
    for one, second in zip(found.maps, other.maps, strict=True):
        moved = one.values.mean() - second.values.mean()
        assert moved == pytest.approx(one.score - second.score, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", INEXACT)
def test_where_cam_is_not_exact_that_is_said_and_gradients_take_its_place(
    name: str, tmp_path: Path, small: str
) -> None:
    saved(tmp_path / "m.keras", INEXACT[name])
    with pytest.raises(UsageError, match=f"CAM is not exact for 'maps': .*{name}"):
        of(str(tmp_path / "m.keras"), [small], layer="maps", method="cam")
    if name in ("ReLU", "Concatenate"):
        with layerprobe.cam(str(tmp_path / "m.keras"), [small], layer="maps") as maps:
            assert maps.found.method == "gradcam"
            assert any(name in note for note in maps.found.notes)
            assert len(list(maps)) == 1


@pytest.mark.parametrize(("model", "layer"), [(VGG, "conv5_3"), (NESTED, "backbone/out3")])
def test_gradcam_is_cam_up_to_scale_behind_a_global_average(model: str, layer: str) -> None:
    exact = of(model, IMAGES, layer=layer, method="cam", top=2)
    by_gradients = of(model, IMAGES, layer=layer, method="gradcam", top=2)
    for one, other in zip(exact, by_gradients, strict=True):
        for first, second in zip(one.maps, other.maps, strict=True):
            assert first.number == second.number
            assert first.score == pytest.approx(second.score, abs=1e-3)
            expected = np.maximum(first.values, 0) / first.values.size
            np.testing.assert_allclose(second.values, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "layercam"])
def test_other_methods_equal_numpy_from_tape_gradients(method: str) -> None:
    import keras
    import tensorflow as tf

    model = layerprobe.load_model(VGG)
    found = of(VGG, IMAGES, layer="conv4_3", method=method)
    pixels = [np.asarray(each.image.resize((112, 112), Image.Resampling.BILINEAR), "f4") for each in found]
    maps = tf.convert_to_tensor(keras.Model(model.input, model.get_layer("conv4_3").output)(np.stack(pixels)))
    names = [layer.name for layer in model.layers]
    with tf.GradientTape() as tape:
        tape.watch(maps)
        values = maps
        for layer in model.layers[names.index("conv4_3") + 1 : -1]:
            values = layer(values)
        logits = values @ model.layers[-1].kernel + model.layers[-1].bias
        scores = tf.reduce_max(logits, 1)
    a, g = maps.numpy().astype(float), tape.gradient(scores, maps).numpy().astype(float)
    for row, image in enumerate(found):
        (one,) = image.maps
        if method == "gradcam":
            expected = (a[row] * g[row].mean((0, 1))).sum(-1)
        elif method == "layercam":
            expected = (a[row] * np.maximum(g[row], 0)).sum(-1)
        else:
            below = 2 * g[row] ** 2 + a[row].sum((0, 1)) * g[row] ** 3
            alpha = np.where(below == 0, 0, g[row] ** 2 / np.where(below == 0, 1, below))
            expected = (a[row] * (alpha * np.maximum(g[row], 0)).sum((0, 1))).sum(-1)
        assert one.number == int(np.argmax(logits[row]))
        assert one.score == pytest.approx(float(scores[row]), rel=1e-4)
        np.testing.assert_allclose(one.values, np.maximum(expected, 0), atol=2e-3 * np.abs(expected).max())


def test_subclassed_models_give_the_score_before_their_softmax() -> None:
    from subclassed_shapes import ShapeClassifier

    path, own = str(FOLDER / "subclassed_shapes.keras"), {"ShapeClassifier": ShapeClassifier}
    with layerprobe.cam(path, IMAGES, custom_objects=own) as maps:
        found = list(maps)
        assert (maps.found.layer, maps.found.method) == ("block3", "gradcam")
    named = of(path, IMAGES, custom_objects=own, layer="block3", output_layer="pre:predictions")
    model = layerprobe.load_model(path, custom_objects=own)
    for one, other in zip(found, named, strict=True):
        np.testing.assert_allclose(one.maps[0].values, other.maps[0].values, rtol=1e-4, atol=1e-6)
        assert one.maps[0].score == pytest.approx(other.maps[0].score)
        pixels = np.asarray(one.image.resize((64, 64), Image.Resampling.BILINEAR), np.float32)
        assert one.maps[0].probability == pytest.approx(float(np.max(model(pixels[None]))), abs=1e-4)
        assert other.maps[0].probability is None, "of a layer that was named nothing says what becomes of it"


def test_one_sigmoid_unit_of_a_live_model_tells_two_classes_however_sure_it_is(
    tmp_path: Path, small: str
) -> None:
    model = saved(tmp_path / "m.keras", EXACT["one unit"])
    for sure in (20.0, 0.0, -20.0):
        model.layers[-1].bias.assign([sure])
        (found,) = of(model, [small], layer="maps", classes=[0, 1], preprocess="unit")
        with Image.open(small) as image:
            x = np.asarray(image, np.float32)[np.newaxis] / 255
        logit = float(logits_of(model, x)[0, 0])
        assert [one.score for one in found.maps] == pytest.approx([-logit, logit], rel=1e-4, abs=1e-5)
        assert [one.probability for one in found.maps] == pytest.approx(
            [1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], abs=1e-5
        )


def test_what_means_several_tensors_of_a_live_model_is_said(small: str) -> None:
    import keras

    start = keras.Input((6, 4, 3))
    shared = keras.layers.Conv2D(3, 1, name="maps")
    pooled = keras.layers.GlobalAveragePooling2D()(shared(shared(start)))
    outputs = [keras.layers.Dense(3, name="a")(pooled), keras.layers.Dense(2, name="b")(pooled)]
    model = keras.Model(start, outputs)
    with pytest.raises(UsageError, match="name one of .*1 with --output-layer"):
        of(model, [small], layer="maps@1")
    with pytest.raises(UsageError, match="name one of maps@0, maps@1 with --layer"):
        of(model, [small], layer="maps", output_layer="b")
    (found,) = of(model, [small], layer="maps@1", output_layer="#-1", classes=[0, 1])
    (named,) = of(model, [small], layer="maps@1", output_layer="b", classes=[0, 1])
    assert [one.score for one in found.maps] == [one.score for one in named.maps]


def test_rows_that_do_not_fit_into_memory_are_differentiated_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = of(VGG, IMAGES, layer="conv5_3", method="gradcam")
    from layerprobe.engines.gradients_tensorflow import TensorFlowGradients
    from layerprobe.errors import ResourceError

    compute = TensorFlowGradients.__call__

    def narrow(self: Any, inputs: Any, seeds: Any) -> Any:
        if len(inputs[0]) > 1:
            raise ResourceError("too much")
        return compute(self, inputs, seeds)

    monkeypatch.setattr(TensorFlowGradients, "__call__", narrow)
    for one, other in zip(whole, of(VGG, IMAGES, layer="conv5_3", method="gradcam"), strict=True):
        np.testing.assert_allclose(one.maps[0].values, other.maps[0].values, rtol=1e-4, atol=1e-6)
