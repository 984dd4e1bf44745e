"""The operations of expressions (`modelfile/expressions`) on OpenVINO's nodes, in Keras's order of axes.

Numbers and tuples of numbers are Python's until they meet a tensor, whose type they then take, as in Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.activations import ELEMENTWISE
from layerprobe.engines.graph.merge import contract
from layerprobe.engines.graph.rearranging import REARRANGING
from layerprobe.engines.graph.selection import SELECTION
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import FLOATS, INTEGERS, Node, constant, converted, dims, dtype_of, whole

MAX_NUMBERS = 1 << 31
"""In one row of a value within an expression; more is for Keras's engine to refuse."""


def as_node(x: Any, dtype: str) -> Node:
    """A tensor as it is, numbers as a constant of a type that holds them."""
    if isinstance(x, ov.Node | ov.Output):
        if dtype_of(x) != dtype:
            raise Unsupported(f"values of type {dtype_of(x)} that meet {dtype}")
        return x
    array = np.asarray(x)
    if isinstance(x, np.ndarray) and str(x.dtype) != dtype:
        raise Unsupported(f"a constant of type {x.dtype} that meets {dtype}")
    if array.dtype.kind not in "bif" or (array.dtype.kind == "f" and dtype != FLOATS):
        raise Unsupported(f"{x!r} that meets values of type {dtype}")
    return constant(array, dtype)


def _common_type(*operands: Any) -> str:
    types = {dtype_of(x) for x in operands if isinstance(x, ov.Node | ov.Output)}
    if len(types) != 1:
        raise Unsupported(f"operands of types {', '.join(sorted(types)) or 'unknown'}")
    return types.pop()


def _binary(function: Callable[[Node, Node], Node], types: Sequence[str]) -> Callable[[Any, Any], Node]:
    def apply(x1: Any, x2: Any) -> Node:
        dtype = _common_type(x1, x2)
        if dtype not in types:
            raise Unsupported(f"this operation on {dtype}")
        return function(as_node(x1, dtype), as_node(x2, dtype))

    return apply


def _unary(function: Callable[..., Node]) -> Callable[..., Node]:
    def apply(x: Any, *more: Any) -> Node:
        return function(as_node(x, FLOATS), *more)

    return apply


def _axes(x: Node, axis: Any) -> list[int]:
    """Axes counted from the front; None means all of them."""
    rank = len(dims(x))
    given = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    return [number + rank if number < 0 else number for number in given]


def _reduction(function: Callable[[Node, ov.Node, bool], Node]) -> Callable[[Any, Any, bool], Node]:
    def apply(x: Any, axis: Any, keepdims: bool) -> Node:
        x = as_node(x, FLOATS)
        return function(x, whole(_axes(x, axis)), bool(keepdims))

    return apply


def _logical_reduction(function: Callable[[Node, ov.Node, bool], Node]) -> Callable[[Any, Any, bool], Node]:
    def apply(x: Any, axis: Any, keepdims: bool) -> Node:
        return function(as_node(x, "bool"), whole(_axes(x, axis)), bool(keepdims))

    return apply


def _variance(x: Node, axes: ov.Node, keep: bool) -> Node:
    centred = op.subtract(x, op.reduce_mean(x, axes, True))
    return op.reduce_mean(op.multiply(centred, centred), axes, keep)


def _logsumexp(x: Node, axes: ov.Node, keep: bool) -> Node:
    largest = op.reduce_max(x, axes, True)
    total = op.log(op.reduce_sum(op.exp(op.subtract(x, largest)), axes, keep))
    return op.add(total, largest if keep else op.squeeze(largest, axes))


def _l2_normalize(x: Any, axis: Any, epsilon: float) -> Node:
    x = as_node(x, FLOATS)
    total = op.reduce_sum(op.multiply(x, x), whole(_axes(x, axis)), True)
    return op.divide(x, op.sqrt(op.maximum(total, constant(epsilon))))


