"""What a layer meant to the Keras that saved it, against equations worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from model_writers import entry, sequential, write_flat

from layerprobe.loading.build import load_model
from layerprobe.loading.channels_first import channels_first_class

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(1)


def random(*shape: int) -> Any:
    return RNG.random(shape, dtype="float32")


def hard_sigmoid_of_keras_2(x: Any) -> Any:
    return np.clip(0.2 * x + 0.5, 0, 1)


def test_hard_sigmoid_has_the_slope_of_the_version_that_saved_it(tmp_path: Path) -> None:
    x = np.linspace(-4, 4, 41, dtype="float32").reshape(1, 41)
    start = entry("InputLayer", "start", batch_input_shape=[None, 41])
    model = sequential(start, entry("Activation", "a", activation="hard_sigmoid"))
    old = load_model(write_flat(tmp_path / "old.h5", model, {}, "2.2.4"))
    new = load_model(write_flat(tmp_path / "new.h5", model, {}, "3.8.0"))
    np.testing.assert_allclose(old(x), hard_sigmoid_of_keras_2(x), atol=1e-6)
    np.testing.assert_allclose(new(x), np.clip(x + 3, 0, 6) / 6, atol=1e-6)


def test_a_keras_1_lstm_computes_what_its_equations_say(tmp_path: Path) -> None:
    gates = {gate: (random(3, 2), random(2, 2), random(2)) for gate in "icfo"}
    names = [
        (f"{kind}_{gate}", array) for gate in "icfo" for kind, array in zip("WUb", gates[gate], strict=True)
    ]
    layer = entry(
        "LSTM",
        "lstm",
        output_dim=2,
        activation="tanh",
        inner_activation="hard_sigmoid",
        batch_input_shape=[None, 4, 3],
    )
    model = {"class_name": "Sequential", "config": [layer]}
    path = write_flat(tmp_path / "m.h5", model, {"lstm": names}, "1.2.1", None)
    x = random(2, 4, 3)
    h = c = np.zeros((2, 2))
    for step in range(4):
        z = {gate: x[:, step] @ w + h @ u + b for gate, (w, u, b) in gates.items()}
        i, f, o = (hard_sigmoid_of_keras_2(z[gate]) for gate in "ifo")
        c = f * c + i * np.tanh(z["c"])
        h = o * np.tanh(c)
    np.testing.assert_allclose(load_model(path)(x), h, rtol=1e-5)


def test_a_theano_convolution_computes_what_theano_did(tmp_path: Path) -> None:
    from scipy.signal import convolve

    kernel, bias = random(3, 2, 2, 4), random(4)
    config = {"nb_filter": 4, "nb_row": 3, "nb_col": 2, "dim_ordering": "th", "border_mode": "valid"}
    layer = entry("Convolution2D", "conv", batch_input_shape=[None, 2, 6, 5], **config)
    stored = kernel.transpose(3, 2, 0, 1)  # (filters, channels, rows, columns)
    weights = {"conv": [("W", stored), ("b", bias)]}
    model = {"class_name": "Sequential", "config": [layer]}
    path = write_flat(tmp_path / "m.h5", model, weights, "1.2.1", "theano")
    x = random(1, 2, 6, 5)
    expected = np.stack(
        [
            sum(convolve(x[0, channel], stored[out, channel], "valid") for channel in range(2)) + bias[out]
            for out in range(4)
        ]
    )
    np.testing.assert_allclose(load_model(path)(x)[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("Conv1D", (4, 8), {"padding": "causal", "dilation_rate": 2}),
        ("Conv2D", (4, 8, 8), {"padding": "same", "strides": 2, "activation": "softmax"}),
        ("Conv2D", (4, 8, 8), {"groups": 2, "dilation_rate": 2}),
        ("Conv3D", (2, 6, 6, 6), {}),
        ("Conv1DTranspose", (4, 8), {}),
        ("Conv2DTranspose", (4, 8, 8), {"strides": 2, "output_padding": 1}),
        ("Conv3DTranspose", (2, 4, 4, 4), {}),
    ],
)
def test_channels_first_convolutions_are_those_of_the_turned_image(
    name: str, shape: Any, options: Any
) -> None:
    activation = options.pop("activation", None)
    plain = getattr(keras.layers, name)(4, 3, **options)
    first = channels_first_class(getattr(keras.layers, name))(
        4, 3, data_format="channels_first", activation=activation, **options
    )
    assert type(first).__name__ == name
    x = random(2, *shape)
    turned = np.moveaxis(x, 1, -1)
    plain.build(turned.shape)
    first.build(x.shape)
    first.set_weights(plain.get_weights())
    expected = np.moveaxis(np.asarray(plain(turned)), -1, 1)
    if activation is not None:
        expected = np.asarray(keras.activations.get(activation)(expected))
    np.testing.assert_allclose(first(x), expected, atol=1e-6)
