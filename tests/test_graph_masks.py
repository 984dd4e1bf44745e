"""Masks on the graph engine: what hands them on, what drops them, and what computes with them."""

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*does not support masking"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

keras = pytest.importorskip("keras")
from graph_reference import RANDOM, assert_outputs_like_keras  # noqa: E402

L = keras.layers
WORDS = np.array(
    [
        [1, 2, 3, 4, 5, 6],
        [1, 2, 0, 0, 0, 0],
        [0, 0, 3, 4, 5, 6],
        [0, 0, 0, 0, 0, 0],
        [1, 0, 3, 0, 5, 0],
        [0, 2, 3, 4, 5, 0],
    ]
)
"""Masks of no, trailing, leading, all, alternate and both outer steps."""
STEPS = np.where(WORDS[..., None] > 0, RANDOM.normal(size=(6, 6, 4)), 0).astype("float32")


READERS = {
    "lstm": lambda: L.LSTM(3),
    "lstm sequence": lambda: L.LSTM(3, return_sequences=True),
    "lstm states": lambda: L.LSTM(3, return_sequences=True, return_state=True),
    "lstm backwards": lambda: L.LSTM(3, return_sequences=True, return_state=True, go_backwards=True),
    "lstm zero": lambda: L.LSTM(3, return_sequences=True, zero_output_for_mask=True),
    "lstm zero last": lambda: L.LSTM(3, zero_output_for_mask=True, return_state=True),
    "lstm unrolled": lambda: L.LSTM(3, return_sequences=True, unroll=True, zero_output_for_mask=True),
    "gru": lambda: L.GRU(3, return_state=True),
    "gru sequence": lambda: L.GRU(3, return_sequences=True, reset_after=False),
    "gru backwards zero": lambda: L.GRU(3, go_backwards=True, zero_output_for_mask=True),
    "simple": lambda: L.SimpleRNN(3),
    "simple sequence": lambda: L.SimpleRNN(3, return_sequences=True, unroll=True),
    "stacked cells": lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True, return_state=True),
    "bidirectional": lambda: L.Bidirectional(L.LSTM(3)),
    "bidirectional sequence": lambda: L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="sum"),
    "bidirectional zero": lambda: L.Bidirectional(L.LSTM(3, zero_output_for_mask=True)),
    "bidirectional apart": lambda: L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode=None),
    "bidirectional states": lambda: L.Bidirectional(L.LSTM(3, return_state=True)),
    "average": lambda: L.GlobalAveragePooling1D(),
    "average kept": lambda: L.GlobalAveragePooling1D(keepdims=True),
    "average channels first": lambda: L.GlobalAveragePooling1D(data_format="channels_first"),
    "time distributed": lambda: L.TimeDistributed(L.Dense(3)),
    "normalisation": lambda: L.BatchNormalization(),
}


@pytest.mark.parametrize("case", READERS)
def test_every_layer_that_reads_masks_equals_keras(case, tmp_path):
    z = keras.Input((6, 6) if "channels first" in case else (6, 4), name="z")
    masked = L.Masking(name="masking")(z)
    model = keras.Model(z, READERS[case]()(masked))
    steps = np.concatenate([STEPS, STEPS[..., :2]], -1) if "channels first" in case else STEPS
    assert_outputs_like_keras(model, tmp_path / "m.keras", [steps])


def test_softmax_leaves_out_what_is_masked(tmp_path):
    x = keras.Input((6, 1), name="x")
    y = L.Masking()(x)
    scores = L.TimeDistributed(L.Dense(6))(y)
    some, none = keras.ops.greater(scores, 0.1), keras.ops.greater(keras.ops.abs(x), 0.3)
    outputs = [L.Softmax()(scores, mask=keras.ops.logical_and(some, none)), L.Softmax(axis=(1, 2))(x)]
    outputs += [L.Softmax(axis=(1, 2))(scores, mask=some), L.Softmax(axis=1)(scores, mask=none)]
    assert_outputs_like_keras(keras.Model(x, outputs), tmp_path / "m.keras", [STEPS[..., :1]])


HANDED_ON = {
    "activation": lambda: L.Activation("tanh"),
    "batch normalization": lambda: L.BatchNormalization(),
    "bidirectional": lambda: L.Bidirectional(L.GRU(3, return_sequences=True)),
    "convolution": lambda: L.Conv1D(3, 2, padding="same"),
    "cropping": lambda: L.Cropping1D(1),
    "dense": lambda: L.Dense(3),
    "dropout": lambda: L.Dropout(0.5),
    "elu": lambda: L.ELU(),
    "embedding": lambda: L.Reshape((6, 4)),
    "flatten": lambda: keras.Sequential([L.Flatten(), L.Reshape((6, 4))]),
    "gaussian noise": lambda: L.GaussianNoise(0.1),
    "group normalization": lambda: L.GroupNormalization(2),
    "layer normalization": lambda: L.LayerNormalization(),
    "leaky relu": lambda: L.LeakyReLU(),
    "lstm": lambda: L.LSTM(4, return_sequences=True),
    "masking again": lambda: L.Masking(0.5),
    "max pooling": lambda: L.MaxPooling1D(2, strides=1),
    "nested": lambda: keras.Sequential([L.Dense(3), L.Dropout(0.2)]),
    "nested reader": lambda: keras.Sequential([L.Dense(3), L.LSTM(3, return_sequences=True)]),
    "normalization": lambda: L.Normalization(mean=1.0, variance=2.0),
    "permute": lambda: L.Permute((1, 2)),
    "prelu": lambda: L.PReLU(),
    "relu": lambda: L.ReLU(),
    "rescaling": lambda: L.Rescaling(2.0),
    "rms normalization": lambda: L.RMSNormalization(),
    "softmax": lambda: L.Activation("softmax"),
    "spatial dropout": lambda: L.SpatialDropout1D(0.5),
    "time distributed": lambda: L.TimeDistributed(L.Dense(3)),
    "unit normalization": lambda: L.UnitNormalization(),
    "up sampling": lambda: L.UpSampling1D(2),
    "zero padding": lambda: L.ZeroPadding1D(1),
}


