"""Reductions and casts inside the compiled TensorFlow function, against those of NumPy."""

import numpy as np
import pytest

from layerprobe.engines.keras_tensorflow import KerasTensorFlowEngine
from layerprobe.engines.tracing import KerasFunctions, model_inputs
from layerprobe.errors import UsageError
from layerprobe.options import Computing, Finish
from layerprobe.records import Tap, TensorSpec
from layerprobe.reductions import finished

pytestmark = pytest.mark.slow

keras = pytest.importorskip("keras")
RANDOM = np.random.default_rng(2)
SHAPES = [(2, 3, 5, 4), (2, 7, 4), (2, 4), (2,), (1, 2, 3, 4, 5), (3, 1, 1, 6)]
TOLERANCE = {"float16": 1e-3, "bfloat16": 1e-2}


def engine_of(model, finish, **options):
    options = {"inputs": model_inputs(model), "batch_size": 4, "how": Computing(finish=finish)} | options
    return KerasTensorFlowEngine(model, [Tap("seen")], **options)


@pytest.fixture(scope="module")
def identity():
    x = keras.Input((5, 6, 3), name="x")
    return keras.Model(x, keras.layers.Activation("linear", name="seen")(x))


@pytest.mark.parametrize("pool", ["none", "flatten", "gap", "gmp"])
@pytest.mark.parametrize("channel_axis", [-1, 0])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "uint8", "bool"])
def test_each_reduction_of_each_type_equals_numpys(pool, channel_axis, dtype):
    for shape in SHAPES:
        host = (RANDOM.random(shape) * 9).astype(keras.ops.cast(np.zeros(1), dtype).numpy().dtype)
        for stored in ("float32", "float16", None):
            finish = Finish(pool, stored)
            expected, _ = finished(host, channel_axis, finish)
            seen, _ = finished(keras.ops.convert_to_tensor(host), channel_axis, finish, KerasFunctions)
            assert (seen.shape, seen.numpy().dtype) == (expected.shape, expected.dtype)
            tolerance = max(TOLERANCE.get(dtype, 1e-6), TOLERANCE.get(stored, 1e-6))
            np.testing.assert_allclose(
                seen.numpy().astype("f8"), expected.astype("f8"), rtol=tolerance, atol=1e-6
            )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pool", ["none", "flatten", "gap", "gmp"])
def test_what_the_engine_finishes_equals_what_the_host_would(identity, pool, dtype):
    x = RANDOM.normal(size=(3, 5, 6, 3)).astype("float32")
    finish = Finish(pool, dtype)
    engine = engine_of(identity, finish)
    seen = engine.run([x])["seen"]
    expected, _ = finished(x, -1, finish)
    assert (engine.finish, seen.dtype) == (finish, expected.dtype)
    np.testing.assert_allclose(seen, expected, rtol=TOLERANCE.get(dtype, 1e-6), atol=1e-6)
    assert engine.outputs[0].shape == (5, 6, 3), "what the layer gives, for the plan"


def test_only_what_is_kept_leaves_the_compiled_function(identity):
    engine = engine_of(identity, Finish("gap", "float16"))
    assert [(tensor.shape, tensor.dtype.name) for tensor in engine._compiled.outputs] == [
        ((4, 3), "float16"),
        ((4,), "int32"),
    ]


def test_what_the_cast_made_infinite_is_counted_without_padding_and_what_was_infinite_before(identity):
    engine = engine_of(identity, Finish(dtype="float16"))
    large = RANDOM.normal(size=(3, 5, 6, 3)).astype("float32")
    small = large.copy()
    large[0, 0, 0] = [1e5, np.inf, -1e6]
    large[2, 1, 1] = 7e4
    engine.run([large])
    assert engine.overflowed == {"seen": 5}
    engine.run([small])
    assert engine.overflowed == {}


def test_sizes_that_only_a_run_can_tell_are_reduced_too():
    x = keras.Input((None, None, 3), name="x")
    model = keras.Model(x, keras.layers.Conv2D(2, 3, strides=2, name="seen")(x))
    image = RANDOM.normal(size=(4, 9, 11, 3)).astype("float32")
    maps = model.predict(image, verbose=0)
    for pool in ("flatten", "gap", "gmp"):
        expected, _ = finished(maps, -1, Finish(pool))
        for rows in (4, None):
            engine = engine_of(
                model, Finish(pool), inputs=[TensorSpec("x", (9, 11, 3), "float32")], batch_size=rows
            )
            assert engine.outputs[0].shape == (4, 5, 2)
            np.testing.assert_allclose(engine.run([image])["seen"], expected, rtol=1e-5, atol=1e-6)


def test_maps_without_positions_cannot_be_pooled():
    x = keras.Input((0, 3), name="x")
    model = keras.Model(x, keras.layers.Activation("linear", name="seen")(x))
    with pytest.raises(UsageError, match=r"shape \(0, 3\) have no positions to pool over"):
        engine_of(model, Finish("gap"))


def test_bfloat16_computes_near_float32_and_leaves_the_model_as_it_was():
    x = keras.Input((8, 8, 3), name="x")
    y = keras.layers.Conv2D(16, 3, activation="relu", name="conv")(x)
    y = keras.layers.BatchNormalization(name="bn")(y)
    model = keras.Model(x, keras.layers.Dense(5, name="seen")(keras.layers.Flatten()(y)))
    data = RANDOM.normal(size=(4, 8, 8, 3)).astype("float32")
    exact = engine_of(model, None).run([data])["seen"]
    engine = engine_of(model, None, how=Computing(precision="bfloat16"))
    rough = engine.run([data])["seen"]
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() / np.abs(exact).max() < 0.02
    assert engine.describe()["precision"] == "bfloat16"
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert "bfloat16" in {
        tensor.dtype.name for op in engine._compiled.graph.get_operations() for tensor in op.outputs
    }


def test_indices_are_watched_where_the_device_lets_them_pass(monkeypatch):
    from layerprobe.engines import keras_tensorflow as module

    x = keras.Input((3,), dtype="int32", name="x")
    model = keras.Model(x, keras.layers.Embedding(5, 2, name="seen")(x))
    monkeypatch.setattr(module.tf.config, "get_visible_devices", lambda kind: ["a GPU"])
    monkeypatch.setattr(module.KerasTensorFlowEngine, "prepare", lambda self, device: None)
    engine = engine_of(model, Finish(dtype="float16"))
    good = np.array([[0, 4, 1]], "int32")
    np.testing.assert_allclose(engine.run([good])["seen"], model.predict(good, verbose=0), rtol=1e-3)
    assert engine._compiled.outputs[-1].shape == (2,)
    with pytest.raises(UsageError, match="layer 'seen' cannot look up index 7: its table has 5 entries"):
        engine._trace.read([np.zeros((4, 3, 2)), np.zeros(4), np.array([0, 7])], 1)
