"""Masks: which steps of a sequence count, what starts them, and what hands them on.

A mask belongs to a tensor and is boolean, mostly (B, T) beside (B, T, ...). The rules are those by which
Keras 3 runs a model: every layer computes with the masks of its first argument unless its call names
others, and its class's `compute_mask` says what its outputs get.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Mask,
    Value,
    as_float,
    constant,
    dims,
    in_keras_order,
    value,
    whole,
)
from layerprobe.modelfile.graph import Call, LayerNode

Rule: TypeAlias = Callable[[LayerNode, Sequence[Value], Sequence[Mask]], Sequence[Mask]]
"""A layer, its inputs and their masks, to the masks of its outputs; missing ones are None."""

_RECURRENT = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN")
_TAKE_MASK = (
    *_RECURRENT,
    "AdditiveAttention",
    "Attention",
    "BatchNormalization",
    "Bidirectional",
    "GlobalAveragePooling1D",
    "Softmax",
    "TimeDistributed",
)
"""The classes whose calls have a `mask`."""


def takes_mask(node: LayerNode) -> bool:
    """Whether calls of a layer have a `mask`; those of nested models do."""
    return node.inner is not None or node.class_name in _TAKE_MASK


def masks_of(call: Call, masks_with_states: bool) -> list[Mask]:
    """The masks that a layer computes with, one per tensor of its first argument; empty for none.

    Args:
        call: Of the layer; tensors are `Value`s.
        masks_with_states: Whether they reach a recurrent layer that is given its first state, as they did
            before Keras 3.
    """
    if "mask" in call.keywords:
        return [None if given is None else _boolean(given) for given in flat(call.keywords["mask"])]
    beside = [leaf for leaf in (*flat(call.arguments[1:]), *flat(call.keywords)) if isinstance(leaf, Value)]
    if beside and not (masks_with_states and "initial_state" in call.keywords):
        return []
    return _attached(call)


def handed_on(node: LayerNode, call: Call, made: Sequence[Value]) -> list[Value]:
    """What a layer gives, with the masks that its class attaches."""
    rule = _RULES.get(node.class_name)
    if rule is None or all(tensor.mask is not None for tensor in made):
        return list(made)
    before = masks_of(call, False) if "mask" in call.keywords else _attached(call)
    if not any(mask is not None for mask in before):
        return list(made)
    after = [*rule(node, flat(call.arguments[:1]), before), *[None] * len(made)]
    return [
        tensor if tensor.mask is not None else dataclasses.replace(tensor, mask=mask)
        for tensor, mask in zip(made, after, strict=False)
    ]


class Watch:
    """Sees to it that nothing depends on when Keras takes masks off.

    A MultiHeadAttention takes those of its inputs off as it runs: what else takes one of these tensors
    finds it with its mask or without, as Keras's order of calls will have it.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._bare: set[str] = set()

    def taken(self, node: LayerNode, call: Call, made: Sequence[Value]) -> None:
        """Note one call of a layer.

        Raises:
            Unsupported: It shares an input whose mask is taken off.
        """
        strips = node.class_name == "MultiHeadAttention"
        if not strips and ("mask" in call.keywords or node.class_name not in _RULES):
            return
        leaves = [*flat(call.arguments), *flat(call.keywords)]
        masked = {_identity(leaf) for leaf in leaves if isinstance(leaf, Value) and leaf.mask is not None}
        masked -= {_identity(tensor) for tensor in made}
        if masked & (self._taken | self._bare if strips else self._bare):
            raise Unsupported("an input whose mask a MultiHeadAttention takes off while others need it")
        (self._bare if strips else self._taken).update(masked)


def _identity(tensor: Value) -> str:
    return f"{tensor.node.get_node().get_name()}:{tensor.node.get_index()}"


def with_masks(inputs: Sequence[Value], masks: Sequence[Mask]) -> list[Value]:
    """The inputs of a nested model with the masks that its call names; the others keep theirs."""
    named = [*masks, *[None] * len(inputs)]
    return [
        tensor if mask is None else dataclasses.replace(tensor, mask=mask)
        for tensor, mask in zip(inputs, named, strict=False)
    ]


