"""What a Lambda layer computes, as a small tree of data: the input, constants, indexing, known operations.

The text of an expression, `str(expression)`, is the language of `--lambda` and parses back to an equal tree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import EllipsisType

from layerprobe.modelfile.expressions.operations import INFIX, OPERATIONS, PREFIX

Scalar = bool | int | float | str | None | EllipsisType


@dataclass(frozen=True, slots=True)
class Input:
    """What goes into the layer, written `x`; where that is a list of tensors, `x[0]` is the first."""

    def __str__(self) -> str:
        return "x"


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a name such as "float32", None, or the `...` of an index."""

    value: Scalar

    def __eq__(self, other: object) -> bool:
        """1, 1.0 and True are different constants, and so are 0.0 and -0.0."""
        return isinstance(other, Constant) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))

    def __str__(self) -> str:
        if isinstance(self.value, float) and math.isinf(self.value):
            return "1e999" if self.value > 0 else "-1e999"
        return "..." if self.value is ... else repr(self.value)


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple or list: several tensors, a shape, axes, one number per channel."""

    items: tuple[Expression, ...]

    def __str__(self) -> str:
        inner = ", ".join(str(item) for item in self.items)
        return f"({inner},)" if len(self.items) == 1 else f"({inner})"


@dataclass(frozen=True, slots=True)
class Span:
    """`start:stop:step` inside an index; Constant(None) where one is left out."""

    start: Expression
    stop: Expression
    step: Expression

    def __str__(self) -> str:
        bounds = [
            "" if bound == Constant(None) else str(bound) for bound in (self.start, self.stop, self.step)
        ]
        return ":".join(bounds if bounds[2] else bounds[:2])


@dataclass(frozen=True, slots=True)
class Index:
    """`value[key]`; several keys at once are Items."""

    value: Expression
    key: Expression

    def __str__(self) -> str:
        key = self.key
        plain = isinstance(key, Items) and len(key.items) > 0
        return f"{_operand(self.value, _ATOM)}[{str(key)[1:-1] if plain else key}]"


@dataclass(frozen=True, slots=True)
class Call:
    """A known operation with all its arguments, in the order of `OPERATIONS`."""

    name: str
    arguments: tuple[Expression, ...]

    def __str__(self) -> str:
        if self.name in INFIX:
            return self._infix(*INFIX[self.name])
        if self.name in PREFIX:
            symbol, level = PREFIX[self.name]
            return f"{symbol}{_operand(self.arguments[0], level)}"
        shown = []
        for parameter, argument in zip(OPERATIONS[self.name], self.arguments, strict=True):
            if parameter.required:
                shown.append(str(argument))
            elif argument != Constant(parameter.default):
                shown.append(f"{parameter.name}={argument}")
        return f"{self.name}({', '.join(shown)})"

    def _infix(self, symbol: str, level: int) -> str:
        """Powers bind to the right, everything else to the left; comparisons are never chained."""
        left, right = self.arguments
        return (
            f"{_operand(left, level + (symbol in _NOT_LEFT))} {symbol} "
            f"{_operand(right, level + (symbol != '**'))}"
        )


Expression = Input | Constant | Items | Span | Index | Call

_ATOM = 10
_NOT_LEFT = ("**", "<", "<=", ">", ">=", "==", "!=")


def _operand(expression: Expression, level: int) -> str:
    """The text of a part, in brackets where it binds less tightly than `level`."""
    text = str(expression)
    own = _ATOM
    if isinstance(expression, Call):
        own = INFIX.get(expression.name, PREFIX.get(expression.name, ("", _ATOM)))[1]
    elif isinstance(expression, Constant) and text.startswith("-"):
        own = PREFIX["negative"][1]
    elif isinstance(expression, Constant) and level == _ATOM:
        own = 0
    return f"({text})" if own < level else text
