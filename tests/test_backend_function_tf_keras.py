"""Backend functions against `tf_keras.backend.function`, which still is what `K.function` was."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from layerprobe.backend_function import function, symbolic_gradients

pytestmark = pytest.mark.slow
tf_keras = pytest.importorskip("tf_keras")
K = tf_keras.backend

IMAGES = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
ROWS = np.random.default_rng(1).random((5, 6)).astype("float32")


def network(package):
    """The same model of either package."""
    layers = package.layers
    image = package.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv1")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, name="conv2")(x)
    x = layers.Dropout(0.5, name="drop")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = package.Model(image, layers.Dense(4, activation="softmax", name="predictions")(x))
    rng = np.random.default_rng(2)
    model.set_weights([rng.random(weight.shape) for weight in model.get_weights()])
    return model


def linear(package, **options):
    """A dense layer of either package, with the same weights."""
    x = package.Input((6,), **options)
    model = package.Model(x, package.layers.Dense(2)(x))
    model.set_weights([np.arange(12).reshape(6, 2) / 10, np.array([1.0, -1.0])])
    return model


def agree(ours, theirs) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_every_layer_is_equal_in_one_call() -> None:
    ours, theirs = network(keras), network(tf_keras)
    names = [layer.name for layer in ours.layers[1:]]
    assert len(names) == 6
    got = function([ours.input], [ours.get_layer(name).output for name in names])([IMAGES])
    expected = K.function([theirs.input], [theirs.get_layer(name).output for name in names])([IMAGES])
    for mine, its in zip(got, expected, strict=True):
        agree(mine, its)


@pytest.mark.parametrize(
    "arrange", [lambda a, b: a, lambda a, b: [a], lambda a, b: [b, a], lambda a, b: {"z": a, "b": b}]
)
def test_outputs_come_back_in_the_same_structure(arrange) -> None:
    results = []
    for package, make in ((keras, function), (tf_keras, K.function)):
        model = network(package)
        outputs = arrange(model.output, model.get_layer("pool").output)
        results.append(make([model.input], outputs)([IMAGES]))
    ours, theirs = results
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    for mine, its in zip(ours, theirs, strict=True):
        agree(mine, its)


def test_a_tensor_from_the_middle_gives_the_same_output() -> None:
    middle = np.random.default_rng(3).random((2, 4))
    ours, theirs = network(keras), network(tf_keras)
    agree(
        function([ours.get_layer("pool").output], [ours.output])([middle])[0],
        K.function([theirs.get_layer("pool").output], [theirs.output])([middle])[0],
    )


def test_a_call_made_with_training_true_is_in_training_in_both() -> None:
    results = []
    for package, make in ((keras, function), (tf_keras, K.function)):
        x = package.Input((6,))
        y = package.layers.BatchNormalization(epsilon=0)(x, training=True)
        results.append(make([x], [y])([ROWS])[0])
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(results[0].mean(axis=0), 0, atol=1e-5)


def test_running_sums_are_equal_after_each_call() -> None:
    parts = ROWS[:2], ROWS[2:]
    with tf.Graph().as_default():  # where tf_keras allows updates
        theirs = linear(tf_keras)
        total, calls = K.variable(np.zeros(2)), K.variable(0.0)
        updates = [(total, total + K.sum(theirs.output, axis=0)), K.update_add(calls, 1)]
        add = K.function(theirs.inputs, [theirs.output, calls], updates=updates)
        expected = [[add([part])[0], K.get_value(total), K.get_value(calls)] for part in parts]

    ours = linear(keras)
    total, calls = keras.Variable(np.zeros(2)), keras.Variable(0.0)
    sums = keras.ops.add(total, keras.ops.sum(ours.output, axis=0))
    add = function(ours.inputs, [ours.output, calls], updates=[(total, sums), lambda: calls.assign_add(1)])
    for part, wanted in zip(parts, expected, strict=True):
        for mine, its in zip([add([part])[0], total.numpy(), calls.numpy()], wanted, strict=True):
            agree(mine, its)


def test_training_steps_move_the_weights_alike() -> None:
    with tf.Graph().as_default():
        theirs = linear(tf_keras)
        loss = K.mean(K.square(theirs.output))
        pairs = zip(theirs.trainable_weights, K.gradients(loss, theirs.trainable_weights), strict=True)
        step = K.function(theirs.inputs, [loss], updates=[(w, w - 0.1 * g) for w, g in pairs])
        expected = [[*step([ROWS]), *theirs.get_weights()] for _ in range(3)]

    ours = linear(keras)
    loss = keras.ops.mean(keras.ops.square(ours.output))
    pairs = zip(ours.trainable_weights, symbolic_gradients(loss, ours.trainable_weights), strict=True)
    step = function(ours.inputs, [loss], updates=[(w, keras.ops.subtract(w, 0.1 * g)) for w, g in pairs])
    for wanted in expected:
        for mine, its in zip([*step([ROWS]), *ours.get_weights()], wanted, strict=True):
            agree(mine, its)


def test_sparse_values_give_what_tf_keras_gives_for_them() -> None:
    matrix = scipy.sparse.random(5, 6, 0.4, format="csr", random_state=0)
    entries = matrix.tocoo()
    with tf.Graph().as_default():
        theirs = linear(tf_keras, sparse=True)
        value = tf.compat.v1.SparseTensorValue(
            np.stack([entries.row, entries.col], 1), entries.data, np.array(entries.shape)
        )
        expected = K.function(theirs.inputs, [theirs.output])([value])[0]
    ours = linear(keras, sparse=True)
    compute = function(ours.inputs, [ours.output, keras.ops.multiply(ours.inputs[0], 2)])
    doubled = scipy.sparse.coo_matrix(  # each entry in two halves
        (np.tile(entries.data / 2, 2), (np.tile(entries.row, 2), np.tile(entries.col, 2))), entries.shape
    )
    for given in (
        matrix,
        matrix.tocsc(),
        entries,
        doubled,
        matrix.toarray(),
        tf.sparse.from_dense(matrix.toarray()),
    ):
        output, sparse_output = compute([given])
        agree(output, expected)
        agree(sparse_output, 2 * matrix.toarray())
    dense = linear(keras)
    agree(function(dense.inputs, dense.output)([matrix]), expected)
    with pytest.raises(ValueError, match=r"shape \(None, 6\).*\(5, 3\)"):
        compute([matrix[:, :3]])


def test_what_tf_keras_refuses_is_refused_with_the_same_kind_of_exception() -> None:
    ours = linear(keras)
    with tf.Graph().as_default():
        theirs = linear(tf_keras)
        for options in ({"updates": 3}, {"no_such_option": 1}):
            with pytest.raises(Exception) as expected:  # noqa: PT011
                K.function(theirs.inputs, [theirs.output], **options)
            with pytest.raises(expected.type) as got:
                function(ours.inputs, [ours.output], **options)
            assert next(iter(options)) in str(got.value)
            assert next(iter(options)) in str(expected.value)