def beside(mask: ov.Output, rank: int, shape: Sequence[int | None]) -> ov.Output:
    """A mask with axes of size 1 at its end, so that it fits values of a shape.

    Raises:
        Unsupported: It does not fit them.
    """
    sizes = dims(mask)
    fits = len(sizes) <= rank and all(
        one in (1, None) or other in (None, one) for one, other in zip(sizes, shape, strict=False)
    )
    if not fits:
        raise Unsupported(f"a mask of shape {sizes} beside values of shape {tuple(shape)}")
    return op.unsqueeze(mask, whole(range(len(sizes), rank))).output(0) if len(sizes) < rank else mask


def _attached(call: Call) -> list[Mask]:
    first = call.arguments[:1] or call.keywords.get("query")
    return [leaf.mask for leaf in flat(first) if isinstance(leaf, Value)]


def _boolean(given: object) -> ov.Output:
    if not isinstance(given, Value) or given.dtype != "bool":
        raise Unsupported("a mask that is not a boolean tensor")
    return in_keras_order(given)


def _same(node: LayerNode, inputs: Sequence[Value], before: Sequence[Mask]) -> Sequence[Mask]:
    return before


def _first(node: LayerNode, inputs: Sequence[Value], before: Sequence[Mask]) -> Sequence[Mask]:
    return before[:1]


def _where_any(node: LayerNode, inputs: Sequence[Value], before: Sequence[Mask]) -> Sequence[Mask]:
    """A step of a merge counts where it does in one of the inputs, if all have masks."""
    known = [mask for mask in before if mask is not None]
    return [functools.reduce(_or, known)] if len(known) == len(before) else []


def _or(first: ov.Output, second: ov.Output) -> ov.Output:
    return op.logical_or(first, second).output(0)


def _concatenated(node: LayerNode, inputs: Sequence[Value], before: Sequence[Mask]) -> Sequence[Mask]:
    """The masks spread over their inputs, joined, and then true where any channel is."""
    spread = []
    for tensor, mask in zip(inputs, before, strict=True):
        if mask is None:
            mask = constant(True, np.bool_).output(0)
        elif len(dims(mask)) < tensor.rank:
            mask = op.unsqueeze(mask, whole([-1])).output(0)
        spread.append(op.broadcast(mask, op.shape_of(in_keras_order(tensor))))
    axis = node.config["axis"] % inputs[0].rank
    return [op.reduce_logical_or(op.concat(spread, axis), whole([-1]), False).output(0)]


def _sequence(node: LayerNode, inputs: Sequence[Value], before: Sequence[Mask]) -> Sequence[Mask]:
    return before[:1] if node.config["return_sequences"] else []


def _both_ways(node: LayerNode, inputs: Sequence[Value], before: Sequence[Mask]) -> Sequence[Mask]:
    if not node.config["layer"].config["return_sequences"]:
        return []
    return list(before[:1]) * (2 if node.config["merge_mode"] is None else 1)


_HAND_ON = (
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "BatchNormalization",
    "Dense",
    "Dropout",
    "ELU",
    "GaussianDropout",
    "GaussianNoise",
    "GroupNormalization",
    "GroupQueryAttention",
    "Identity",
    "LayerNormalization",
    "LeakyReLU",
    "MultiHeadAttention",
    "Normalization",
    "PReLU",
    "ReLU",
    "Rescaling",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "TimeDistributed",
    "UnitNormalization",
)

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_HAND_ON, _same),
    **dict.fromkeys(_RECURRENT, _sequence),
    **dict.fromkeys(("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"), _where_any),
    "AdditiveAttention": _first,
    "Attention": _first,
    "Bidirectional": _both_ways,
    "Concatenate": _concatenated,
}
"""The classes whose outputs may have a mask, and how it comes about."""


def _masking(layer: Layer, inputs: Sequence[Value]) -> Value:
    """A step counts where any of its values is another than the one that stands for nothing."""
    (tensor,) = inputs
    nothing = layer.config["mask_value"]
    if type(nothing) not in (int, float):
        raise Unsupported(f"mask_value={nothing}")
    node = in_keras_order(as_float(tensor))
    counts = op.reduce_logical_or(op.not_equal(node, constant(nothing)), whole([-1]), True)
    kept = value(op.select(counts, node, constant(0.0)))
    return dataclasses.replace(kept, mask=op.squeeze(counts, whole([-1])).output(0))


LAYERS: dict[str, BuildLayer] = {"Masking": _masking}
