"""Recurrent layers on the graph engine against Keras: cells, stacks, first states, both ways, images."""

import pytest

from layerprobe.errors import UnavailableError
from layerprobe.probe import Probe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*does not support masking")]

keras = pytest.importorskip("keras")
from graph_reference import RANDOM, assert_outputs_like_keras  # noqa: E402

L = keras.layers
STEPS = RANDOM.normal(size=(3, 6, 4)).astype("float32")
ALL = {"return_sequences": True, "return_state": True}

LAYERS = {
    "bidirectional apart": lambda: L.Bidirectional(L.GRU(3, **ALL), merge_mode=None),
    "bidirectional cells": lambda: L.Bidirectional(L.RNN(L.LSTMCell(3), return_sequences=True)),
    "bidirectional other": lambda: L.Bidirectional(L.LSTM(3), backward_layer=L.GRU(2, go_backwards=True)),
    "gru before": lambda: L.GRU(3, reset_after=False, use_bias=False, **ALL),
    "gru cell": lambda: L.RNN(L.GRUCell(3, recurrent_activation="hard_sigmoid"), **ALL),
    "gru cell before": lambda: L.RNN(L.GRUCell(3, reset_after=False), go_backwards=True, unroll=True),
    "lstm": lambda: L.LSTM(3, unroll=True, activation="relu", **ALL),
    "lstm cell": lambda: L.RNN(L.LSTMCell(3), **ALL),
    "simple": lambda: L.SimpleRNN(3, activation="selu", go_backwards=True, **ALL),
    "simple cell": lambda: L.RNN(L.SimpleRNNCell(3, use_bias=False)),
    "stack": lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2), L.SimpleRNNCell(5)], **ALL),
    "stack last": lambda: L.RNN(L.StackedRNNCells([L.GRUCell(2), L.LSTMCell(3)]), go_backwards=True),
    "stack of one": lambda: L.RNN([L.LSTMCell(3)], **ALL),
    "time distributed model": lambda: L.TimeDistributed(keras.Sequential([L.Dense(3), L.Dense(2)])),
}


@pytest.mark.parametrize("case", LAYERS)
def test_recurrent_layers_equal_keras(case, tmp_path):
    x = keras.Input((6, 4), name="x")
    model = keras.Model(x, LAYERS[case]()(x))
    assert_outputs_like_keras(model, tmp_path / "m.keras", [STEPS])
    assert_outputs_like_keras(model, tmp_path / "m.h5", [STEPS])


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_a_first_state_that_is_given_is_where_they_begin(cell, tmp_path):
    x, state = keras.Input((6, 4), name="x"), keras.Input((3,), name="state")
    states = [state, state * 2.0] if cell == "LSTM" else [state]
    make = getattr(L, cell)
    outputs = [
        *make(3, **ALL)(x, initial_state=states),
        L.Bidirectional(make(3))(x, initial_state=[*states, *states[::-1]]),
        make(3)(x, initial_state=make(3, return_state=True)(x)[1:]),
    ]
    begin = RANDOM.normal(size=(3, 3)).astype("float32")
    assert_outputs_like_keras(keras.Model([x, state], outputs), tmp_path / "m.keras", [STEPS, begin])


def test_a_stack_of_cells_begins_where_it_is_told(tmp_path):
    x, state = keras.Input((6, 4), name="x"), keras.Input((3,), name="state")
    layer = L.RNN([L.LSTMCell(3), L.GRUCell(3)], **ALL)
    model = keras.Model([x, state], layer(x, initial_state=[[state, state * 2.0], state * 3.0]))
    begin = RANDOM.normal(size=(3, 3)).astype("float32")
    assert_outputs_like_keras(model, tmp_path / "m.keras", [STEPS, begin])


IMAGES = {
    "lines": ((4, 7, 3), lambda: L.ConvLSTM1D(2, 3, padding="same", dilation_rate=2, **ALL)),
    "images": ((4, 5, 6, 3), lambda: L.ConvLSTM2D(2, (2, 3), **ALL)),
    "images backwards": ((4, 5, 6, 3), lambda: L.ConvLSTM2D(2, 3, use_bias=False, go_backwards=True)),
    "images strided": ((4, 5, 6, 3), lambda: L.ConvLSTM2D(3, 2, strides=(2, 1), padding="same", **ALL)),
    "images relu": (
        (4, 5, 6, 3),
        lambda: L.ConvLSTM2D(2, 2, activation="relu", recurrent_activation="tanh", return_sequences=True),
    ),
    "volumes": ((3, 4, 5, 4, 2), lambda: L.ConvLSTM3D(2, 2, padding="same", return_state=True)),
    "few pixels": ((4, 2, 2, 1), lambda: L.ConvLSTM2D(1, 2, **ALL)),
    "few pixels strided": ((2, 2, 2, 1), lambda: L.ConvLSTM2D(1, (1, 2), strides=2, **ALL)),
    "softmax": ((4, 5, 6, 3), lambda: L.ConvLSTM2D(2, 2, activation="softmax", **ALL)),
    "both ways": ((4, 5, 6, 3), lambda: L.Bidirectional(L.ConvLSTM2D(2, 2, return_sequences=True))),
    "both ways last": ((4, 5, 6, 3), lambda: L.Bidirectional(L.ConvLSTM2D(2, 2), merge_mode="ave")),
}


@pytest.mark.parametrize("case", IMAGES)
def test_lstms_of_images_equal_keras(case, tmp_path):
    shape, make = IMAGES[case]
    x = keras.Input(shape, name="x")
    outputs = keras.tree.flatten(make()(x))
    pooled = L.Dense(2)(L.Flatten()(outputs[-1]))  # Its order of axes matters to what follows.
    arrays = [RANDOM.normal(size=(2, *shape)).astype("float32")]
    assert_outputs_like_keras(keras.Model(x, [*outputs, pooled]), tmp_path / "m.keras", arrays)


def test_lstms_of_images_skip_the_steps_that_a_mask_leaves_out(tmp_path):
    x = keras.Input((4, 5, 6, 3), name="x")
    steps = keras.ops.any(keras.ops.reshape(x, (-1, 4, 90)) > 0, axis=-1)
    made = L.ConvLSTM2D(2, 2, **ALL)(x, mask=steps)
    both = L.Bidirectional(L.ConvLSTM2D(2, 2, return_sequences=True))(x, mask=steps)
    images = RANDOM.normal(size=(4, 4, 5, 6, 3)).astype("float32")
    images[0, :2], images[1, 2:], images[2] = -1, -1, -1
    assert_outputs_like_keras(keras.Model(x, [*made, both]), tmp_path / "m.keras", [images])


def test_states_that_are_kept_between_batches_are_refused_by_name(tmp_path):
    x = keras.Input(batch_shape=(2, 6, 4), name="x")
    keras.Model(x, L.GRU(3, stateful=True, name="kept")(x)).save(tmp_path / "m.keras")
    with pytest.raises(UnavailableError, match=r"GRU \(layer 'kept'\): states that are kept"):
        Probe(tmp_path / "m.keras", ["kept"], engine="graph")(STEPS[:2])
