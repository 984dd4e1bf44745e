"""Operations of expressions that say where values are, and sums of products along named axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openvino import opset13 as op

from layerprobe.engines.graph.dense import named_axes
from layerprobe.engines.graph.rearranging import place_of
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import FLOATS, Node, constant, converted, dims, dtype_of, whole


def in_sequence(x: Any, axis: int, count: int, mode: str) -> tuple[Node, Node]:
    """The first so many along an axis in order, and where they were; of equal ones the earlier first."""
    found = op.topk(
        x,
        constant(count, "int32"),
        place_of(axis, len(dims(x))),
        mode,
        "value",
        "i32",
        True,
    )
    return found.output(0), found.output(1)


def extreme(mode: str) -> Callable[..., Node]:
    """Where the largest ("max") or smallest ("min") value along an axis is, int32."""

    def apply(x: Any, axis: int | None = None, keepdims: bool = False) -> Node:
        if axis is None:
            raise Unsupported("a place among all values")
        _, place = in_sequence(x, axis, 1, mode)
        return place if keepdims else op.squeeze(place, whole([place_of(axis, len(dims(x)))]))

    return apply


def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: str = FLOATS, sparse: bool = False) -> Node:
    """1 at the place that each index names, 0 elsewhere, along a new axis."""
    if sparse:
        raise Unsupported("a sparse result")
    kinds = constant(num_classes, "int64")
    return op.one_hot(converted(x, "int64"), kinds, constant(1, dtype), constant(0, dtype), axis)


def einsum(subscripts: str, operands: Any) -> Node:
    """A sum of products over the axes that an equation such as "bij,bjk->bik" names."""
    nodes = list(operands)
    if any(dtype_of(x) != FLOATS for x in nodes):
        raise Unsupported("an equation of other values than float32")
    axes = named_axes(subscripts, [len(dims(x)) for x in nodes])
    return op.einsum(nodes, f"{','.join(axes[:-1])}->{axes[-1]}")


SELECTION: Mapping[str, Callable[..., Any]] = {
    "argmax": extreme("max"),
    "argmin": extreme("min"),
    "einsum": einsum,
    "one_hot": one_hot,
}
