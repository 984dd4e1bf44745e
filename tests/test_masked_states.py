"""Masks of recurrent layers that are given their first state: Keras 2 applied them, Keras 3 drops them."""

import numpy as np
import pytest

import layerprobe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

tf_keras = pytest.importorskip("tf_keras")


@pytest.mark.parametrize(("cell", "states"), [("LSTM", 2), ("GRU", 1), ("SimpleRNN", 1)])
def test_a_decoder_of_a_keras_2_file_skips_what_is_masked(cell, states, tmp_path):
    layers = tf_keras.layers
    recurrent = getattr(layers, cell)
    source, target = tf_keras.Input((7,), name="source"), tf_keras.Input((5,), name="target")
    encoded = recurrent(3, return_state=True, name="encoder")(layers.Embedding(9, 4, mask_zero=True)(source))
    decoder = recurrent(3, return_sequences=True, name="decoder")
    decoded = decoder(layers.Embedding(9, 4, mask_zero=True)(target), initial_state=encoded[1 : 1 + states])
    model = tf_keras.Model([source, target], decoded)
    model.save(tmp_path / "model.h5")
    random = np.random.default_rng(0)
    x, y = random.integers(0, 9, (6, 7)), random.integers(0, 9, (6, 5))
    x[:, 5:], y[:, 3:] = 0, 0
    seen = layerprobe.Probe(tmp_path / "model.h5", ["decoder"])([x, y])["decoder"]
    np.testing.assert_allclose(seen, model.predict([x, y], verbose=0), atol=1e-6)
