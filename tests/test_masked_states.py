"""Masks of recurrent layers that are given their first state: Keras 2 applied them, Keras 3 drops them."""

from functools import cache

import numpy as np
import pytest

import layerprobe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

tf_keras = pytest.importorskip("tf_keras")


@cache
def decoder_model(cell, states, wrapped=False):
    """A Keras 2 model whose decoder starts from its encoder's state; it reads 7 words and 5."""
    layers = tf_keras.layers
    recurrent = getattr(layers, cell)
    source, target = tf_keras.Input((7,), name="source"), tf_keras.Input((5,), name="target")
    encoded = recurrent(3, return_state=True, name="encoder")(layers.Embedding(9, 4, mask_zero=True)(source))
    given = encoded[1 : 1 + states]
    decoder = recurrent(3, return_sequences=True, name="decoder")
    if wrapped:
        decoder, given = layers.Bidirectional(decoder, name="decoder"), [*given, *given]
    decoded = decoder(layers.Embedding(9, 4, mask_zero=True)(target), initial_state=given)
    return tf_keras.Model([source, target], decoded)


def words():
    """Six rows for its two inputs, with masked steps at their ends."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 9, (6, 7)), random.integers(0, 9, (6, 5))
    x[:, 5:], y[:, 3:] = 0, 0
    return x, y


@pytest.mark.parametrize("engine", ["graph", "keras"])
@pytest.mark.parametrize(("cell", "states"), [("LSTM", 2), ("GRU", 1), ("SimpleRNN", 1)])
def test_a_decoder_of_a_keras_2_file_skips_what_is_masked(cell, states, engine, tmp_path):
    model = decoder_model(cell, states)
    model.save(tmp_path / "model.h5")
    x, y = words()
    seen = layerprobe.Probe(tmp_path / "model.h5", ["decoder"], engine=engine)([x, y])["decoder"]
    np.testing.assert_allclose(seen, model([x, y], training=False), atol=1e-6)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("cell", "states"), [("LSTM", 2), ("GRU", 1)])
def test_both_engines_mean_the_same_by_masks_at_the_start(cell, states, wrapped, tmp_path):
    decoder_model(cell, states, wrapped).save(tmp_path / "model.h5")
    x, y = words()
    y[:, :2] = 0
    y[0] = 0
    graph, reference = (
        layerprobe.Probe(tmp_path / "model.h5", ["decoder"], engine=engine)([x, y])["decoder"]
        for engine in ("graph", "keras")
    )
    np.testing.assert_allclose(graph, reference, atol=1e-6)
