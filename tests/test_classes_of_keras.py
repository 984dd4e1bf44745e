"""The tables of Keras's classes, activations and operations against Keras itself."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from layerprobe.modelfile.classes import ACTIVATIONS, LAYERS, REQUIRED
from layerprobe.modelfile.operations import OPERATIONS

pytestmark = pytest.mark.slow


def test_the_table_of_layers_is_that_of_keras() -> None:
    """Every class is there, takes every argument in the table, and has the default that the table says."""
    common = {"name", "trainable", "dtype"}
    for class_name, table in LAYERS.items():
        if class_name in ("CustomScaleLayer", "Lambda", "LayerScale"):
            continue
        layer_class = getattr(keras.layers, class_name)
        parameters: dict[str, inspect.Parameter] = {}
        for ancestor in layer_class.__mro__:
            if ancestor is not keras.layers.Layer and "__init__" in vars(ancestor):
                for name, parameter in inspect.signature(ancestor.__init__).parameters.items():
                    parameters.setdefault(name, parameter)
        for name, default in table.items():
            assert name in parameters, (class_name, name)
            actual = parameters[name].default
            if default == REQUIRED:
                assert actual is inspect.Parameter.empty or actual is None, (class_name, name)
            elif name not in (
                "data_format",
                "batch_shape",
                "pool_size",
                "seed",
                "sparse",
                "ragged",
                "padding",
            ):
                same = np.broadcast_to(np.array(default, object), np.shape(actual) or np.shape(default))
                assert np.array_equal(same, np.broadcast_to(np.array(actual, object), same.shape)), (
                    class_name,
                    name,
                )
        assert not common & table.keys()


def test_activations_and_operations_are_keras_s() -> None:
    from importlib import import_module

    ours = {"keras2_hard_sigmoid", "swish", "hard_swish"}
    for name in ACTIVATIONS - ours:
        assert callable(getattr(keras.activations, name))
    for name, module in OPERATIONS.items():
        assert issubclass(getattr(import_module(f"keras.src.ops.{module}"), name), keras.Operation)
