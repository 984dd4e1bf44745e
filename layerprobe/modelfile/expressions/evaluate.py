"""Evaluates an expression with the operations of any engine; sizes stay Python's whole numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from layerprobe.modelfile.expressions.tree import Call, Constant, Expression, Index, Input, Items, Span

_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "mod": operator.mod,
    "power": lambda base, exponent: float(base) ** exponent if abs(exponent) > 64 else base**exponent,
    "negative": operator.neg,
}
"""Between two numbers, tensors not among them: what Python computes while the model is built."""


def evaluate(expression: Expression, x: Any, operations: Mapping[str, Callable[..., Any]]) -> Any:
    """Compute an expression.

    Args:
        expression: What to compute.
        x: The layer's input: a tensor, or a tuple of tensors.
        operations: A function for each name in `OPERATIONS`, and "index" (value, key), where key is what
            stands between the brackets: a whole number, slice, None, `...`, a tensor, or a tuple of them.
            Tensors, numbers, and tuples of numbers come as they are; `shape` must give a tuple.

    Returns:
        A tensor of the engine, or a tuple of tensors.
    """
    return _Evaluation(x, operations).value(expression)


class _Evaluation:
    def __init__(self, x: Any, operations: Mapping[str, Callable[..., Any]]) -> None:
        self._x = x
        self._operations = operations
        self._done: dict[int, Any] = {}

    def value(self, expression: Expression) -> Any:
        """Compute each shared part once."""
        if id(expression) not in self._done:
            self._done[id(expression)] = self._compute(expression)
        return self._done[id(expression)]

    def _compute(self, expression: Expression) -> Any:
        if isinstance(expression, Input):
            return self._x
        if isinstance(expression, Constant):
            return expression.value
        if isinstance(expression, Items):
            return tuple(self.value(item) for item in expression.items)
        if isinstance(expression, Span):
            return slice(
                self.value(expression.start), self.value(expression.stop), self.value(expression.step)
            )
        if isinstance(expression, Index):
            value, key = self.value(expression.value), self.value(expression.key)
            return value[key] if isinstance(value, tuple) else self._operations["index"](value, key)
        return self._call(expression)

    def _call(self, expression: Call) -> Any:
        arguments = [self.value(argument) for argument in expression.arguments]
        if expression.name in _NUMBERS and all(isinstance(a, int | float) for a in arguments):
            return _NUMBERS[expression.name](*arguments)
        if expression.name == "add" and all(isinstance(a, tuple) for a in arguments):
            return arguments[0] + arguments[1]
        return self._operations[expression.name](*arguments)