def _divide_no_nan(x1: Node, x2: Node) -> Node:
    zero = constant(0.0)
    return op.select(op.equal(x2, zero), zero, op.divide(x1, x2))


def _relu(x: Node, negative_slope: float, max_value: float | None, threshold: float) -> Node:
    bent = op.multiply(constant(negative_slope), op.subtract(x, constant(threshold)))
    result = op.select(op.greater_equal(x, constant(threshold)), x, bent)
    return result if max_value is None else op.minimum(result, constant(max_value))


def _log1p(x: Node) -> Node:
    """log(1 + x), also where 1 + x is nearly 1 (Kahan)."""
    sum_ = op.add(x, constant(1.0))
    exact = op.divide(op.multiply(op.log(sum_), x), op.subtract(sum_, constant(1.0)))
    return op.select(op.equal(sum_, constant(1.0)), x, exact)


def _clip(x: Any, x_min: Any, x_max: Any) -> Node:
    dtype = _common_type(x)
    return op.minimum(op.maximum(x, as_node(x_min, dtype)), as_node(x_max, dtype))


def _where(condition: Any, x1: Any, x2: Any) -> Node:
    numbers = not any(isinstance(x, ov.Node | ov.Output) for x in (x1, x2))
    dtype = FLOATS if numbers else _common_type(x1, x2)
    if numbers and not all(isinstance(x, float) for x in (x1, x2)):
        raise Unsupported("a choice between whole numbers")
    return op.select(as_node(condition, "bool"), as_node(x1, dtype), as_node(x2, dtype))


def _cast(x: Any, dtype: str) -> Node:
    if dtype not in (FLOATS, *INTEGERS):
        raise Unsupported(f"a cast to {dtype}")
    if not isinstance(x, ov.Node | ov.Output):
        return constant(x, dtype)
    if dtype == "bool":
        return op.not_equal(x, constant(0, dtype_of(x)))
    return converted(x, dtype)


def _constant(values: Any, dtype: str | None) -> Any:
    return values if dtype is None else _cast(values, dtype)


def _filled(number: int) -> Callable[[Any, str | None], Node]:
    def apply(x: Any, dtype: str | None) -> Node:
        filler = constant(number, dtype or dtype_of(x))
        return op.broadcast(filler, op.shape_of(x))

    return apply


def _matmul(x1: Any, x2: Any, transpose_x1: bool, transpose_x2: bool) -> Node:
    return op.matmul(as_node(x1, FLOATS), as_node(x2, FLOATS), transpose_x1, transpose_x2)


def _dot(x1: Any, x2: Any) -> Node:
    right = as_node(x2, FLOATS)
    if len(dims(right)) != 2:
        raise Unsupported("a dot product of these ranks")
    return _matmul(x1, right, False, False)


def _batch_dot(x1: Any, x2: Any, axes: Any) -> Node:
    ranks = [len(dims(x1)), len(dims(x2))]
    if axes is None:
        axes = (ranks[0] - 1, max(ranks[1] - 2, 1))
    pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
    places = [axis % rank for axis, rank in zip(pair, ranks, strict=True)]
    if any(not 2 <= rank <= 3 for rank in ranks) or 0 in places:
        raise Unsupported("a batch_dot of these ranks")
    return contract(as_node(x1, FLOATS), as_node(x2, FLOATS), places[0], places[1], ranks)


def _cumsum(x: Any, axis: int | None) -> Node:
    if axis is None:
        raise Unsupported("a cumulative sum over all axes")
    return op.cum_sum(as_node(x, FLOATS), constant(_axes(x, axis)[0], np.int64))


