"""Layers that make categories of numbers, and numbers of categories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    FLOATS,
    INTEGERS,
    Node,
    Value,
    constant,
    converted,
    dims,
    in_keras_order,
    value,
    whole,
)


def _encoded(layer: Layer, index: Node, depth: int, dtype: str = FLOATS) -> Value:
    """Indices in the layer's output mode; one that is not below `depth` counts for nothing.

    Args:
        layer: With an `output_mode`.
        index: (B, N) int64; of any rank for "int" and "one_hot".
        depth: How many categories there are.
        dtype: Of the result.
    """
    mode = layer.config["output_mode"]
    if layer.config["sparse"]:
        raise Unsupported("a sparse result")
    if mode == "one_hot" and len(dims(index)) > 1 and dims(index)[-1] == 1:
        index = op.squeeze(index, whole([-1]))
    ones = op.one_hot(index, constant(depth, "int64"), constant(1.0), constant(0.0), -1)
    ones = converted(ones, dtype)
    if mode == "one_hot":
        return value(ones)
    if len(dims(index)) != 2:
        raise Unsupported(f"output_mode={mode} of a tensor with {len(dims(index))} axes")
    if mode == "multi_hot":
        return value(op.reduce_max(ones, whole([1]), False))
    if mode == "count":
        return value(op.reduce_sum(ones, whole([1]), False))
    raise Unsupported(f"output_mode={mode}")


def _category_encoding(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    index = converted(in_keras_order(tensor), "int64")
    return _encoded(layer, index, layer.config["num_tokens"])


def _discretization(layer: Layer, inputs: Sequence[Value]) -> Value:
    """How many of the boundaries each number has reached."""
    (tensor,) = inputs
    bounds = layer.config["bin_boundaries"]
    if bounds is None:
        raise Unsupported("boundaries that were never found")
    if tensor.dtype not in (FLOATS, *INTEGERS):
        raise Unsupported(f"values of type {tensor.dtype}")
    numbers = converted(in_keras_order(tensor), FLOATS)
    index = op.bucketize(numbers, constant(np.asarray(bounds)), "i32", False)
    if layer.config["output_mode"] == "int":
        return value(index)
    return _encoded(layer, converted(index, "int64"), len(bounds) + 1)


def _integer_lookup(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The place of each number in a vocabulary, from 1; numbers that it does not have are at 0."""
    (tensor,) = inputs
    config = layer.config
    if config["num_oov_indices"] != 1 or config["mask_token"] is not None or config["invert"]:
        raise Unsupported("an inverted or masked lookup, or one with several places for unknown numbers")
    words = np.asarray(config["vocabulary"])
    if words.dtype.kind not in "iu" or words.ndim != 1 or not len(words) or np.abs(words).max() >= 2**31 - 1:
        raise Unsupported("a vocabulary that is not a list of whole numbers of 32 bits")
    words = words[1:] if words[0] == config["oov_token"] else words
    numbers = converted(in_keras_order(tensor), "int32")
    order = np.argsort(words)
    place = op.bucketize(numbers, constant(words[order], "int32"), "i32", True)
    last = op.minimum(place, constant(len(words) - 1, "int32"))
    axis = constant(0, "int32")
    there = op.equal(op.gather(constant(words[order], "int32"), last, axis), numbers)
    index = op.select(there, op.gather(whole(order + 1), last, axis), whole(0))
    if config["output_mode"] == "int":
        return value(index)
    depth = config["max_tokens"] if config["pad_to_max_tokens"] else len(words) + 1
    return _encoded(layer, index, depth, "int64")


LAYERS: dict[str, BuildLayer] = {
    "CategoryEncoding": _category_encoding,
    "Discretization": _discretization,
    "IntegerLookup": _integer_lookup,
}
