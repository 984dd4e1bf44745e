"""Layers that make one tensor of several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Mask,
    Node,
    Value,
    axis_of,
    channels_first,
    constant,
    in_keras_order,
    only_float,
    value,
    whole,
)


def aligned(inputs: Sequence[Value]) -> tuple[list[Node], bool]:
    """The nodes in one order of axes, and whether that is the turned one."""
    ranks = {tensor.rank for tensor in inputs}
    if len(ranks) == 1 and any(tensor.turned for tensor in inputs):
        return [channels_first(tensor) for tensor in inputs], True
    longest = max(ranks)
    return [_lengthened(in_keras_order(tensor), longest - tensor.rank) for tensor in inputs], False


def _lengthened(node: Node, axes: int) -> Node:
    """With so many axes of size 1 put in after the batch's."""
    return op.unsqueeze(node, whole(range(1, axes + 1))) if axes else node


def _merge(combine: Callable[[list[Node]], Node]) -> BuildLayer:
    def build(layer: Layer, inputs: Sequence[Value]) -> Value:
        for tensor in inputs:
            only_float(tensor)
        nodes, turned = aligned(inputs)
        return value(combine(nodes), turned)

    return build


def _masked(plain: BuildLayer, combine: Callable[[list[Node], list[Mask]], Node]) -> BuildLayer:
    """A merge whose values depend on masks; Keras loses those of inputs that it has to lengthen."""

    def build(layer: Layer, inputs: Sequence[Value]) -> Value | list[Value]:
        longest = max(tensor.rank for tensor in inputs)
        masks = [tensor.mask if tensor.rank == longest else None for tensor in inputs]
        if all(mask is None for mask in masks):
            return plain(layer, inputs)
        nodes, _ = aligned([value(in_keras_order(only_float(tensor))) for tensor in inputs])
        spread = [None if mask is None else op.unsqueeze(mask, whole([-1])).output(0) for mask in masks]
        return value(combine(nodes, spread))

    return build


def _product(nodes: list[Node], masks: list[Mask]) -> Node:
    """What a mask leaves out counts as 1, and where all masks leave it out the product is 0."""
    factors = [
        node if mask is None else op.select(mask, node, constant(1.0))
        for node, mask in zip(nodes, masks, strict=True)
    ]
    product = functools.reduce(op.multiply, factors)
    known = [mask for mask in masks if mask is not None]
    if len(known) < len(masks):
        return product
    return op.select(functools.reduce(op.logical_or, known), product, constant(0.0))


def _extreme(choose: Callable[[Node, Node], Node]) -> Callable[[list[Node], list[Mask]], Node]:
    """What a mask leaves out is taken from the other side, as long as one has a mask there."""

    def combine(nodes: list[Node], masks: list[Mask]) -> Node:
        result, counted = nodes[0], masks[0]
        for node, mask in zip(nodes[1:], masks[1:], strict=True):
            if mask is not None:
                node = op.select(mask, node, result)
            if counted is not None:
                result = op.select(counted, result, node)
            both = mask is not None and counted is not None
            counted = op.logical_or(counted, mask).output(0) if both else None
            result = choose(result, node)
        return result

    return combine


def _subtract(nodes: list[Node]) -> Node:
    if len(nodes) != 2:
        raise Unsupported(f"a Subtract of {len(nodes)} inputs")
    return op.subtract(*nodes)


def _average(nodes: list[Node]) -> Node:
    return op.multiply(functools.reduce(op.add, nodes), constant(1 / len(nodes)))


def _scaled_sum(layer: Layer, inputs: Sequence[Value]) -> Value | list[Value]:
    """The first and a share of the second, with which the blocks of InceptionResNetV2 end."""
    share = constant(layer.config["scale"])
    return _merge(lambda nodes: op.add(nodes[0], op.multiply(nodes[1], share)))(layer, inputs)


def _concatenate(layer: Layer, inputs: Sequence[Value]) -> Value:
    if len({tensor.dtype for tensor in inputs}) != 1 or len({tensor.rank for tensor in inputs}) != 1:
        raise Unsupported("inputs of several types or ranks")
    nodes, turned = aligned(inputs)
    axis = axis_of(value(nodes[0], turned), layer.config["axis"])
    return value(op.concat(nodes, axis), turned)


def _dot(layer: Layer, inputs: Sequence[Value]) -> Value:
    """Contracts one axis of each; with `normalize`, of vectors of length 1."""
    if len(inputs) != 2 or any(not 2 <= tensor.rank <= 3 for tensor in inputs):
        raise Unsupported("a Dot of these ranks")
    axes = layer.config["axes"]
    both = (axes, axes) if isinstance(axes, int) else tuple(axes)
    places = [axis % tensor.rank for axis, tensor in zip(both, inputs, strict=True)]
    if 0 in places:
        raise Unsupported(f"axes={axes}")
    nodes: list[Node] = [in_keras_order(only_float(tensor)) for tensor in inputs]
    if layer.config["normalize"]:
        nodes = [_unit(node, place) for node, place in zip(nodes, places, strict=True)]
    return value(contract(nodes[0], nodes[1], places[0], places[1], [tensor.rank for tensor in inputs]))


def contract(x1: Node, x2: Node, axis1: int, axis2: int, ranks: Sequence[int]) -> Node:
    """Sum over one axis of each of two tensors of two or three axes, sample by sample; (B, 1) at least."""
    left = op.unsqueeze(x1, whole([1])) if ranks[0] == 2 else x1
    right = op.unsqueeze(x2, whole([1])) if ranks[1] == 2 else x2
    on_left = axis1 if ranks[0] == 3 else 2
    on_right = axis2 if ranks[1] == 3 else 2
    product = op.matmul(left, right, on_left == 1, on_right == 2)
    gone = [axis for axis, rank in ((1, ranks[0]), (2, ranks[1])) if rank == 2]
    return op.squeeze(product, whole(gone[:1])) if gone else product


def _unit(x: Node, axis: int) -> Node:
    total = op.reduce_sum(op.multiply(x, x), whole([axis]), True)
    return op.divide(x, op.sqrt(op.maximum(total, constant(1e-12))))


LAYERS: dict[str, BuildLayer] = {
    "Add": _merge(lambda nodes: functools.reduce(op.add, nodes)),
    "Average": _merge(_average),
    "Concatenate": _concatenate,
    "CustomScaleLayer": _scaled_sum,
    "Dot": _dot,
    "Maximum": _masked(_merge(lambda nodes: functools.reduce(op.maximum, nodes)), _extreme(op.maximum)),
    "Minimum": _masked(_merge(lambda nodes: functools.reduce(op.minimum, nodes)), _extreme(op.minimum)),
    "Multiply": _masked(_merge(lambda nodes: functools.reduce(op.multiply, nodes)), _product),
    "Subtract": _merge(_subtract),
}
