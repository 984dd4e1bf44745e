"""Bare operations of Keras 3 that expressions do not have, called with Keras's own argument names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from openvino import opset13 as op

from layerprobe.engines.graph.activations import ELEMENTWISE
from layerprobe.engines.graph.functions import FUNCTIONS, as_node
from layerprobe.engines.graph.images import at_size
from layerprobe.engines.graph.rearranging import cut, place_of, split
from layerprobe.engines.graph.selection import einsum, extreme, in_sequence, one_hot
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import FLOATS, Node, constant, dims, known, whole


def _floats(function: Callable[..., Node]) -> Callable[..., Node]:
    """A function of one float32 tensor."""

    def apply(x: Any) -> Node:
        return function(as_node(x, FLOATS))

    return apply


def _times(factor: float) -> Callable[..., Node]:
    return _floats(lambda x: op.multiply(x, constant(factor)))


def _expm1(x: Any) -> Node:
    """exp(x) - 1, also where exp(x) is nearly 1 (Kahan)."""
    power = op.exp(as_node(x, FLOATS))
    one = constant(1.0)
    part = op.subtract(power, one)
    exact = op.divide(op.multiply(part, x), op.log(power))
    ends = op.logical_or(op.equal(part, constant(-1.0)), op.greater(power, constant(1e30)))
    return op.select(op.equal(power, one), x, op.select(ends, part, exact))


def _trunc(x: Any) -> Node:
    x = as_node(x, FLOATS)
    return op.select(op.less(x, constant(0.0)), op.ceiling(x), op.floor(x))


def _celu(x: Any, alpha: float = 1.0) -> Node:
    bent = op.multiply(_expm1(op.divide(op.minimum(x, constant(0.0)), constant(alpha))), constant(alpha))
    return op.add(op.relu(as_node(x, FLOATS)), bent)


def _glu(x: Any, axis: int = -1) -> Node:
    halves = split(as_node(x, FLOATS), 2, axis)
    return op.multiply(halves[0], op.sigmoid(halves[1]))


def _hard_shrink(x: Any, threshold: float = 0.5) -> Node:
    return op.select(op.greater(op.abs(as_node(x, FLOATS)), constant(threshold)), x, constant(0.0))


def _soft_shrink(x: Any, threshold: float = 0.5) -> Node:
    x, edge = as_node(x, FLOATS), constant(threshold)
    return op.subtract(op.relu(op.subtract(x, edge)), op.relu(op.subtract(op.negative(x), edge)))


def _squareplus(x: Any, b: float = 4) -> Node:
    root = op.sqrt(op.add(op.multiply(as_node(x, FLOATS), x), constant(b)))
    return op.multiply(op.add(x, root), constant(0.5))


def _threshold(x: Any, threshold: float, default_value: float) -> Node:
    return op.select(op.greater(as_node(x, FLOATS), constant(threshold)), x, constant(default_value))


def _normalize(x: Any, axis: int = -1, order: int = 2, epsilon: float = 1e-7) -> Node:
    if order != 2:
        raise Unsupported(f"a norm of order {order}")
    x = as_node(x, FLOATS)
    total = op.reduce_sum(op.multiply(x, x), whole([place_of(axis, len(dims(x)))]), True)
    return op.divide(x, op.sqrt(op.maximum(total, constant(epsilon**2))))


def _top_k(x: Any, k: int, sorted: bool = True) -> tuple[Node, Node]:
    return in_sequence(x, -1, k, "max")


def _sort(part: int) -> Callable[..., Node]:
    def apply(x: Any, axis: int = -1) -> Node:
        (size,) = known([dims(x)[place_of(axis, len(dims(x)))]])
        return in_sequence(x, axis, size, "min")[part]

    return apply


def _moved(x: Any, sources: list[int], targets: list[int]) -> Node:
    order = [axis for axis in range(len(dims(x))) if axis not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return op.transpose(x, whole(order))


def _moveaxis(x: Any, source: Any, destination: Any) -> Node:
    pairs = [[axes] if isinstance(axes, int) else list(axes) for axes in (source, destination)]
    sources, targets = ([place_of(axis, len(dims(x))) for axis in axes] for axes in pairs)
    return _moved(x, sources, targets)


def _swapaxes(x: Any, axis1: int, axis2: int) -> Node:
    first, second = (place_of(axis, len(dims(x))) for axis in (axis1, axis2))
    return x if first == second else _moved(x, [first, second], [second, first])


def _roll(x: Any, shift: int, axis: int | None = None) -> Node:
    if type(axis) is not int or type(shift) is not int:
        raise Unsupported("a roll of several axes")
    place = place_of(axis, len(dims(x)))
    (size,) = known([dims(x)[place]])
    edge = -shift % size
    return op.concat([cut(x, place, edge, size), cut(x, place, 0, edge)], place) if edge else x


def _moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> tuple[Node, Node]:
    return FUNCTIONS["mean"](x, axes, keepdims), FUNCTIONS["var"](x, axes, keepdims)


def _average(x: Any, axis: Any = None) -> Node:
    mean: Node = FUNCTIONS["mean"](x, axis, False)
    return mean


def _take(x: Any, indices: Any, axis: int | None = None) -> Node:
    taken: Node = FUNCTIONS["take"](x, indices, axis)
    return taken


def _blocks(name: str) -> Callable[..., Node]:
    def apply(x: Any, block_size: int, data_format: str = "channels_last") -> Node:
        if data_format != "channels_last":
            raise Unsupported(f"data_format={data_format}")
        moved: Node = FUNCTIONS[name](x, block_size)
        return moved

    return apply


def _logical_xor(x1: Any, x2: Any) -> Node:
    return op.logical_xor(as_node(x1, "bool"), as_node(x2, "bool"))


def _resize(x: Any, size: Any, data_format: str = "channels_last", **how: Any) -> Node:
    x = as_node(x, FLOATS)
    if len(dims(x)) != 4:
        raise Unsupported(f"a tensor with {len(dims(x))} axes")
    height, width = size
    if data_format == "channels_first":
        return at_size(x, (height, width), how)
    resized = at_size(op.transpose(x, whole([0, 3, 1, 2])), (height, width), how)
    return op.transpose(resized, whole([0, 2, 3, 1]))


def _grayscale(x: Any, data_format: str = "channels_last") -> Node:
    axis = len(dims(x)) - (1 if data_format == "channels_last" else 3)
    shape = [3 if place == axis else 1 for place in range(len(dims(x)))]
    shares = op.reshape(constant([0.2989, 0.587, 0.114]), whole(shape), False)
    return op.reduce_sum(op.multiply(as_node(x, FLOATS), shares), whole([axis]), True)


_ALIKE = "hard_silu hard_tanh log_sigmoid sparse_plus sparse_sigmoid tanh_shrink"

OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **{name.title().replace("_", ""): _floats(ELEMENTWISE[name]) for name in _ALIKE.split()},
    "Arccos": _floats(op.acos),
    "Arccosh": _floats(op.acosh),
    "Arcsin": _floats(op.asin),
    "Arcsinh": _floats(op.asinh),
    "Arctan": _floats(op.atan),
    "Arctanh": _floats(op.atanh),
    "Argmax": extreme("max"),
    "Argmin": extreme("min"),
    "Argsort": _sort(1),
    "Average": _average,
    "Celu": _celu,
    "Copy": lambda x: x,
    "Cosh": _floats(op.cosh),
    "Cumsum": lambda x, axis=None: FUNCTIONS["cumsum"](x, axis),
    "Deg2rad": _times(math.pi / 180),
    "DepthToSpace": _blocks("depth_to_space"),
    "DivideNoNan": lambda x1, x2: FUNCTIONS["divide_no_nan"](x1, x2),
    "Einsum": lambda *operands, subscripts: einsum(subscripts, operands),
    "Elu": lambda x, alpha=1.0: FUNCTIONS["elu"](x, alpha),
    "Erf": _floats(op.erf),
    "Exp2": _floats(lambda x: op.power(constant(2.0), x)),
    "Expm1": _expm1,
    "Fabs": _floats(op.abs),
    "Fliplr": lambda x: FUNCTIONS["flip"](x, 1),
    "FloorDivide": lambda x1, x2: FUNCTIONS["floor_divide"](x1, x2),
    "Gelu": lambda x, approximate=True: FUNCTIONS["gelu"](x, approximate),
    "Glu": _glu,
    "HardShrink": _hard_shrink,
    "Hstack": lambda xs: FUNCTIONS["concatenate"](xs, 1),
    "LeakyRelu": lambda x, negative_slope=0.2: FUNCTIONS["leaky_relu"](x, negative_slope),
    "Log10": _floats(lambda x: op.divide(op.log(x), constant(math.log(10)))),
    "Log2": _floats(lambda x: op.divide(op.log(x), constant(math.log(2)))),
    "LogicalXor": _logical_xor,
    "Moments": _moments,
    "Moveaxis": _moveaxis,
    "Normalize": _normalize,
    "OneHot": one_hot,
    "OnesLike": lambda x, dtype=None: FUNCTIONS["ones_like"](x, dtype),
    "RGBToGrayscale": _grayscale,
    "Rad2deg": _times(180 / math.pi),
    "Reciprocal": _floats(lambda x: op.divide(constant(1.0), x)),
    "Resize": _resize,
    "Roll": _roll,
    "Sinh": _floats(op.sinh),
    "SoftShrink": _soft_shrink,
    "Sort": _sort(0),
    "SpaceToDepth": _blocks("space_to_depth"),
    "Split": lambda x, indices_or_sections, axis=0: split(x, indices_or_sections, axis),
    "Squareplus": _squareplus,
    "StopGradient": lambda variable: variable,
    "Swapaxes": _swapaxes,
    "Take": _take,
    "Threshold": _threshold,
    "TopK": _top_k,
    "Trunc": _trunc,
    "Unstack": lambda x, num=None, axis=0: FUNCTIONS["unstack"](x, num, axis),
    "ZerosLike": lambda x, dtype=None: FUNCTIONS["zeros_like"](x, dtype),
}
"""Class of an operation -> its function; arguments that are None are left out of a call."""
