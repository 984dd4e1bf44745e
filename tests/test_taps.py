"""Taps against hand-built references: every kind of model, every kind of tap."""

import numpy as np
import pytest

from layerprobe.engines.keras_tensorflow import KerasTensorFlowEngine
from layerprobe.engines.tracing import model_inputs
from layerprobe.errors import UnknownLayerError, UnrecordableLayerError, UsageError
from layerprobe.modelfile.select import select
from layerprobe.options import Computing
from layerprobe.records import TensorSpec
from layerprobe.taps import describe_model, find_layers

pytestmark = pytest.mark.slow

keras = pytest.importorskip("keras")
layers = keras.layers
RANDOM = np.random.default_rng(0)


def probe(model, texts, *arrays, **options):
    """What the taps see, as a dict of arrays."""
    specs = model_inputs(model) or [TensorSpec("x", array.shape[1:], "float32") for array in arrays]
    taps = select(texts, describe_model(model))
    engine = KerasTensorFlowEngine(model, taps, inputs=specs, batch_size=len(arrays[0]), **options)
    return engine.run(arrays)


def values(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def assert_close(actual, expected):
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def nested():
    """A backbone, holding a block, inside a classifier; and the two inner models themselves."""
    inner = keras.Input((8, 8, 4), name="block_in")
    block = keras.Model(inner, layers.Conv2D(4, 3, padding="same", name="conv")(inner), name="block")
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, activation="relu", name="stem")(image)
    backbone = keras.Model(image, layers.ReLU(name="relu")(block(x)), name="backbone")
    outer = keras.Input((8, 8, 3), name="photo")
    x = layers.GlobalAveragePooling2D(name="pool")(backbone(layers.Rescaling(2.0, name="twice")(outer)))
    return keras.Model(outer, layers.Dense(3, activation="softmax", name="predictions")(x)), backbone, block


def test_layers_of_nested_models_two_levels_deep(nested):
    model, backbone, block = nested
    x = values(5, 8, 8, 3)
    seen = probe(model, ["backbone/stem", "backbone/block/conv", "backbone", "output"], x)
    stem = keras.Model(backbone.inputs, backbone.get_layer("stem").output).predict(2 * x, verbose=0)
    assert_close(seen["backbone/stem"], stem)
    assert_close(seen["backbone/block/conv"], block.predict(stem, verbose=0))
    assert_close(seen["backbone"], backbone.predict(2 * x, verbose=0))
    assert_close(seen["output"], model.predict(x, verbose=0))
    assert list(seen) == ["backbone/stem", "backbone/block/conv", "backbone", "output"]


def test_inputs_of_layers_and_of_nested_models(nested):
    model, _, _ = nested
    x = values(2, 8, 8, 3)
    seen = probe(model, ["in:backbone", "backbone/image", "photo", "in:pool"], x)
    assert_close(seen["in:backbone"], 2 * x)
    assert_close(seen["backbone/image"], 2 * x)
    assert_close(seen["photo"], x)
    assert_close(seen["in:pool"], probe(model, ["backbone/relu"], x)["backbone/relu"])


def test_the_value_before_a_fused_activation(nested):
    model, _, _ = nested
    x = values(2, 8, 8, 3)
    seen = probe(model, ["pre:predictions", "predictions", "pool", "pre:backbone/stem", "backbone/stem"], x)
    kernel, bias = model.get_layer("predictions").get_weights()
    assert_close(seen["pre:predictions"], seen["pool"] @ kernel + bias)
    exps = np.exp(seen["pre:predictions"])
    assert_close(exps / exps.sum(axis=1, keepdims=True), seen["predictions"])
    assert_close(np.maximum(seen["pre:backbone/stem"], 0), seen["backbone/stem"])


def test_a_layer_without_a_fused_activation_has_no_value_before_it(nested):
    with pytest.raises(UsageError, match="'pre:pool'.*no fused activation"):
        probe(nested[0], ["pre:pool"], values(1, 8, 8, 3))


def test_the_model_is_left_as_it_was(nested):
    model, _, _ = nested
    probe(model, ["**/*", "pre:predictions"], values(1, 8, 8, 3))
    assert not [layer.name for layer in find_layers(model).values() if "call" in vars(layer)]
    assert model.get_layer("predictions").activation is keras.activations.softmax


def test_calls_of_a_shared_layer_are_counted_in_the_order_the_model_was_built():
    shared = layers.Dense(3, name="shared")
    x = keras.Input((3,), name="x")
    first = shared(x)
    second = shared(layers.Dense(3, name="before")(first))
    third = shared(x * 2.0)
    deep = layers.Dense(3, name="late")(layers.Dense(3, name="later")(third))
    model = keras.Model(x, layers.Concatenate(name="all")([first, deep, second]))
    data = values(4, 3)
    expected = keras.Model(x, [first, second, third]).predict(data, verbose=0)
    seen = probe(model, ["shared"], data)
    assert list(seen) == ["shared@0", "shared@1", "shared@2"]
    for actual, wanted in zip(seen.values(), expected, strict=True):
        assert_close(actual, wanted)
    assert_close(probe(model, ["shared@2"], data)["shared@2"], expected[2])
    assert_close(probe(model, ["in:shared@2"], data)["in:shared@2"], 2 * data)
    with pytest.raises(UnknownLayerError, match=r"called 3 times, @0 to @2"):
        probe(model, ["shared@3"], data)


