"""Gradients of what layers give are those of a tape over the model split by hand, and of differences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layerprobe
from layerprobe.errors import UnavailableError, UsageError

FOLDER = Path(__file__).parent.parent / "sample_models"
VGG, NESTED = str(FOLDER / "vgg_shapes.keras"), str(FOLDER / "nested_shapes.keras")
sys.path.append(str(FOLDER))

pytestmark = pytest.mark.slow


def pixels(rows: int, side: int) -> Any:
    return np.random.default_rng(side).uniform(0, 255, (rows, side, side, 3)).astype(np.float32)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.fixture(scope="module")
def vgg() -> Any:
    return layerprobe.load_model(VGG)


def tail(model: Any, layer: str, values: Any) -> Any:
    """The logits of the model from one layer's values on, layer by layer."""
    import keras

    names = [each.name for each in model.layers]
    for following in model.layers[names.index(layer) + 1 : -1]:
        values = following(values)
    last = model.layers[-1]
    return keras.ops.matmul(values, last.kernel) + last.bias


@pytest.mark.parametrize("layer", ["conv5_3", "conv4_3", "pool3"])
def test_they_equal_a_tape_over_the_model_split_by_hand(vgg: Any, layer: str) -> None:
    import keras
    import tensorflow as tf

    x = pixels(3, 112)
    values = tf.convert_to_tensor(keras.Model(vgg.input, vgg.get_layer(layer).output)(x))
    with tf.GradientTape() as tape:
        tape.watch(values)
        logits = tail(vgg, layer, values)
        chosen = tf.gather(logits, [1, 5, 0], batch_dims=1)
    expected = tape.gradient(chosen, values)
    for source in (VGG, vgg):
        found = layerprobe.gradients(source, "pre:predictions", layer)(x, [1, 5, 0])
        close(found.gradients["pre:predictions"][layer], expected)
        close(found.outputs["pre:predictions"], logits)
        close(found.layers[layer], values)


def test_they_equal_finite_differences_of_a_nested_layer() -> None:
    """A step in one value of an inner layer moves the score by the gradient times the step."""
    model = layerprobe.load_model(NESTED)
    x = pixels(1, 64)
    found = layerprobe.gradients(model, "pre:predictions", ["backbone/out2", "backbone/out3"])(x, 4)
    inner = model.get_layer("backbone").get_layer("out2")
    predictions = model.get_layer("predictions")
    shift: list[Any] = [0.0]
    original = inner.call
    inner.__dict__["call"] = lambda value: original(value) + shift[0]

    def score(step: Any) -> float:
        shift[0] = step
        values = x
        for layer in ("rescaling", "backbone", "pooling"):
            values = model.get_layer(layer)(values)
        pooled = np.asarray(values, np.float64)
        return float((pooled @ np.asarray(predictions.kernel, np.float64))[0, 4])

    gradient = found.gradients["pre:predictions"]["backbone/out2"][0]
    for place in np.random.default_rng(0).integers(0, gradient.shape, (6, 3)):
        step = np.zeros((1, *gradient.shape), np.float32)
        step[(0, *place)] = 0.02
        slope = (score(step) - score(-step)) / 0.04
        assert slope == pytest.approx(gradient[tuple(place)], abs=0.03 * float(np.abs(gradient).max()))
    kernel = np.asarray(predictions.kernel)
    flat = np.broadcast_to(kernel[:, 4] / 64, (8, 8, 64))
    close(found.gradients["pre:predictions"]["backbone/out3"][0], flat)