def _softmax(function: Callable[[Node, int], Node]) -> Callable[[Any, Any], Node]:
    def apply(x: Any, axis: Any) -> Node:
        (place,) = _axes(x, axis) if axis is not None else [-1]
        return function(as_node(x, FLOATS), place)

    return apply


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a result that is too large before it is computed."""

    def checked(*arguments: Any) -> Any:
        result = function(*arguments)
        if isinstance(result, ov.Node | ov.Output):
            sizes = [size for size in dims(result)[1:] if size is not None]
            if np.prod(sizes, dtype=float) > MAX_NUMBERS:
                raise Unsupported(f"the operation {name} with a result this large")
        return result

    return checked


class _Table(dict[str, Callable[..., Any]]):
    def __missing__(self, name: str) -> Callable[..., Any]:
        raise Unsupported(f"the operation {name}")


_NUMBERS = (FLOATS, "int32", "int64")
_COMPARISONS = ("equal", "greater", "greater_equal", "less", "less_equal", "not_equal")
_PLAIN = "abs ceil cos exp floor log negative sign sin sqrt tan tanh sigmoid softplus"

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **REARRANGING,
    **SELECTION,
    **{name: _binary(getattr(op, name), (*_NUMBERS, "uint8")) for name in _COMPARISONS},
    **{name: _binary(getattr(op, name), _NUMBERS) for name in ("add", "subtract", "multiply")},
    **{name: _binary(getattr(op, name), _NUMBERS) for name in ("maximum", "minimum")},
    **{name: _binary(getattr(op, name), ("bool",)) for name in ("logical_and", "logical_or")},
    **{
        name: _unary(ELEMENTWISE.get(name) or getattr(op, {"ceil": "ceiling"}.get(name, name)))
        for name in _PLAIN.split()
    },
    **{name: _unary(ELEMENTWISE[name]) for name in ("softsign", "relu6", "selu", "silu", "hard_sigmoid")},
    "all": _logical_reduction(op.reduce_logical_and),
    "any": _logical_reduction(op.reduce_logical_or),
    "arctan": _unary(op.atan),
    "batch_dot": _batch_dot,
    "cast": _cast,
    "clip": _clip,
    "constant": _constant,
    "cumsum": _cumsum,
    "divide": _binary(op.divide, (FLOATS,)),
    "divide_no_nan": _binary(_divide_no_nan, (FLOATS,)),
    "dot": _dot,
    "dtype": dtype_of,
    "elu": _unary(lambda x, alpha: op.elu(x, float(alpha))),
    "floor_divide": _binary(lambda x1, x2: op.floor(op.divide(x1, x2)), (FLOATS,)),
    "gelu": _unary(lambda x, approximate: op.gelu(x, "tanh" if approximate else "erf")),
    "l2_normalize": _l2_normalize,
    "leaky_relu": _unary(lambda x, slope: op.prelu(x, constant([slope]))),
    "log1p": _unary(_log1p),
    "log_softmax": _softmax(op.log_softmax),
    "logical_not": lambda x: op.logical_not(as_node(x, "bool")),
    "logsumexp": _reduction(_logsumexp),
    "matmul": _matmul,
    "max": _reduction(op.reduce_max),
    "mean": _reduction(op.reduce_mean),
    "min": _reduction(op.reduce_min),
    "mod": _binary(op.floor_mod, (FLOATS,)),
    "ones_like": _filled(1),
    "power": _binary(op.power, (FLOATS,)),
    "prod": _reduction(op.reduce_prod),
    "relu": _unary(_relu),
    "round": _unary(lambda x: op.round(x, "half_to_even")),
    "rsqrt": _unary(lambda x: op.divide(constant(1.0), op.sqrt(x))),
    "softmax": _softmax(op.softmax),
    "square": _unary(lambda x: op.multiply(x, x)),
    "std": _reduction(lambda x, axes, keep: op.sqrt(_variance(x, axes, keep))),
    "sum": _reduction(op.reduce_sum),
    "var": _reduction(_variance),
    "where": _where,
    "zeros_like": _filled(0),
}

FUNCTIONS: Mapping[str, Callable[..., Any]] = _Table(
    {name: _bounded(name, function) for name, function in _FUNCTIONS.items()}
)
"""Operation -> its function, called with the arguments in the order of `modelfile/expressions`."""
