"""The reference engine: what it computes, for which inputs, and what it leaves out."""

import numpy as np
import pytest

from layerprobe.engines.keras_tensorflow import KerasTensorFlowEngine
from layerprobe.engines.tracing import fixed_batch_size, model_inputs
from layerprobe.errors import UsageError
from layerprobe.options import Computing
from layerprobe.records import Tap, TensorSpec
from layerprobe.taps import find_layers

pytestmark = pytest.mark.slow

keras = pytest.importorskip("keras")
RANDOM = np.random.default_rng(1)


@pytest.fixture(scope="module")
def dense():
    x = keras.Input((6,), name="x")
    return keras.Model(x, keras.layers.Dense(40, name="d")(x))


def engine_of(model, **options):
    options = {"inputs": model_inputs(model), "batch_size": 4} | options
    return KerasTensorFlowEngine(model, [Tap("")], **options)


def test_a_short_batch_gives_the_same_numbers_as_a_full_one(dense):
    x = RANDOM.normal(size=(4, 6)).astype("float32")
    engine = engine_of(dense)
    np.testing.assert_array_equal(engine.run([x[:1]])["output"], engine.run([x])["output"][:1])
    assert engine.run([x[:3]])["output"].shape == (3, 40)


def test_without_a_batch_size_any_number_of_rows_runs_without_tracing_again(dense):
    engine = engine_of(dense, batch_size=None)
    for rows in (1, 5, 2):
        x = RANDOM.normal(size=(rows, 6)).astype("float32")
        expected = x @ dense.get_layer("d").kernel.numpy()
        np.testing.assert_allclose(engine.run([x])["output"], expected, atol=1e-6)


def test_a_seed_that_was_drawn_gives_the_same_run_again(dense):
    x = keras.Input((50,), name="x")
    model = keras.Model(x, keras.layers.Dropout(0.5)(x))
    data = np.ones((4, 50), "float32")
    drawn = engine_of(model, how=Computing(training=True))
    first = drawn.run([data])["output"]
    again = engine_of(model, how=Computing(training=True, seed=drawn.describe()["seed"]))
    np.testing.assert_array_equal(first, again.run([data])["output"])
    assert "seed" not in engine_of(dense).describe()


def test_what_run_gives_is_the_callers(dense):
    x = np.ones((2, 6), "float32")
    engine = engine_of(dense)
    mine = engine.run([x])["output"]
    kept = mine.copy()
    engine.run([2 * x])
    np.testing.assert_array_equal(mine, kept)
    mine += 1


def test_changed_weights_are_seen(dense):
    engine = engine_of(dense)
    x = np.ones((1, 6), "float32")
    before = engine.run([x])["output"]
    dense.get_layer("d").bias.assign_add(np.ones(40))
    np.testing.assert_allclose(engine.run([x])["output"], before + 1, atol=1e-6)


def test_sizes_that_only_a_run_can_tell_are_learnt():
    x = keras.Input((None, None, 3), name="x")
    model = keras.Model(x, keras.layers.Conv2D(2, 3, strides=2, name="c")(x))
    engine = engine_of(model, inputs=[TensorSpec("x", (9, 11, 3), "float32")])
    assert engine.outputs[0].shape == (4, 5, 2)


def test_several_inputs_in_a_dict_go_to_their_own_names():
    inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((2,), name="a")}
    model = keras.Model(inputs, inputs["b"] - 10 * inputs["a"])
    specs = model_inputs(model)
    arrays = {"a": np.full((1, 2), 1.0, "float32"), "b": np.full((1, 2), 2.0, "float32")}
    out = engine_of(model).run([arrays[spec.name] for spec in specs])["output"]
    np.testing.assert_array_equal(out, [[-8.0, -8.0]])


def test_a_batch_size_that_the_model_fixes_is_found(dense):
    x = keras.Input(batch_shape=(7, 3))
    assert fixed_batch_size(keras.Model(x, keras.layers.Dense(1)(x))) == 7
    assert fixed_batch_size(dense) is None


def test_inputs_that_do_not_fit_are_a_usage_error(dense):
    with pytest.raises(UsageError, match=r"cannot take inputs of shape \('rows', 5\)"):
        engine_of(dense, inputs=[TensorSpec("x", (5,), "float32")])


def test_channels_first_layers_say_so():
    x = keras.Input((3, 8, 8), name="x")
    model = keras.Model(x, keras.layers.MaxPooling2D(2, data_format="channels_first", name="p")(x))
    engine = KerasTensorFlowEngine(model, [Tap("p")], inputs=model_inputs(model), batch_size=1)
    assert (engine.outputs[0].shape, engine.outputs[0].channel_axis) == ((3, 4, 4), 0)


def test_layers_that_are_not_asked_for_are_not_computed(dense):
    x = keras.Input((6,), name="x")
    y = keras.layers.Dense(3, name="early")(x)
    late = keras.layers.Dense(4000, name="late2")(keras.layers.Dense(4000, name="late")(y))
    model = keras.Model(x, late)
    engine = KerasTensorFlowEngine(model, [Tap("early")], inputs=model_inputs(model), batch_size=1)
    assert "early" in {layer.name for layer in find_layers(model).values()}
    matmuls = [op for op in engine._compiled.graph.get_operations() if op.type == "MatMul"]
    used = set()
    pending = [tensor.op for tensor in engine._compiled.outputs]
    while pending:
        operation = pending.pop()
        if operation not in used:
            used.add(operation)
            pending += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    assert len([op for op in matmuls if op in used]) == 1
