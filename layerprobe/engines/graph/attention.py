"""Attention: what each step of a query takes from the steps of a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.activations import softmax
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Mask,
    Node,
    Value,
    as_float,
    constant,
    dims,
    in_keras_order,
    known,
    value,
    whole,
)


def _attention(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    """The mean of the values, weighted by how well their keys fit the query."""
    if not 2 <= len(inputs) <= 3:
        raise Unsupported(f"{len(inputs)} inputs")
    query, values, *more = [in_keras_order(as_float(tensor)) for tensor in inputs]
    additive = layer.node.class_name == "AdditiveAttention"
    scores = (_additive if additive else _scores)(layer, query, more[0] if more else values)
    masks = [*layer.masks, None, None]
    counts = None if masks[1] is None else op.unsqueeze(_rows_of_steps(masks[1]), whole([1]))
    if layer.keywords.get("use_causal_mask"):
        counts = _both(counts, _causal(scores))
    if counts is not None:
        scores = op.select(counts, scores, op.subtract(scores, constant(1e9)))
    weights = op.softmax(scores, -1)
    found: Node = op.matmul(weights, values, False, False)
    if masks[0] is not None:
        found = op.select(op.unsqueeze(_rows_of_steps(masks[0]), whole([2])), found, constant(0.0))
    return _with_scores(layer, found, weights)


def _scores(layer: Layer, query: Node, key: Node) -> Node:
    shapes: dict[str, tuple[int, ...]] = {"scale": ()} if layer.config["use_scale"] else {}
    if layer.config["score_mode"] == "dot":
        arrays = layer.arrays(**shapes)
        product = op.matmul(query, key, False, True)
        return op.multiply(product, constant(arrays["scale"])) if shapes else product
    arrays = layer.arrays(**shapes, concat_score_weight=())
    pairs = _pairs(query, key)
    if "scale" in arrays:
        pairs = op.multiply(pairs, constant(arrays["scale"]))
    total = op.reduce_sum(op.tanh(pairs), whole([-1]), False)
    return op.multiply(total, constant(arrays["concat_score_weight"]))


def _additive(layer: Layer, query: Node, key: Node) -> Node:
    bent = op.tanh(_pairs(query, key))
    if layer.config["use_scale"]:
        scale = layer.arrays(scale=known(dims(query)[-1:]))["scale"]
        bent = op.multiply(bent, constant(scale))
    return op.reduce_sum(bent, whole([-1]), False)


def _pairs(query: Node, key: Node) -> Node:
    """(B, T, S, features): every step of the query plus every step of the key."""
    return op.add(op.unsqueeze(query, whole([2])), op.unsqueeze(key, whole([1])))


def _rows_of_steps(mask: ov.Output) -> ov.Output:
    if len(dims(mask)) != 2:
        raise Unsupported("a mask with other axes than batch and time")
    return mask


def _causal(scores: Node) -> ov.Node:
    """(1, T, S): true where a step of the value is not after that of the query."""
    length, width = known(dims(scores)[-2:])
    return constant(np.tri(length, width)[None], np.bool_)


def _both(first: Node | None, second: Node | None) -> Node | None:
    if first is None or second is None:
        return first if second is None else second
    return op.logical_and(first, second)


def _with_scores(layer: Layer, found: Node, scores: Node) -> list[Value]:
    both = [value(found), value(scores)]
    return both if layer.keywords.get("return_attention_scores") else both[:1]


def _multi_head(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    """Attention in several subspaces at once, over one axis or several."""
    config, given = layer.config, _named(layer, inputs)
    heads, size = config["num_heads"], config["key_dim"]
    sizes = {"query": size, "key": size, "value": config["value_dim"] or size}
    query, key, values = (
        _projected(layer, name, given[name], (heads, width)) for name, width in sizes.items()
    )
    rank = given["query"].rank
    axes = config["attention_axes"]
    axes = range(1, rank - 1) if axes is None else [axes] if isinstance(axes, int) else axes
    at = [axis % rank for axis in axes]
    left = [f"t{axis}" if axis in at else f"b{axis}" for axis in range(rank - 1)]
    right = [f"s{axis}" if axis in at else f"b{axis}" for axis in range(rank - 1)]
    outer = [name for name in left if name[0] == "b"]
    across = [*outer, "n", *(f"t{axis}" for axis in at), *(f"s{axis}" for axis in at)]
    query = op.multiply(query, constant(size**-0.5))
    scores = _einsum([query, key], [[*left, "n", "h"], [*right, "n", "h"]], across)
    mask = _heads_mask(layer, given, scores, len(at))
    weights = _weights(layer, scores, range(len(across) - len(at), len(across)), mask)
    found = _einsum([weights, values], [across, [*right, "n", "h"]], [*left, "n", "h"])
    shape = config["output_shape"] or known(given["query"].shape[-1:])
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return _with_scores(layer, _joined(layer, found, left, (heads, sizes["value"]), shape), weights)


def _grouped(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    """The same, where several heads of the query share one of the key and the value."""
    config, given = layer.config, _named(layer, inputs)
    if any(tensor.rank != 3 for tensor in given.values()):
        raise Unsupported("inputs of other ranks than 3")
    size, heads, shared = config["head_dim"], config["num_query_heads"], config["num_key_value_heads"]
    query = _projected(layer, "query", given["query"], (heads, size))
    places = whole([head * shared // heads for head in range(heads)])
    key, values = (
        op.gather(_projected(layer, name, given[name], (shared, size)), places, constant(2, "int64"))
        for name in ("key", "value")
    )
    query = op.multiply(query, constant(size**-0.5))
    scores = _einsum([query, key], ["btnh", "bsnh"], "bnts")
    weights = _weights(layer, scores, [3], _heads_mask(layer, given, scores, 1))
    found = _einsum([weights, values], ["bnts", "bsnh"], "btnh")
    width = known(given["query"].shape[-1:])
    return _with_scores(layer, _joined(layer, found, "bt", (heads, size), width), weights)


def _weights(layer: Layer, scores: Node, axes: Sequence[int], mask: Node | None) -> Node:
    """How much of each step is taken; where a mask leaves out all, Keras has two ways to go on."""
    config = layer.config
    fused = not (config["dropout"] or layer.keywords.get("return_attention_scores") or len(dims(scores)) != 4)
    if mask is not None and fused:
        return softmax(op.select(mask, scores, constant(-1e9)), axes)
    return softmax(scores, axes, None if mask is None else value(mask).node)


def _named(layer: Layer, inputs: Sequence[Value]) -> dict[str, Value]:
    """What goes into a layer that is called with query, value and, if it is another, key."""
    names = ("query", "value", "key")
    given = dict(zip(names, inputs, strict=False))
    given |= {name: layer.keywords[name] for name in names if name in layer.keywords}
    if not {"query", "value"} <= set(given) or any(tensor.rank < 3 for tensor in given.values()):
        raise Unsupported("a call with other inputs")
    return {"key": given["value"], **given}


def _projected(layer: Layer, name: str, tensor: Value, shape: tuple[int, int]) -> Node:
    """(B, ..., features) -> (B, ..., heads, size)"""
    features = known(tensor.shape[-1:])
    bias = {f"{name}/bias": shape} if layer.config["use_bias"] else {}
    arrays = layer.arrays(**{f"{name}/kernel": (*features, *shape)}, **bias)
    axes = [f"b{axis}" for axis in range(tensor.rank - 1)]
    kernel = constant(arrays[f"{name}/kernel"])
    node = _einsum(
        [in_keras_order(as_float(tensor)), kernel], [[*axes, "f"], ["f", "n", "h"]], [*axes, "n", "h"]
    )
    return op.add(node, constant(arrays[f"{name}/bias"])) if bias else node


def _joined(
    layer: Layer, node: Node, axes: Sequence[str], heads: tuple[int, int], shape: tuple[int, ...]
) -> Node:
    """(B, ..., heads, size) -> (B, ..., shape...)"""
    bias = {"attention_output/bias": shape} if layer.config["use_bias"] else {}
    arrays = layer.arrays(**{"attention_output/kernel": (*heads, *shape)}, **bias)
    made = [f"o{place}" for place in range(len(shape))]
    kernel = constant(arrays["attention_output/kernel"])
    node = _einsum([node, kernel], [[*axes, "n", "h"], ["n", "h", *made]], [*axes, *made])
    return op.add(node, constant(arrays["attention_output/bias"])) if bias else node


def _heads_mask(layer: Layer, given: dict[str, Value], scores: Node, axes: int) -> Node | None:
    """Which steps of the value each step of the query may see, fit for the scores of all heads."""
    found: Node | None = None
    for name, place in (("query", 2), ("value", 1), ("key", 1)):
        mask = _named_mask(layer, name, given)
        if mask is not None:
            found = _both(found, op.unsqueeze(_rows_of_steps(mask), whole([place])))
    if layer.keywords.get("use_causal_mask"):
        found = _both(found, _causal(scores))
    if found is not None and (axes != 1 or any(tensor.rank != 3 for tensor in given.values())):
        raise Unsupported("a mask over several axes")
    if "attention_mask" in layer.keywords:
        found = _both(found, _as_boolean(in_keras_order(layer.keywords["attention_mask"])))
    if found is None:
        return None
    missing = len(dims(scores)) - len(dims(found))
    if missing < 0:
        raise Unsupported("a mask with more axes than the scores")
    before_heads = len(dims(found)) - 2 * axes
    return op.unsqueeze(found, whole(range(before_heads, before_heads + missing)))


def _named_mask(layer: Layer, name: str, given: dict[str, Value]) -> Mask:
    """The mask of an input: of the call where it has one, else its own; a key that is the value has none."""
    if f"{name}_mask" in layer.keywords:
        if name == "query" and layer.node.class_name == "MultiHeadAttention":
            return given["query"].mask  # Keras takes this one, whatever the call says.
        return in_keras_order(layer.keywords[f"{name}_mask"])
    if name == "key" and given["key"] is given["value"]:
        return None
    return given[name].mask


def _as_boolean(mask: ov.Output) -> ov.Output:
    dtype = value(mask).dtype
    return mask if dtype == "bool" else op.not_equal(mask, constant(0, dtype)).output(0)


def _einsum(nodes: Sequence[Node], axes: Sequence[Sequence[str]], made: Sequence[str]) -> ov.Node:
    """A sum of products over named axes."""
    names = dict.fromkeys(name for operand in axes for name in operand)
    letters = {name: chr(ord("a") + place) for place, name in enumerate(names)}
    left = ",".join("".join(letters[name] for name in operand) for operand in axes)
    return op.einsum(list(nodes), f"{left}->{''.join(letters[name] for name in made)}")


LAYERS: dict[str, BuildLayer] = {
    "AdditiveAttention": _attention,
    "Attention": _attention,
    "GroupQueryAttention": _grouped,
    "MultiHeadAttention": _multi_head,
}
