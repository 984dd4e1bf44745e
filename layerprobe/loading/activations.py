"""Activations by name, from Keras's own and the user's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from layerprobe.errors import ModelError
from layerprobe.modelfile.classes import ACTIVATIONS

Activation = Callable[[Any], Any]


def keras2_hard_sigmoid(x: Any) -> Any:
    """Keras's hard_sigmoid until version 2: clip(0.2 x + 0.5, 0, 1); registered, for wrappers copy layers."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


keras.saving.register_keras_serializable(package="layerprobe")(keras2_hard_sigmoid)


def find_activation(name: str, custom_objects: Mapping[str, Any]) -> Activation:
    """The function behind an activation's name.

    Args:
        name: One of `ACTIVATIONS`, or of the user's functions.
        custom_objects: The user's own classes and functions by name.

    Raises:
        ModelError: It is neither.
    """
    if name in custom_objects:
        found: Activation = custom_objects[name]
        return found
    if name == keras2_hard_sigmoid.__name__:
        return keras2_hard_sigmoid
    function = (
        getattr(keras.activations, _FORMER_NAMES.get(name, name), None) if name in ACTIVATIONS else None
    )
    if function is None:
        raise ModelError(
            f"activation {name!r} is not one of Keras's own: give its code with --custom FILE.py."
        )
    return function  # type: ignore[no-any-return]


_FORMER_NAMES = {"swish": "silu", "hard_swish": "hard_silu"}
