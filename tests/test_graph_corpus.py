"""The graph engine against Keras on model files of strangers: every layer that can be computed."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from corpus_files import OTHER_LAMBDAS, STEP, inputs_for, is_here, path_of, some_models, values

from layerprobe.errors import LayerprobeError
from layerprobe.loading.build import load_model
from layerprobe.modelfile.listing import describe
from layerprobe.probe import Probe
from layerprobe.records import ModelInfo

pytestmark = [pytest.mark.slow, is_here]

MOST_LAYERS = 60
"""Of larger networks so many layers are compared, evenly spread."""


def computable(info: ModelInfo) -> list[str]:
    """Layers of the model and of models within it, as far as they do not need code that the file has not."""
    classes = {layer.address: layer.class_name for layer in info.layers}
    models_within = {address for address in classes if classes[address] in ("Functional", "Sequential")}

    def is_reached(address: str) -> bool:
        around = address.rpartition("/")[0]
        return not around or (around in models_within and is_reached(around))

    found = [layer.address for layer in info.layers if layer.problem is None and is_reached(layer.address)]
    step = max(1, -(-len(found) // MOST_LAYERS))
    return found[::-1][::step][::-1]


def exactly(model: Any, layers: list[str], inputs: list[Any]) -> Any:
    """What Keras computes with the same weights in float64."""
    for layer in model._flatten_layers():
        layer.dtype_policy = keras.dtype_policies.DTypePolicy("float64")
    for variable in model.variables:
        if variable.dtype == "float32":
            variable._value = tf.Variable(tf.cast(variable.value, "float64"))
            variable._dtype = "float64"
    return values(model, layers, [array.astype("float64") for array in inputs])


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """By tensor the largest difference, over the largest of the values that are expected."""
    result = {}
    for name, right in expected.items():
        size = max(float(np.abs(right).max()), 1e-30)
        fits = found[name].shape == right.shape
        result[name] = float(np.abs(found[name] - right).max()) / size if fits else np.inf
    return result


def last_calls(found: dict[str, Any]) -> dict[str, Any]:
    """Of layers that are called several times the last call, by address and tensor as `values` has them."""
    last = {}
    for name, array in found.items():
        address, _, output = re.fullmatch(r"(.+?)(@\d+)?(?::(\d+))?", name).groups()
        last[f"{address}:{output or 0}"] = array
    return last


def test_every_layer_that_keras_computes_the_graph_engine_computes_alike() -> None:
    """Relative error below 1e-5, and 1e-4 past 100 layers.

    Where it is not, ten times what rounding changes in Keras itself: the difference between what it
    computes in float32 and in float64. A network that amplifies rounding has no fifth digit to compare.
    """
    wrong: dict[str, Any] = {}
    to_keras: dict[str, str | None] = {}
    loaded = 0
    for row in some_models(2):
        lambdas = OTHER_LAMBDAS.get(row["file"])
        info = describe(path_of(row), lambdas=lambdas)
        layers = computable(info)
        if not layers:
            continue
        try:
            given = zip(inputs_for(info, row), info.inputs, strict=True)
            inputs = [array.astype(spec.dtype) for array, spec in given]
            model = load_model(path_of(row), lambdas=lambdas, keep=set(layers))
            expected = values(model, layers, inputs)
        except (LayerprobeError, ValueError):
            continue
        loaded += 1
        probe = Probe(path_of(row), layers, lambdas=lambdas)
        found = probe(inputs if len(inputs) > 1 else inputs[0])
        if probe._probed.note is not None:
            to_keras[row["file"]] = probe._probed.note
            continue
        found = last_calls(found)
        assert list(found) == list(expected), row["file"]
        assert [array.dtype for array in found.values()] == [array.dtype for array in expected.values()]
        limit = 1e-5 if len(info.layers) <= 100 else 1e-4
        errors = differences(found, expected)
        if not max(errors.values()) <= limit:
            rounding = differences(expected, exactly(model, layers, inputs))
            wrong |= {
                f"{row['file']} {name}": (error, rounding[name])
                for name, error in errors.items()
                if not error <= max(limit, 10 * rounding[name])
            }
        keras.utils.clear_session()
    print(f"\n{loaded} files, {len(to_keras)} with Keras: {to_keras}")
    assert wrong == {}
    assert loaded >= 100 // STEP
    assert len(to_keras) <= 0.05 * loaded
