"""Weights into the layers of a built model, by name and shape; every mismatch named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

from layerprobe.errors import ModelError
from layerprobe.modelfile.graph import LayerNode
from layerprobe.modelfile.slots import own_slots
from layerprobe.modelfile.weights import Weights

if TYPE_CHECKING:
    from layerprobe.records import Array


def assign(layers: Mapping[str, tuple[LayerNode, keras.Operation]], stored: Weights) -> None:
    """Give every layer the weights that its file has for it.

    Args:
        layers: The layers of the model by address, built.
        stored: The weights of the file.

    Raises:
        ModelError: A weight is missing, or has another shape; all mismatches are named, up to ten.
    """
    mismatches: list[str] = []
    for address, (node, layer) in layers.items():
        if own_slots(node) == () or not isinstance(layer, keras.Layer):
            continue
        try:
            arrays = stored.arrays(address)
        except ModelError as error:
            mismatches.append(str(error).rstrip("."))
            continue
        mismatches += _assign_layer(address, node, layer, arrays)
    if mismatches:
        rest = f" and {len(mismatches) - 10} more" if len(mismatches) > 10 else ""
        raise ModelError("; ".join(mismatches[:10]) + rest + ".")


def _assign_layer(
    address: str, node: LayerNode, layer: keras.Layer, arrays: Mapping[str, Array]
) -> list[str]:
    """Set one layer's own weights; says which do not fit."""
    if own_slots(node) is None or len(arrays) == len(layer.weights) == 1:
        found = list(layer.weights)
        if len(found) != len(arrays):
            return [f"layer {address!r} has {len(found)} weights, but {len(arrays)} are stored"]
        variables = dict(zip(arrays, found, strict=True))
    else:
        variables = {name: _variable(layer, name) for name in arrays}
    mismatches = []
    for name, array in arrays.items():
        variable = variables[name]
        if variable is None:
            mismatches.append(f"layer {address!r} has no weight {name!r}")
        elif tuple(variable.shape) != array.shape:
            mismatches.append(
                f"weight {name!r} of layer {address!r} has shape {tuple(variable.shape)}, "
                f"but {array.shape} is stored"
            )
        else:
            variable.assign(array)
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()
    return mismatches


def _variable(layer: keras.Layer, name: str) -> keras.Variable | None:
    """The layer's variable of that name, also where an object within the layer owns it."""
    own = [variable for variable in layer.weights if f"/{variable.path}".endswith(f"/{name}")]
    return own[0] if len(own) == 1 else None
