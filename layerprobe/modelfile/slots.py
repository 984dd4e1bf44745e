"""Which weights each class of layer owns, and where the two file layouts keep them.

The older layout (`.h5`) is a flat list per layer of the model, the newer one (`.keras`, `.weights.h5`) a
tree of objects with their variables numbered. Both are in the order given here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from layerprobe.modelfile.classes import LAYERS
from layerprobe.modelfile.graph import LayerNode


@dataclass(frozen=True, slots=True)
class Slot:
    """One weight of a layer."""

    name: str
    """Keras 3's name for it: "kernel", "query/kernel"."""
    trainable: bool = True
    """False for statistics, such as `moving_mean`."""
    part: str = ""
    """The object within the layer that owns it in the newer layout: "cell", "query_dense"."""


def own_slots(node: LayerNode) -> tuple[Slot, ...] | None:
    """The weights that the layer itself owns, without those of layers inside it.

    Returns:
        Slots in Keras's order; None for a class that is not Keras's own, whose weights nobody knows.
    """
    if node.inner is not None or node.is_operation:
        return ()
    if node.class_name not in LAYERS or node.module != "keras.layers":
        return None
    make = _SLOTS.get(node.class_name)
    return make(node.config) if make is not None else ()


def parts(node: LayerNode) -> list[tuple[str, LayerNode]]:
    """The layers among a layer's arguments, each with the object that holds it in the newer layout."""
    names = _PARTS.get(node.class_name, {})
    return [(names.get(argument, argument), child) for argument, child in node.children()]


Config = Mapping[str, Any]


def _kernel(config: Config) -> tuple[Slot, ...]:
    return (Slot("kernel"), Slot("bias")) if config["use_bias"] else (Slot("kernel"),)


def _separable(config: Config) -> tuple[Slot, ...]:
    bias = (Slot("bias"),) if config["use_bias"] else ()
    return (Slot("depthwise_kernel"), Slot("pointwise_kernel"), *bias)


def _scaled(config: Config) -> tuple[Slot, ...]:
    gamma = (Slot("gamma"),) if config["scale"] else ()
    return (*gamma, Slot("beta")) if config["center"] else gamma


def _batch_normalization(config: Config) -> tuple[Slot, ...]:
    return (*_scaled(config), Slot("moving_mean", False), Slot("moving_variance", False))


def _cell(config: Config) -> tuple[Slot, ...]:
    bias = (Slot("bias"),) if config["use_bias"] else ()
    return (Slot("kernel"), Slot("recurrent_kernel"), *bias)


def _recurrent(config: Config) -> tuple[Slot, ...]:
    return tuple(Slot(slot.name, part="cell") for slot in _cell(config))


def _projections(config: Config) -> tuple[Slot, ...]:
    names = [("query", "query_dense"), ("key", "key_dense"), ("value", "value_dense")]
    names.append(("attention_output", "output_dense"))
    weights = ("kernel", "bias") if config["use_bias"] else ("kernel",)
    return tuple(Slot(f"{name}/{weight}", part=part) for name, part in names for weight in weights)


def _attention(config: Config) -> tuple[Slot, ...]:
    scale = (Slot("scale"),) if config["use_scale"] else ()
    concat = config.get("score_mode") == "concat"
    return (*scale, Slot("concat_score_weight")) if concat else scale


def _normalization(config: Config) -> tuple[Slot, ...]:
    if config["mean"] is not None:
        return ()
    return (Slot("mean", False), Slot("variance", False), Slot("count", False))


def _one(name: str) -> Callable[[Config], tuple[Slot, ...]]:
    return lambda config: (Slot(name),)


_SLOTS: dict[str, Callable[[Config], tuple[Slot, ...]]] = {
    "AdditiveAttention": _attention,
    "Attention": _attention,
    "BatchNormalization": _batch_normalization,
    "Conv1D": _kernel,
    "Conv1DTranspose": _kernel,
    "Conv2D": _kernel,
    "Conv2DTranspose": _kernel,
    "Conv3D": _kernel,
    "Conv3DTranspose": _kernel,
    "ConvLSTM1D": _recurrent,
    "ConvLSTM2D": _recurrent,
    "ConvLSTM3D": _recurrent,
    "Dense": _kernel,
    "DepthwiseConv1D": _kernel,
    "DepthwiseConv2D": _kernel,
    "EinsumDense": lambda config: (
        (Slot("kernel"), Slot("bias")) if config["bias_axes"] else (Slot("kernel"),)
    ),
    "Embedding": _one("embeddings"),
    "GRU": _recurrent,
    "GRUCell": _cell,
    "GroupNormalization": _scaled,
    "GroupQueryAttention": _projections,
    "LSTM": _recurrent,
    "LSTMCell": _cell,
    "LayerNormalization": _scaled,
    "LayerScale": _one("gamma"),
    "MultiHeadAttention": _projections,
    "Normalization": _normalization,
    "PReLU": _one("alpha"),
    "RMSNormalization": _one("scale"),
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "SimpleRNN": _recurrent,
    "SimpleRNNCell": _cell,
    "SpectralNormalization": lambda config: (Slot("vector_u", False),),
}

_PARTS = {
    "Bidirectional": {"layer": "forward_layer"},
    "StackedRNNCells": {"cells": "cells"},
}
"""Where the object's attribute has another name than the argument."""
