"""The graph engine held against Keras: one model saved, computed by both, and compared layer by layer."""

from __future__ import annotations

import keras
import numpy as np

from layerprobe.probe import Probe

RANDOM = np.random.default_rng(7)


def relative_error(found, wanted):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    scale = max(float(np.abs(wanted).max()), 1e-30)
    return float(np.abs(found.astype("float64") - wanted).max()) / scale


def randomise(model, random=RANDOM):
    """Weights that are neither zero nor one, variances positive."""
    for weight in model.weights:
        if "seed" in weight.path or weight.dtype != "float32":
            continue
        low = 0.5 if "variance" in weight.path else -0.5
        weight.assign(random.uniform(low, 1.0, weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def assert_equal_to_keras(model, path, arrays):
    """Every layer, by the graph engine from the saved file, is what Keras computes."""
    randomise(model)
    model.save(path)
    names = [layer.name for layer in model.layers]
    every = keras.Model(model.inputs, [layer.output for layer in model.layers])
    expected = keras.tree.flatten(every(arrays, training=False))
    found = Probe(path, names, engine="graph")(arrays if len(arrays) > 1 else arrays[0])
    assert len(found) == len(expected)
    for (name, values), wanted in zip(found.items(), expected, strict=True):
        assert relative_error(values, np.asarray(wanted)) < 1e-5, name


def assert_outputs_like_keras(model, path, arrays):
    """What the graph engine makes of the file is what the model itself computes, NaN included."""
    randomise(model)
    model.save(path)
    expected = keras.tree.flatten(model(arrays if len(arrays) > 1 else arrays[0], training=False))
    found = Probe(path, ["output"], engine="graph")(arrays if len(arrays) > 1 else arrays[0])
    assert len(found) == len(expected)
    for (name, values), wanted in zip(found.items(), map(np.asarray, expected), strict=True):
        assert values.shape == wanted.shape
        scale = np.nanmax(np.abs(wanted), initial=1e-30)
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-5 * scale, err_msg=name)


IMAGE, ODD, TALL, SEQUENCE, VECTOR, VOLUME = (6, 8, 4), (7, 5, 3), (9, 4, 2), (9, 4), (6,), (5, 6, 4, 3)