def test_each_call_of_a_shared_layer_has_its_own() -> None:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    shared = keras.layers.Dense(4, activation="tanh", name="shared")
    start = keras.Input((4,))
    model = keras.Model(start, keras.layers.Dense(2, name="last")(shared(shared(start))))
    x = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        first = shared(x)
        tape.watch(first)
        second = shared(first)
        score = model.get_layer("last")(second)[:, 1]
    expected = tape.gradient(score, first)
    both = layerprobe.gradients(model, "last", ["shared@0", "shared@1"])(x, 1)
    close(both.gradients["last"]["shared@0"], expected)
    kernel = np.asarray(model.get_layer("last").kernel)[:, 1]
    close(both.gradients["last"]["shared@1"], np.broadcast_to(kernel, (3, 4)))
    alone = layerprobe.gradients(model, "last", "shared")(x, 1)
    assert sorted(alone.layers) == ["shared@0", "shared@1"]


def test_subclassed_models_have_them_too() -> None:
    import tensorflow as tf
    from subclassed_shapes import ShapeClassifier

    path, own = str(FOLDER / "subclassed_shapes.keras"), {"ShapeClassifier": ShapeClassifier}
    model = layerprobe.load_model(path, custom_objects=own)
    x = pixels(2, 64)
    found = layerprobe.gradients(path, "pre:predictions", "block3", custom_objects=own)(x, [0, 3])
    kernel = np.asarray(model.predictions.kernel)[:, [0, 3]].T
    values = found.layers["block3"]
    with tf.GradientTape() as tape:
        given = tf.convert_to_tensor(values)
        tape.watch(given)
        pooled = model.pooling(given)
    product = tape.gradient(pooled, given, output_gradients=kernel)
    close(found.gradients["pre:predictions"]["block3"], product)


def test_units_are_numbers_or_weights_and_outputs_may_be_several() -> None:
    inputs = {"image": np.load(FOLDER / "two_inputs_images.npy")[:4], "query": np.eye(6, dtype="f4")[:4]}
    gradients = layerprobe.gradients(
        str(FOLDER / "two_inputs.keras"), ["pre:present", "pre:box"], ["pool4", "asked"]
    )
    weights = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    found = gradients(inputs, {"pre:box": weights})
    one_by_one = [gradients(inputs, {"pre:box": unit}).gradients["pre:box"]["pool4"] for unit in range(4)]
    expected = sum(weights[:, unit, None, None, None] * each for unit, each in enumerate(one_by_one))
    close(found.gradients["pre:box"]["pool4"], expected)
    assert found.gradients["pre:present"]["asked"].any()
    assert not found.gradients["pre:box"]["asked"].any(), "the box does not depend on what is asked"
    assert set(found.outputs) == {"pre:present", "pre:box"}


def test_one_unit_of_very_many_is_named_without_a_matrix_of_all() -> None:
    import keras

    x = keras.Input((1,))
    y = keras.layers.Dense(1, name="d")(x)
    model = keras.Model(x, keras.layers.RepeatVector(1 << 20, name="long")(y))
    found = layerprobe.gradients(model, "long", "d")(np.ones((2, 1), np.float32), [5, 1 << 19])
    assert found.gradients["long"]["d"].tolist() == [[1], [1]]


def test_what_cannot_be_meant_is_said(vgg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = layerprobe.gradients(vgg, "predictions", "conv5_3")
    x = pixels(2, 112)
    for units, said in ((6, "units 0 to 5"), ([0, 1, 2], "one or 2"), (np.ones((2, 5)), "shape")):
        with pytest.raises(UsageError, match=said):
            gradients(x, units)
    with pytest.raises(UsageError, match="there is no output 'x'"):
        gradients(x, {"x": 1})
    with pytest.raises(UsageError, match="'conv1_1' has no gradient with respect to 'conv5_3'"):
        layerprobe.gradients(vgg, "conv1_1", "conv5_3")(x)
    with pytest.raises(UsageError, match="name at least one"):
        layerprobe.gradients(vgg, "predictions", [])
    monkeypatch.setattr("layerprobe.engines.keras_model.keras_backend", lambda: "jax")
    with pytest.raises(UnavailableError, match="KERAS_BACKEND=tensorflow"):
        layerprobe.gradients(vgg, "predictions", "conv5_3")(x)
