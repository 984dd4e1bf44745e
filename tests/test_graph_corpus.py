"""The graph engine against Keras on model files of strangers: every layer that can be computed."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from corpus_files import OTHER_LAMBDAS, inputs_for, is_here, models, path_of, values

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


def keras_values(row: dict[str, str], layers: list[str], inputs: list[Any]) -> tuple[Any, Any]:
    """Keras's values, and what they become when the inputs are changed by a millionth."""
    model = load_model(path_of(row), lambdas=OTHER_LAMBDAS.get(row["file"]), keep=set(layers))
    moved = [(array * 1.000001).astype(array.dtype) for array in inputs]
    return values(model, layers, inputs), values(model, layers, moved)


def last_calls(found: dict[str, Any]) -> dict[str, Any]:
    """Of layers that are called several times the last call, by address and tensor as `values` has them."""
    last = {}
    for name, array in found.items():
        address, _, output = re.fullmatch(r"(.+?)(@\d+)?(?::(\d+))?", name).groups()
        last[f"{address}:{output or 0}"] = array
    return last


def test_every_layer_that_keras_computes_the_graph_engine_computes_alike() -> None:
    """Relative error below 1e-5, and 1e-4 past 100 layers.

    A network that the last digit of its inputs moves further has no such digits: there ten times what a
    millionth more of input changes in Keras itself.
    """
    wrong: dict[str, Any] = {}
    to_keras: dict[str, str | None] = {}
    loaded = 0
    for row in models():
        lambdas = OTHER_LAMBDAS.get(row["file"])
        info = describe(path_of(row), lambdas=lambdas)
        layers = computable(info)
        if not layers:
            continue
        try:
            given = zip(inputs_for(info, row), info.inputs, strict=True)
            inputs = [array.astype(spec.dtype) for array, spec in given]
            expected, moved = keras_values(row, layers, inputs)
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
        limit = 1e-5 if len(info.layers) <= 100 else 1e-4
        for name, right in expected.items():
            got = found[name]
            size = max(float(np.abs(right).max()), 1e-30)
            allowed = max(limit, 10 * float(np.abs(moved[name] - right).max()) / size)
            error = float(np.abs(got - right).max()) / size if got.shape == right.shape else np.inf
            if not error <= allowed or got.dtype != right.dtype:
                wrong[f"{row['file']} {name}"] = (error, allowed, got.shape, right.shape)
        keras.utils.clear_session()
    print(f"\n{loaded} files, {len(to_keras)} with Keras: {to_keras}")
    assert wrong == {}
    assert loaded >= 100
    assert len(to_keras) <= 0.05 * loaded