def test_layers_of_a_nested_model_that_is_called_twice():
    inner = keras.Input((3,), name="inner")
    encoder = keras.Model(inner, layers.Dense(2, name="code")(inner), name="encoder")
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    a, b = encoder(left), encoder(right)
    model = keras.Model([left, right], layers.Subtract(name="difference")([b, a]))
    x, y = values(4, 3), values(4, 3)
    seen = probe(model, ["encoder/code", "in:difference"], x, y)
    assert_close(seen["encoder/code@0"], encoder.predict(x, verbose=0))
    assert_close(seen["encoder/code@1"], encoder.predict(y, verbose=0))
    assert_close(seen["in:difference:0"], encoder.predict(y, verbose=0))


def test_layers_with_several_outputs():
    x = keras.Input((5, 3), name="x")
    outputs = layers.LSTM(4, return_state=True, name="lstm")(x)
    model = keras.Model(x, outputs[0])
    data = values(2, 5, 3)
    expected = keras.Model(x, outputs).predict(data, verbose=0)
    seen = probe(model, ["lstm", "lstm:2"], data)
    assert list(seen) == ["lstm:0", "lstm:1", "lstm:2"]
    for actual, wanted in zip(seen.values(), expected, strict=True):
        assert_close(actual, wanted)
    with pytest.raises(UnknownLayerError, match=r"gives 3 tensors, :0 to :2"):
        probe(model, ["lstm:3"], data)


def test_what_runs_inside_a_loop_is_refused_by_name():
    x = keras.Input((50, 3), name="x")
    model = keras.Model(x, layers.LSTM(4, name="lstm")(x))
    with pytest.raises(UnrecordableLayerError, match="'lstm/lstm_cell.*once per step of a loop"):
        probe(model, ["lstm/lstm_cell"], values(2, 50, 3))
    with pytest.raises(UnrecordableLayerError, match="'pre:lstm' cannot be recorded"):
        probe(model, ["pre:lstm"], values(2, 50, 3))


def test_sequential_by_name_and_by_index():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")])
    x = values(3, 6)
    expected = model.layers[0](x).numpy()
    seen = probe(model, ["#0", "#-1", "in:b"], x)
    assert list(seen) == ["a", "b", "in:b"]
    assert_close(seen["a"], expected)
    assert_close(seen["in:b"], expected)
    assert_close(seen["b"], model.predict(x, verbose=0))


def test_subclassed_models_with_blocks_of_their_own():
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4, name="dense")

        def call(self, x):
            return self.dense(x) + 1.0

    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [Block(name="one"), Block(name="two")]
            self.head = layers.Dense(2, activation="tanh", name="head")

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    model = Network()
    x = values(3, 5)
    model(x)
    seen = probe(model, ["one", "two/dense", "pre:head", "output"], x)
    one = model.blocks[0](x)
    assert_close(seen["one"], one.numpy())
    assert_close(seen["two/dense"], model.blocks[1].dense(one).numpy())
    assert_close(np.tanh(seen["pre:head"]), model(x).numpy())
    assert_close(seen["output"], model(x).numpy())


def test_siblings_of_the_same_name_are_kept_apart():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(2, name="d"), layers.Dense(3, name="d")

        def call(self, x):
            return self.second(self.first(x))

    model = Twins()
    x = values(2, 4)
    model(x)
    assert [layer.address for layer in describe_model(model)] == ["d", "d~2"]
    assert probe(model, ["d~2"], x)["d~2"].shape == (2, 3)


def test_bare_operations_are_tapped_like_layers():
    x = keras.Input((3,), name="x")
    doubled = x * 2.0
    model = keras.Model(x, layers.Dense(2, name="d")(doubled))
    name = doubled._keras_history.operation.name
    data = values(2, 3)
    assert_close(probe(model, [name], data)[name], 2 * data)


def test_a_layer_that_the_model_does_not_call_is_refused():
    class Lazy(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(2, name="used"), layers.Dense(2, name="unused")
            self.unused.build((None, 3))

        def call(self, x):
            return self.used(x)

    model = Lazy()
    x = values(1, 3)
    model(x)
    with pytest.raises(UnrecordableLayerError, match="'unused' cannot be recorded: it is not called"):
        probe(model, ["unused"], x)


def test_a_value_without_a_batch_axis_is_refused():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.ops.sum(layers.Dense(2, name="d")(x)))
    with pytest.raises(UnrecordableLayerError, match="has no batch axis"):
        probe(model, ["output"], values(4, 3))


def test_training_mode_drops_out_and_a_seed_repeats_it():
    x = keras.Input((400,), name="x")
    model = keras.Model(x, layers.Dropout(0.5, name="drop")(x))
    data = np.ones((2, 400), "float32")
    assert (probe(model, ["drop"], data)["drop"] == 1).all()
    first = probe(model, ["drop"], data, how=Computing(training=True, seed=7))["drop"]
    again = probe(model, ["drop"], data, how=Computing(training=True, seed=7))["drop"]
    other = probe(model, ["drop"], data, how=Computing(training=True, seed=8))["drop"]
    assert set(np.unique(first)) == {0.0, 2.0}
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_training_mode_normalises_with_the_statistics_of_the_batch():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.BatchNormalization(name="bn", epsilon=1e-3)(x))
    data = values(64, 3) * 3 + 1
    expected = (data - data.mean(0)) / np.sqrt(data.var(0) + 1e-3)
    np.testing.assert_allclose(
        probe(model, ["bn"], data, how=Computing(training=True))["bn"], expected, atol=1e-5
    )
