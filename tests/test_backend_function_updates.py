"""Backend functions that change variables, differentiate, and choose the phase."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from layerprobe.backend_function import function, learning_phase, symbolic_gradients
from layerprobe.errors import UsageError

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(0).random((4, 3)).astype("float32")


def regression() -> keras.Model:
    x = keras.Input((3,), name="x")
    hidden = layers.Dense(4, "tanh", name="hidden")(x)
    return keras.Model(x, layers.Dense(1, name="price")(hidden))


# Updates


def test_a_running_mean_over_calls_is_the_mean_over_all_rows() -> None:
    model = regression()
    hidden = model.get_layer("hidden").output
    total, count = keras.Variable(np.zeros(4)), keras.Variable(0.0)
    rows = ops.sum(ops.ones_like(hidden[:, 0]))
    add = function(
        model.inputs,
        [total, count],
        updates=[(total, ops.add(total, ops.sum(hidden, axis=0))), (count, rows + count)],
    )
    before = [add([part])[1] for part in (ROWS[:1], ROWS[1:3], ROWS[3:])]
    assert before == [0, 1, 3]  # outputs are read before the updates
    expected = np.mean(keras.Model(model.inputs, hidden).predict(ROWS, verbose=0), axis=0)
    np.testing.assert_allclose(total / count, expected, rtol=1e-6)


def test_all_new_values_are_computed_before_the_first_is_assigned() -> None:
    a, b, c = keras.Variable(1.0), keras.Variable(2.0), keras.Variable(3.0)
    x = keras.Input(())
    turn = function([x], [a, b, c], updates=[(a, b), (b, a), (c, ops.sum(x) + a)])
    assert turn([[10]]) == [1, 2, 3]
    assert turn([[20]]) == [2, 1, 11]
    assert turn([[0]]) == [1, 2, 22]


def test_updates_can_be_numbers_arrays_symbolic_tensors_and_callables() -> None:
    x = keras.Input((2,), name="x")
    scalar, vector, calls = keras.Variable(1.0), keras.Variable([1.0, 1.0]), keras.Variable(0)
    run = function(
        [x], [], updates=[(scalar, 5), (vector, [2, 3]), ops.sum(x), lambda: calls.assign_add(1)], name="all"
    )
    assert [run([[[1, 2]]]) for _ in range(3)] == [[], [], []]
    assert float(scalar) == 5
    assert np.asarray(vector).tolist() == [2, 3]
    assert int(calls) == 3
    assert repr(run) == "<BackendFunction 'all' of input 'x'>"


def test_no_update_of_several_threads_is_lost() -> None:
    x = keras.Input(())
    total = keras.Variable(0.0)
    add = function([x], x, updates=[(total, ops.add(total, ops.sum(x)))])
    threads = [threading.Thread(target=lambda: [add([[1]]) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert float(total) == 400


@pytest.mark.parametrize(
    ("update", "kind", "words"),
    [
        (3, TypeError, "`updates` must be a list.*3"),
        ([3], TypeError, "an update must be a .*pair.*3"),
        ([("w", 3)], TypeError, "must be a Keras variable.*'w'"),
        ([(keras.KerasTensor(()), 3)], TypeError, "must be a Keras variable.*KerasTensor"),
        ([(keras.Variable([1.0, 2.0], name="v"), "w")], TypeError, "variable 'v' must be .* numbers.*'w'"),
        ([(keras.Variable([1.0, 2.0], name="v"), 3)], ValueError, r"variable 'v'.*shape, \(2,\).*shape \(\)"),
        ([layers.ReLU()], TypeError, "an update must be .*layer 're_lu"),
    ],
)
def test_updates_that_cannot_be_meant_are_refused_in_a_sentence(update, kind, words) -> None:
    x = keras.Input((2,))
    with pytest.raises(kind, match=words) as caught:
        function([x], [x], updates=update)
    assert "\n" not in str(caught.value)


def test_a_new_value_with_a_batch_axis_does_not_fit_a_variable() -> None:
    x = keras.Input((2,))
    with pytest.raises(UsageError, match=r"shape, \(2,\): reduce it .*Received: shape \(None, 2\)"):
        function([x], [], updates=[(keras.Variable([1.0, 2.0]), x)])


# Gradients


def test_a_training_step_is_one_step_of_gradient_descent() -> None:
    model = regression()
    wanted = keras.Input((1,), name="wanted")
    loss = ops.mean(ops.square(model.output - wanted))
    weights = model.trainable_weights
    pairs = zip(weights, symbolic_gradients(loss, weights), strict=True)
    step = function(
        [model.input, wanted],
        [loss],
        updates=[(w, ops.subtract(w, 0.1 * g)) for w, g in pairs],
    )
    prices = ROWS.sum(axis=1, keepdims=True)
    with tf.GradientTape() as tape:
        expected_loss = tf.reduce_mean((model(ROWS) - prices) ** 2)
    slopes = tape.gradient(expected_loss, [w.value for w in weights])
    expected = [w.numpy() - 0.1 * slope.numpy() for w, slope in zip(weights, slopes, strict=True)]

    losses = step([ROWS, prices])
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(losses, [expected_loss], rtol=1e-6)
    for _ in range(50):
        losses += step([ROWS, prices])
    assert losses[-1] < 0.1 * losses[0]


def test_the_spelling_with_the_tensor_on_the_left_works_too() -> None:
    w = keras.Variable([1.0, 2.0])
    x = keras.Input((2,))
    gradient = symbolic_gradients(ops.sum(ops.multiply(w, x)), w)[0]
    function([x], [], updates=[(w, -0.5 * gradient + w)])([[[2, 4]]])
    assert w.numpy().tolist() == [0, 0]


def test_gradients_through_embeddings_and_recurrent_layers_match_a_tape() -> None:
    model = keras.Sequential([layers.Input((5,)), layers.Embedding(9, 3, mask_zero=True), layers.GRU(2)])
    ids = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    weights = model.trainable_weights
    got = function(model.inputs, symbolic_gradients(ops.sum(model.outputs[0]), weights))([ids])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(ids))
    for value, slope in zip(got, tape.gradient(total, [w.value for w in weights]), strict=True):
        np.testing.assert_allclose(value, tf.convert_to_tensor(slope), rtol=1e-5, atol=1e-7)


def test_gradients_at_a_layer_of_a_nested_model_match_a_tape() -> None:
    image = keras.Input((6, 6, 3))
    conv = layers.Conv2D(4, 3, name="conv")
    inner = keras.Model(image, layers.ReLU()(conv(image)))
    outer = keras.Sequential([layers.Input((6, 6, 3)), layers.Rescaling(0.5), inner, layers.Flatten()])
    outer.add(layers.Dense(3))
    images = np.random.default_rng(0).random((2, 6, 6, 3))
    score = outer.outputs[0][:, 1]
    values, slopes = function(outer.inputs, [conv.output, *symbolic_gradients(score, conv.output)])([images])
    with tf.GradientTape() as tape:
        at = tf.constant(values)
        tape.watch(at)
        expected = outer.layers[-1](layers.Flatten()(tf.nn.relu(at)))[:, 1]
    np.testing.assert_allclose(slopes, tape.gradient(expected, at), rtol=1e-5)


def test_gradients_can_be_differentiated() -> None:
    x = keras.Input((2,))
    first = symbolic_gradients(ops.sum(x**3), x)
    second = symbolic_gradients(ops.sum(first[0]), [x])
    values = function([x], [first, second])([[[1, 2]]])
    assert [value[0].tolist() for value in values] == [[[3, 12]], [[6, 12]]]


def test_a_loss_that_does_not_depend_on_a_variable_is_told_by_name() -> None:
    model = regression()
    other = keras.Variable([1.0], name="other")
    for target, name in (
        (other, "variable 'other'"),
        (ops.stop_gradient(model.output), "operation 'stop_gradient"),
    ):
        compute = function(model.inputs, symbolic_gradients(model.output, [model.input, target]))
        with pytest.raises(UsageError, match=f"no gradient with respect to .*{name}") as caught:
            compute([ROWS])
        assert "\n" not in str(caught.value)


def test_only_symbolic_losses_and_known_kinds_of_variables_are_taken() -> None:
    x = keras.Input((2,))
    with pytest.raises(TypeError, match="loss must be a symbolic tensor.*float"):
        symbolic_gradients(1.0, [x])
    with pytest.raises(TypeError, match="variables must hold.*Dense"):
        symbolic_gradients(x, [layers.Dense(1)])


# The phase


def test_the_learning_phase_is_chosen_at_each_call() -> None:
    x = keras.Input((3,))
    norm = layers.BatchNormalization(epsilon=0, momentum=0.75)
    model = keras.Model(x, norm(x))
    f = function([model.layers[0].input, learning_phase()], [model.layers[-1].output])
    np.testing.assert_allclose(f([ROWS, 0])[0], ROWS, rtol=1e-6)
    mean = ROWS.mean(axis=0)
    np.testing.assert_allclose(f([ROWS, 1])[0], (ROWS - mean) / ROWS.std(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(f([ROWS, False])[0], f([ROWS, 0])[0])


def test_a_call_made_in_training_stays_in_training_inside_and_outside_of_a_nested_model() -> None:
    x = keras.Input((3,))
    norm = layers.BatchNormalization(epsilon=0, momentum=1.0)
    inner = keras.Model(x, layers.ReLU()(norm(x)))
    y = keras.Input((3,))
    outer = keras.Model(y, inner(y, training=True))
    expected = (ROWS - ROWS.mean(axis=0)) / ROWS.std(axis=0)
    for wanted in ([norm.output, outer.output], [outer.output]):
        values = function([y], wanted)([ROWS])
        np.testing.assert_allclose(values[-1], np.maximum(expected, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(function([y], norm.output)([ROWS]), expected, rtol=1e-4, atol=1e-6)


def test_the_outer_call_decides_the_phase_of_the_models_within() -> None:
    x = keras.Input((3,))
    norm = layers.BatchNormalization(epsilon=0)
    inner = keras.Model(x, norm(x))
    y = keras.Input((3,))
    middle = keras.Model(y, inner(y, training=True))
    z = keras.Input((3,))
    outer = keras.Model(z, middle(z, training=False))
    values = function([z], [norm.output, outer.output])([ROWS])
    np.testing.assert_allclose(values, [ROWS, ROWS], rtol=1e-6)


def test_the_training_phase_changes_a_model_only_through_updates():
    x = keras.Input((4,))
    normal = keras.layers.BatchNormalization()
    dropped = keras.layers.Dropout(0.5)(normal(x))
    compute = function([x, learning_phase()], [dropped])
    rows = np.random.default_rng(0).normal(3, 2, (64, 4))
    before = compute([rows, 0])[0]
    first, second = compute([rows, 1])[0], compute([rows, 1])[0]
    np.testing.assert_array_equal(compute([rows, 0])[0], before)
    np.testing.assert_array_equal(normal.moving_mean.numpy(), 0)
    assert (first != second).any(), "random layers move on"
