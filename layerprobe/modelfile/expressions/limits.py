"""How large an expression may be, and how much larger than its input it may make its output."""

from __future__ import annotations

import math

from layerprobe.modelfile.expressions.tree import Call, Constant, Expression, Index, Items, Span

MAX_SIZE = 5_000
"""Nodes of one expression, shared parts counted as often as they occur in its text."""
MAX_DEPTH = 100
MAX_GROWTH = 1 << 24
"""How many times larger than its input an expression may write its output to be."""


def too_large(expression: Expression) -> str | None:
    """Why an expression is refused for its size, as a clause; None where it is not."""
    size, depth, growth = _measured(expression, {})
    if size > MAX_SIZE or depth > MAX_DEPTH:
        return "it is too large"
    if growth > MAX_GROWTH:
        return "its output would be very much larger than its input"
    return None


def _measured(expression: Expression, known: dict[int, tuple[int, int, int]]) -> tuple[int, int, int]:
    """Nodes, depth, and the product of the sizes written in operations which make tensors larger."""
    if id(expression) not in known:
        inner = [_measured(part, known) for part in parts(expression)]
        size = 1 + sum(measured[0] for measured in inner)
        depth = 1 + max((measured[1] for measured in inner), default=0)
        growth = math.prod(measured[2] for measured in inner)
        if isinstance(expression, Call) and expression.name in _GROWING:
            growth *= math.prod(_product(argument, {}) for argument in expression.arguments[1:])
        known[id(expression)] = min(size, _ENOUGH), depth, min(growth, _ENOUGH)
    return known[id(expression)]


def parts(expression: Expression) -> tuple[Expression, ...]:
    """The expressions that an expression is made of, one level down."""
    if isinstance(expression, Items):
        return expression.items
    if isinstance(expression, Call):
        return expression.arguments
    if isinstance(expression, Index):
        return expression.value, expression.key
    if isinstance(expression, Span):
        return expression.start, expression.stop, expression.step
    return ()


def _product(expression: Expression, known: dict[int, int]) -> int:
    """The whole numbers of an expression, multiplied; a power may be anything."""
    if isinstance(expression, Constant):
        return max(1, abs(expression.value)) if type(expression.value) is int else 1
    if isinstance(expression, Call) and expression.name == "power":
        return _ENOUGH
    if id(expression) not in known:
        known[id(expression)] = min(math.prod(_product(part, known) for part in parts(expression)), _ENOUGH)
    return known[id(expression)]


_ENOUGH = 1 << 80
_GROWING = ("tile", "repeat", "resize", "pad", "one_hot", "depth_to_space")
