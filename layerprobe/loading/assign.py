"""Weights into the layers of a built model, by name and shape; every mismatch named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h5py
import keras
from keras.src.saving import saving_lib

from layerprobe.errors import ModelError
from layerprobe.loading.reasons import first_line
from layerprobe.modelfile.graph import LayerNode
from layerprobe.modelfile.slots import own_slots
from layerprobe.modelfile.weights import Weights

if TYPE_CHECKING:
    from layerprobe.records import Array


def assign(
    layers: Mapping[str, tuple[LayerNode, keras.Operation]], stored: Weights, file: h5py.File | None
) -> None:
    """Give every layer the weights that its file has for it.

    Args:
        layers: The layers of the model by address, built.
        stored: The weights of the file.
        file: That file, where it is HDF5.

    Raises:
        ModelError: A weight is missing, or has another shape; all mismatches are named, up to ten.
    """
    mismatches: list[str] = []
    for address, (node, layer) in layers.items():
        if own_slots(node) == () or not isinstance(layer, keras.Layer):
            continue
        if address in stored.objects and file is not None:
            mismatches += _restore_custom(address, layer, file, stored.objects[address])
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
        found = [*layer.trainable_weights, *layer.non_trainable_weights]
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


def _restore_custom(address: str, layer: keras.Layer, file: h5py.File, path: str) -> list[str]:
    """Have a layer of the user's own class take its state: only it knows which objects within it did save."""
    failed: dict[int, tuple[Any, Exception]] = {}
    saving_lib._load_state(
        layer,
        weights_store=_Store(file),
        assets_store=None,
        inner_path=path,
        visited_saveables=set(),
        failed_saveables=set(),
        error_msgs=failed,
    )
    return [f"layer {address!r}: {first_line(error)}" for _, error in failed.values()]


class _Store(saving_lib.H5IOStore):  # type: ignore[misc]
    """Keras's view of a file of weights, over one that is open."""

    def __init__(self, file: h5py.File) -> None:
        self.h5_file = file
        self.mode = "r"
        self._h5_entry_group: Any = {}
        self._h5_entry_initialized = True


def _variable(layer: keras.Layer, name: str) -> keras.Variable | None:
    """The layer's variable of that name, also where an object within the layer owns it."""
    own = [variable for variable in layer.weights if f"/{variable.path}".endswith(f"/{name}")]
    return own[0] if len(own) == 1 else None