@pytest.mark.parametrize("case", HANDED_ON)
def test_every_layer_hands_masks_on_or_drops_them_as_keras_does(case, tmp_path):
    x = keras.Input((6,), name="x")
    y = HANDED_ON[case]()(L.Embedding(9, 4, mask_zero=True)(x))
    model = keras.Model(x, L.GRU(3, name="reader")(y))
    assert_outputs_like_keras(model, tmp_path / "m.keras", [WORDS.astype("float32")])
    sequential = keras.Sequential(
        [keras.Input((6,)), L.Embedding(9, 4, mask_zero=True), HANDED_ON[case](), L.GRU(3)]
    )
    assert_outputs_like_keras(sequential, tmp_path / "s.h5", [WORDS.astype("float32")])


MERGES = {
    "add": lambda a, b, c: L.Add()([a, b]),
    "add one": lambda a, b, c: L.Add()([a, c]),
    "average": lambda a, b, c: L.Average()([a, b]),
    "concatenate": lambda a, b, c: L.Concatenate()([a, b]),
    "concatenate one": lambda a, b, c: L.Concatenate()([a, c]),
    "concatenate steps": lambda a, b, c: L.Concatenate(axis=1)([a, b, c]),
    "maximum": lambda a, b, c: L.Maximum()([a, b]),
    "maximum of three": lambda a, b, c: L.Maximum()([a, c, b]),
    "minimum": lambda a, b, c: L.Minimum()([b, a]),
    "minimum one": lambda a, b, c: L.Minimum()([c, a]),
    "minimum vector": lambda a, b, c: L.Minimum()([L.GlobalMaxPooling1D()(c), a]),
    "multiply": lambda a, b, c: L.Multiply()([a, b]),
    "multiply one": lambda a, b, c: L.Multiply()([a, c]),
    "multiply vector": lambda a, b, c: L.Multiply()([a, L.GlobalMaxPooling1D()(c)]),
    "subtract": lambda a, b, c: L.Subtract()([a, b]),
    "operators": lambda a, b, c: a + b * 2.0,
}


@pytest.mark.parametrize("case", MERGES)
def test_every_merge_joins_masks_as_keras_does(case, tmp_path):
    x, z, c = keras.Input((6,), name="x"), keras.Input((6, 4), name="z"), keras.Input((6, 4), name="c")
    a, b = L.Embedding(9, 4, mask_zero=True)(x), L.Masking()(z)
    merged = MERGES[case](a, b, c)
    model = keras.Model([x, z, c], [merged, L.LSTM(3, name="reader")(merged)])
    others = RANDOM.normal(size=(6, 6, 4)).astype("float32")
    assert_outputs_like_keras(
        model, tmp_path / "m.keras", [WORDS.astype("float32"), STEPS[::-1].copy(), others]
    )


def test_a_mask_that_nothing_hands_on_ends(tmp_path):
    x = keras.Input((6, 4), name="x")
    y = L.Bidirectional(L.LSTM(4, return_sequences=True, return_state=True))(L.Masking()(x))
    outputs = [L.GRU(2)(y[0]), L.Dense(3)(y[1]), L.Dot(axes=2)([y[0], y[0]])]
    assert_outputs_like_keras(keras.Model(x, outputs), tmp_path / "m.keras", [STEPS])


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_a_first_state_that_is_given_takes_the_mask_away_since_keras_3(cell, tmp_path):
    x, state = keras.Input((6, 4), name="x"), keras.Input((3,), name="state")
    states = [state, state] if cell == "LSTM" else [state]
    y = getattr(L, cell)(3, return_sequences=True)(L.Masking()(x), initial_state=states)
    both = L.Bidirectional(L.GRU(3))(L.Masking()(x), initial_state=[state, state])
    model = keras.Model([x, state], [y, both, L.GRU(2)(y)])
    assert_outputs_like_keras(
        model, tmp_path / "m.keras", [STEPS, RANDOM.normal(size=(6, 3)).astype("float32")]
    )


def test_a_mask_given_by_name_is_the_one_that_counts(tmp_path):
    x, z = keras.Input((6,), name="x"), keras.Input((6, 4), name="z")
    mask = keras.ops.logical_not(keras.ops.equal(x, 3.0))
    y = L.LSTM(3, return_sequences=True)(L.Masking()(z), mask=mask)
    model = keras.Model([x, z], [y, L.GlobalAveragePooling1D()(y), L.GRU(2)(y)])
    assert_outputs_like_keras(model, tmp_path / "m.keras", [WORDS.astype("float32"), STEPS])
