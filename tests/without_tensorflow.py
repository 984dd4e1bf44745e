"""The Keras engine on JAX, in a process where TensorFlow cannot be imported; `test_keras_jax.py` starts it.

A process has one backend of Keras, so these tests cannot be collected with the others. References are Keras's
own `predict` on JAX, NumPy, and what the TensorFlow engine gave (EXPECTED, a folder of .npz files).
"""

# ruff: noqa: E402
# TensorFlow has to be out of reach before anything imports Keras.

import importlib.abc
import os
import sys
from pathlib import Path

import numpy as np
import pytest


class NoTensorFlow(importlib.abc.MetaPathFinder):
    """Makes TensorFlow a package that is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")


sys.meta_path.insert(0, NoTensorFlow())

import layerprobe
from layerprobe import cli
from layerprobe.engines.device import keras_backend

BACKEND = keras_backend()

import keras
from keras import layers

from layerprobe.engines.keras_jax import KerasJaxEngine
from layerprobe.engines.tracing import model_inputs
from layerprobe.errors import ResourceError, UnavailableError, UnrecordableLayerError, UsageError
from layerprobe.modelfile.select import select
from layerprobe.options import Computing, Finish
from layerprobe.records import TensorSpec
from layerprobe.reductions import finished
from layerprobe.taps import describe_model, find_layers

SAMPLES = Path(__file__).parent.parent / "sample_models"
EXPECTED = Path(os.environ["EXPECTED"])
RANDOM = np.random.default_rng(0)


def engine_of(model, texts, rows=4, **options):
    options = {"inputs": model_inputs(model), "batch_size": rows} | options
    return KerasJaxEngine(model, select(texts, describe_model(model)), **options)


def values(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = max(float(np.abs(expected).max()), 1e-30)
    assert float(np.abs(actual - expected).max()) / scale < tolerance


def test_where_there_is_no_tensorflow_keras_runs_on_jax():
    assert BACKEND == "jax"
    assert "KERAS_BACKEND" in os.environ
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("stored", sorted(EXPECTED.glob("*.npz")), ids=lambda path: path.stem)
def test_every_layer_of_the_sample_models_equals_the_tensorflow_engine(stored):
    expected = dict(np.load(stored))
    arrays = [expected.pop(f"given{number}") for number in range(2) if f"given{number}" in expected]
    custom = {}
    if stored.stem == "subclassed_shapes.keras":
        sys.path.insert(0, str(SAMPLES))
        from subclassed_shapes import ShapeClassifier

        custom = {"ShapeClassifier": ShapeClassifier}
    probe = layerprobe.Probe(SAMPLES / stored.stem, list(expected), engine="keras", custom_objects=custom)
    seen = probe(arrays if len(arrays) > 1 else arrays[0])
    assert list(seen) == list(expected)
    for name, wanted in expected.items():
        assert_close(seen[name], wanted)


def test_extract_pools_and_casts_as_numpy_does(tmp_path):
    images, query = SAMPLES / "two_inputs_images.npy", SAMPLES / "two_inputs_query.npy"
    given = {"image": [str(images)], "query": [str(query)]}
    stored = {}
    for pool, dtype in [("none", "float32"), ("gap", "float16"), ("gmp", "float32"), ("flatten", "float16")]:
        output = tmp_path / f"{pool}.npz"
        report = layerprobe.extract(
            SAMPLES / "two_inputs.keras", given, ["conv1", "present"], output,
            engine="keras", pool=pool, dtype=dtype, batch_size=5,
        )  # fmt: skip
        assert (report.rows, report.failed) == (12, 0)
        stored[pool] = dict(np.load(output))
    maps = stored["none"]["conv1"]
    np.testing.assert_allclose(stored["gap"]["conv1"], maps.mean((1, 2)), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(stored["gmp"]["conv1"], maps.max((1, 2)))
    np.testing.assert_array_equal(stored["flatten"]["conv1"], maps.reshape(12, -1).astype("float16"))
    for found in stored.values():
        np.testing.assert_allclose(found["present"], stored["none"]["present"], rtol=1e-3, atol=1e-7)


@pytest.fixture(scope="module")
def maps():
    """A model of one layer that gives its input back, (4, 5, 6, 3), and such an input."""
    x = keras.Input((5, 6, 3), name="x")
    return keras.Model(x, layers.Activation("linear", name="seen")(x)), values(4, 5, 6, 3)


@pytest.mark.parametrize("dtype", ["float32", "float16", None])
@pytest.mark.parametrize("pool", ["none", "flatten", "gap", "gmp"])
def test_each_reduction_and_type_on_the_device_equals_numpys(maps, pool, dtype):
    model, x = maps
    finish = Finish(pool, dtype)
    seen = engine_of(model, ["seen"], how=Computing(finish=finish)).run([x])["seen"]
    expected, _ = finished(x, -1, finish)
    assert_close(seen, expected, 1e-6 if dtype != "float16" else 1e-3)


def test_sums_over_large_maps_stay_near_float64():
    x = keras.Input((224, 224, 2), name="x")
    model = keras.Model(x, layers.Activation("linear", name="seen")(x))
    maps = np.maximum(values(1, 224, 224, 2), 0)
    engine = engine_of(model, ["seen"], rows=1, how=Computing(finish=Finish("gap")))
    exact = maps.astype("float64").mean((1, 2))
    np.testing.assert_allclose(engine.run([maps])["seen"], exact, rtol=1e-6)


def test_what_the_cast_made_infinite_is_counted_without_padding_and_what_was_infinite_before(maps):
    model, x = maps
    engine = engine_of(model, ["seen"], how=Computing(finish=Finish(dtype="float16")))
    large = x.copy()
    large[0, 0, 0] = [1e5, np.inf, -1e6]
    large[2, 1, 1] = 7e4
    engine.run([large[:3]])
    assert engine.overflowed == {"seen": 5}
    engine.run([x])
    assert engine.overflowed == {}


def test_a_short_batch_gives_the_same_numbers_as_a_full_one():
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(40, name="d")(x))
    engine, x = engine_of(model, ["d"]), values(4, 6)
    np.testing.assert_array_equal(engine.run([x[:1]])["d"], engine.run([x])["d"][:1])
    assert len(engine._compiled) == 1
    before = engine.run([x])["d"]
    assert before.flags.writeable
    model.get_layer("d").bias.assign(np.ones(40))
    np.testing.assert_allclose(engine.run([x])["d"], before + 1, atol=1e-6)
    free = engine_of(model, ["d"], rows=None)
    np.testing.assert_allclose(free.run([x[:3]])["d"], before[:3] + 1, atol=1e-6)


def test_shared_calls_and_several_outputs():
    shared = layers.Dense(3, name="shared")
    x = keras.Input((5, 3), name="x")
    states = layers.LSTM(3, return_state=True, name="lstm")(shared(x))
    model = keras.Model(x, shared(states[0]))
    data = values(4, 5, 3)
    seen = engine_of(model, ["shared@1", "lstm", "in:lstm"]).run([data])
    expected = keras.Model(x, [model.outputs[0], *states]).predict(data, verbose=0)
    for actual, wanted in zip(seen.values(), expected, strict=False):
        assert_close(actual, wanted)
    kernel, bias = shared.get_weights()
    assert_close(seen["in:lstm"], data @ kernel + bias)


def test_what_runs_inside_a_loop_is_refused_by_name():
    x = keras.Input((50, 3), name="x")
    model = keras.Model(x, layers.LSTM(4, name="lstm")(x))
    with pytest.raises(UnrecordableLayerError, match="'lstm/lstm_cell.*once per step of a loop"):
        engine_of(model, ["lstm/lstm_cell"])


def test_random_layers_move_on_and_equal_seeds_give_equal_runs():
    x = keras.Input((50,), name="x")
    model = keras.Model(x, layers.Dropout(0.5, name="drop")(x))
    data = np.ones((8, 50), "float32")

    def twice(seed):
        engine = engine_of(model, ["drop"], how=Computing(training=True, seed=seed))
        return [engine.run([data])["drop"] for _ in range(2)]

    first, again, other = twice(7), twice(7), twice(8)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])


def test_bfloat16_computes_near_float32_and_leaves_the_model_as_it_was():
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(16, 3, activation="relu", name="conv")(x)
    model = keras.Model(x, layers.Dense(5, name="dense")(layers.Flatten()(y)))
    data = values(4, 8, 8, 3)
    exact = engine_of(model, ["conv", "dense"]).run([data])
    engine = engine_of(model, ["conv", "dense"], how=Computing(precision="bfloat16"))
    for name, rough in engine.run([data]).items():
        assert_close(rough, exact[name], 0.02)
        assert not np.array_equal(rough, exact[name])
    assert engine.describe()["precision"] == "bfloat16"
    assert {layer.compute_dtype for layer in find_layers(model).values()} == {"float32"}


def test_a_tensor_that_nobody_has_the_memory_for_is_refused_before_it_is_computed():
    x = keras.Input((4, 4, 3), name="x")
    model = keras.Model(x, layers.GlobalAveragePooling2D(name="mean")(layers.UpSampling2D(20_000)(x)))
    with pytest.raises(ResourceError, match=r"would need 71.5 GiB per image"):
        engine_of(model, ["mean"])


def test_too_little_memory_for_a_batch_asks_for_smaller_ones(maps, monkeypatch):
    import jax

    model, x = maps
    engine = engine_of(model, ["seen"])

    def exhausted(*_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."
        )

    monkeypatch.setitem(engine._compiled, 4, exhausted)
    with pytest.raises(ResourceError, match="a batch of 3 rows: give a smaller --batch-size"):
        engine.run([x[:3]])


def test_inputs_that_do_not_fit_are_a_usage_error():
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(2)(x))
    with pytest.raises(UsageError, match=r"cannot take inputs of shape \('rows', 5\)"):
        engine_of(model, ["output"], inputs=[TensorSpec("x", (5,), "float32")])


def test_a_gpu_that_is_not_there_is_told_in_one_sentence(capfd, monkeypatch):
    image = str(SAMPLES / "images" / "star_09.png")
    model = str(SAMPLES / "vgg_shapes.h5")
    arguments = ["layerprobe", "extract", model, "-l", "conv5_3", image, "--device", "gpu", "-o", "no.npz"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert cli.run() == 69
    said = capfd.readouterr().err
    assert said.startswith(
        "layerprobe: Keras sees no GPU here, so device gpu cannot be had: leave --device out"
    )
    assert said.count("\n") == 1
    assert not Path("no.npz").exists()


def test_free_sizes_stay_free_in_the_shapes_of_layers(tmp_path):
    x = keras.Input((None, None, 3), name="x")
    y = layers.Conv2D(2, 3, strides=2, name="c")(x)
    keras.Model(x, layers.GlobalMaxPooling2D(name="m")(y)).save(tmp_path / "free.keras")
    found = {layer.address: layer.shapes for layer in layerprobe.layers(tmp_path / "free.keras", shapes=True)}
    assert found == {"x": ((None, None, 3),), "c": ((None, None, 2),), "m": ((2,),)}


def test_function_says_that_it_needs_tensorflow():
    with pytest.raises(UnavailableError, match=r"function\(\) needs TensorFlow"):
        _ = layerprobe.function


def test_an_index_outside_its_table_is_told_as_the_graph_engine_does():
    x = keras.Input((3,), dtype="int32", name="x")
    model = keras.Model(x, layers.Embedding(5, 2, name="words")(x))
    engine = engine_of(model, ["words"], how=Computing(finish=Finish(dtype="float16")))
    table = model.get_layer("words").get_weights()[0]
    good = np.array([[0, 4, 1], [2, 3, -1]], "int32")
    np.testing.assert_allclose(engine.run([good])["words"], table[good], rtol=1e-3)
    for index in (5, -6):
        with pytest.raises(UsageError, match=rf"layer 'words' cannot look up index {index}: its table has 5"):
            engine.run([np.array([[0, 1, 2], [0, index, 0]], "int32")])


def test_a_table_inside_a_loop_is_looked_up_unwatched():
    x = keras.Input((4, 3), dtype="int32", name="x")
    model = keras.Model(x, layers.TimeDistributed(layers.Embedding(5, 2, name="words"), name="each")(x))
    data = RANDOM.integers(0, 5, (2, 4, 3)).astype("int32")
    assert_close(engine_of(model, ["each"]).run([data])["each"], model.predict(data, verbose=0))


def test_too_little_memory_for_the_weights_is_told(monkeypatch):
    import jax

    def exhausted(*_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."
        )

    monkeypatch.setattr(keras.Variable, "assign", exhausted)
    probe = layerprobe.Probe(SAMPLES / "vgg_shapes.h5", ["conv5_3"], engine="keras")
    with pytest.raises(ResourceError, match="not enough memory to build the model"):
        probe(np.zeros((1, 112, 112, 3)))


def test_a_masked_decoder_of_a_keras_2_file_is_refused_by_name():
    probe = layerprobe.Probe(EXPECTED / "decoder.h5", ["decoder"], engine="keras")
    with pytest.raises(UnavailableError, match=r"layer 'decoder' has a mask and a first state"):
        probe([np.ones((2, 7)), np.ones((2, 5))])
