"""How weights were laid out before, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.modelfile.graph import LayerNode
from layerprobe.modelfile.slots import Slot, own_slots

if TYPE_CHECKING:
    from layerprobe.records import Array

_KERAS1_GATES = {"LSTM": "icfo", "ConvLSTM2D": "icfo", "GRU": "zrh"}
_GATES = {"LSTM": "ifco", "ConvLSTM2D": "ifco", "GRU": "zrh"}


def stored_slots(node: LayerNode, version: tuple[int, int]) -> tuple[Slot, ...] | None:
    """The weights of a layer as its file has them: Keras 1 kept a set for each gate."""
    slots = own_slots(node)
    if slots and version < (2, 0) and node.class_name in _KERAS1_GATES:
        gates = _KERAS1_GATES[node.class_name]
        return tuple(Slot(f"{slot.name}_{gate}") for gate in gates for slot in slots)
    return slots


def convert(
    node: LayerNode, stored: Sequence[Array], version: tuple[int, int], backend: str | None
) -> list[Array]:
    """Bring a layer's weights into the layout of Keras 3.

    Args:
        node: The layer.
        stored: Its own weights in the file's order.
        version: Of the Keras that saved them.
        backend: Of that Keras, where the file says it.
    """
    arrays = list(stored)
    if not arrays or node.module != "keras.layers":
        return arrays
    if version < (2, 0):
        arrays = _join_gates(node, arrays)
        arrays[0] = _keras1_kernel(node, arrays[0])
        if node.class_name == "ConvLSTM2D" and len(arrays) > 1:
            arrays[1] = _keras1_kernel(node, arrays[1])
    if backend == "theano" and node.class_name in _FLIPPED_BY_THEANO:
        kernels = 2 if node.class_name == "ConvLSTM2D" else 1
        arrays[:kernels] = [_flip(kernel) for kernel in arrays[:kernels]]
    if node.class_name in ("LSTM", "GRU") and len(arrays) == 3:
        arrays = _from_cudnn(node.class_name, *arrays)
    return arrays


def _join_gates(node: LayerNode, arrays: list[Array]) -> list[Array]:
    """Keras 1 stored W, U and b of each gate by itself (unless `consume_less` was "gpu")."""
    stored = _KERAS1_GATES.get(node.class_name)
    if stored is None or len(arrays) != 3 * len(stored):
        return arrays
    order = [stored.index(gate) for gate in _GATES[node.class_name]]
    axis = 0 if node.config.get("data_format") == "channels_first" else -1
    joined = [np.concatenate([arrays[3 * gate + weight] for gate in order], axis) for weight in (0, 1)]
    return [*joined, np.concatenate([arrays[3 * gate + 2] for gate in order], -1)]


def _keras1_kernel(node: LayerNode, kernel: Array) -> Array:
    """Keras 1 kept kernels in the order of the images' axes; Keras 3's is (space..., in, out)."""
    first = node.config.get("data_format") == "channels_first"
    name, rank = node.class_name, kernel.ndim
    if name == "Conv1D" and rank == 4:
        if kernel.shape[1] != 1:
            # (out, in, length, 1), before Keras 1.2.
            kernel = kernel.transpose(2, 3, 1, 0)
        return kernel[:, 0]
    if name == "Conv2DTranspose" and rank == 4:
        return kernel.transpose(2, 3, 0, 1) if first else kernel.transpose(0, 1, 3, 2)
    if name in ("Conv2D", "Conv3D", "ConvLSTM2D") and first:
        return kernel.transpose(*range(2, rank), 1, 0)
    return kernel


_FLIPPED_BY_THEANO = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "ConvLSTM2D")
"""Layers that convolve under Theano and correlate elsewhere (conv_utils.convert_kernel of Keras 2)."""


def _flip(kernel: Array) -> Array:
    return np.flip(kernel, axis=tuple(range(kernel.ndim - 2)))


def _from_cudnn(class_name: str, kernel: Array, recurrent: Array, bias: Array) -> list[Array]:
    """CuDNN keeps every gate transposed, and two biases; the size of the bias tells.

    https://github.com/keras-team/keras/blob/2.2.4/keras/engine/saving.py, `_convert_rnn_weights`
    """
    gates = len(_GATES[class_name])
    units = recurrent.shape[0]
    if bias.shape != (2 * gates * units,):
        return [kernel, recurrent, bias]
    kernels = [gate.T.reshape(gate.shape, order="F") for gate in np.split(kernel, gates, axis=1)]
    recurrents = [gate.T for gate in np.split(recurrent, gates, axis=1)]
    both = bias.reshape(2, -1)
    return [np.hstack(kernels), np.hstack(recurrents), both.sum(axis=0) if class_name == "LSTM" else both]
