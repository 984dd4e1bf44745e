"""Python syntax -> an expression: the one way in, for the text of `--lambda` and for decoded byte code.

Python's `ast` parses; nothing is compiled or evaluated. Whatever is not the input, a constant, arithmetic,
indexing, a shape or a known operation ends with `NotKnown`, which holds the offending piece of syntax.
"""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from layerprobe.errors import UsageError
from layerprobe.modelfile.expressions.calls import NotKnown, bind, call
from layerprobe.modelfile.expressions.limits import too_large
from layerprobe.modelfile.expressions.operations import OPERATIONS
from layerprobe.modelfile.expressions.spellings import (
    CONSTANTS,
    MERGES,
    SHARED,
    canonical,
    definitions,
)
from layerprobe.modelfile.expressions.tree import Call, Constant, Expression, Index, Input, Items, Span

MAX_TEXT = 10_000


def parse_expression(text: str) -> Expression:
    """Parse an expression such as `x / 127.5 - 1`, `K.abs(x[0] - x[1])` or `lambda a, b: a * b`.

    Args:
        text: One Python expression in the layer's input, `x`; a list of inputs is `x[0]`, `x[1]`, ... A
            lambda names its input itself; one with several parameters names the inputs one by one.
            Operations may be written bare or as `K.`, `tf.` and `keras.ops.` functions.

    Raises:
        UsageError: The text is no expression, or holds something that is not a known operation.
    """
    if len(text) > MAX_TEXT:
        raise UsageError(f"the expression has {len(text)} characters: expected at most {MAX_TEXT}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # Of odd escapes, which are refused anyway.
            node = ast.parse(text.strip(), mode="eval").body
        return _translate_function(node) if isinstance(node, ast.Lambda) else translate(node, {"x": Input()})
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"the expression {text!r} is not valid Python: {error}.") from error
    except (RecursionError, MemoryError) as error:
        raise UsageError("the expression is nested too deep: write it in smaller parts.") from error
    except NotKnown as error:
        piece = ast.get_source_segment(text.strip(), error.node) if hasattr(error.node, "lineno") else None
        raise UsageError(
            f"the expression cannot be used at {(piece or text)[:80]!r}: {error.reason}. "
            f"Write it in x (x[0], x[1] for several inputs), numbers and known operations."
        ) from error


def translate(node: ast.expr, names: Mapping[str, Expression], bare_operations: bool = True) -> Expression:
    """Turn syntax into an expression.

    Args:
        node: What the layer returns.
        names: The variables that have a value.
        bare_operations: Whether `sum(x)` is the known operation; in byte code it is Python's own.

    Raises:
        NotKnown: There is no expression for it.
        RecursionError: It is nested too deep.
    """
    expression = _Translator(names, bare_operations).visit(node)
    excess = too_large(expression)
    if excess is not None:
        raise NotKnown(excess, node)
    return expression


def _translate_function(node: ast.Lambda) -> Expression:
    parameters = node.args
    if parameters.vararg or parameters.kwarg or parameters.kwonlyargs:
        raise NotKnown("only plain parameters are possible", node)
    names: dict[str, Expression] = {}
    plain = parameters.args[: len(parameters.args) - len(parameters.defaults)]
    for place, parameter in enumerate(plain):
        names[parameter.arg] = Input() if len(plain) == 1 else Index(Input(), Constant(place))
    for parameter, default in zip(parameters.args[len(plain) :], parameters.defaults, strict=True):
        names[parameter.arg] = translate(default, {})
    return translate(node.body, names)


class _Translator:
    def __init__(self, names: Mapping[str, Expression], bare_operations: bool) -> None:
        self._names = names
        self._bare_operations = bare_operations

    def visit(self, node: ast.expr) -> Expression:
        """Translate one piece."""
        if isinstance(node, ast.Constant):
            return _constant(node)
        if isinstance(node, ast.Tuple | ast.List):
            return Items(tuple(self.visit(item) for item in node.elts))
        if isinstance(node, ast.BinOp):
            return self._operation(_OPERATORS.get(type(node.op)), node, node.left, node.right)
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            name = _COMPARISONS.get(type(node.ops[0]))
            return self._operation(name, node, node.left, node.comparators[0])
        if isinstance(node, ast.Subscript):
            return _index(self.visit(node.value), self._key(node.slice), node)
        if isinstance(node, ast.Name | ast.Attribute):
            return self._named(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise NotKnown(f"a {type(node).__name__} is not possible in an expression", node)

    def _operation(self, name: str | None, node: ast.expr, *operands: ast.expr) -> Expression:
        if name is None:
            raise NotKnown("this operator is not a known operation", node)
        return call(name, [self.visit(operand) for operand in operands], {}, node)

    def _unary(self, node: ast.UnaryOp) -> Expression:
        if isinstance(node.op, ast.UAdd):
            return self.visit(node.operand)
        name = {ast.USub: "negative", ast.Not: "logical_not"}.get(type(node.op))
        if name == "logical_not" and not self._bare_operations:
            name = None  # Python's `not` asks a tensor for one truth value.
        return self._operation(name, node, node.operand)

    def _key(self, node: ast.expr) -> Expression:
        if isinstance(node, ast.Slice):
            bounds = (
                Constant(None) if b is None else self.visit(b) for b in (node.lower, node.upper, node.step)
            )
            return Span(*bounds)
        if isinstance(node, ast.Tuple):
            return Items(tuple(self._key(item) for item in node.elts))
        return self.visit(node)

    def _named(self, node: ast.Name | ast.Attribute) -> Expression:
        dotted = self._dotted(node)
        if dotted is not None:
            if canonical(dotted) in CONSTANTS:
                return Constant(CONSTANTS[canonical(dotted)])
            raise NotKnown(f"{dotted[:80]} is not known", node)
        if isinstance(node, ast.Name):
            return self._names[node.id]
        value = self.visit(node.value)
        if node.attr in ("shape", "dtype", "ndim"):
            return call(node.attr, [value], {}, node)
        if node.attr == "value":  # Of a Dimension, TensorFlow 1's number in a shape.
            return value
        raise NotKnown(f"the attribute {node.attr[:80]} is not known", node)

    def _dotted(self, node: ast.expr) -> str | None:
        """`a.b.c` where a is no variable; None where it is one, or something else altogether."""
        if isinstance(node, ast.Name):
            return None if node.id in self._names else node.id
        if isinstance(node, ast.Attribute):
            beginning = self._dotted(node.value)
            return None if beginning is None else f"{beginning}.{node.attr}"
        return None

    def _call(self, node: ast.Call) -> Expression:
        dotted, places, names = self._dotted(node.func), node.args, node.keywords
        if isinstance(node.func, ast.Call):
            dotted = self._dotted(node.func.func)
            if dotted is None or not canonical(dotted).startswith("layers."):
                raise NotKnown("only known operations can be called", node)
            dotted = f"applied.{canonical(dotted)}"
            places, names = [*places, *node.func.args], [*names, *node.func.keywords]
        if dotted is None:
            return self._method(node)
        arguments = [self.visit(argument) for argument in places]
        keywords = {}
        for keyword in names:
            if keyword.arg is None or keyword.arg in keywords:
                raise NotKnown("keywords cannot be unpacked or repeated", node)
            keywords[keyword.arg] = self.visit(keyword.value)
        return self._function(canonical(dotted), dotted, arguments, keywords, node)

    def _method(self, node: ast.Call) -> Expression:
        if isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
            value = self.visit(node.func.value)
            if node.func.attr == "get_shape":
                return call("shape", [value], {}, node)
            if node.func.attr == "as_list":
                return value
        raise NotKnown("only known operations can be called", node)

    def _function(
        self,
        name: str,
        written: str,
        arguments: Sequence[Expression],
        keywords: Mapping[str, Expression],
        node: ast.expr,
    ) -> Expression:
        if name.startswith("tf1.") and name not in definitions():
            name = "tf." + name.removeprefix("tf1.")
        module, _, function = name.rpartition(".")
        if name in definitions() and (module or not self._bare_operations or function not in OPERATIONS):
            return _inline(name, arguments, keywords, node)
        shared = module == "ops" or (not module and self._bare_operations)
        if function in OPERATIONS and (shared or function in SHARED.get(module, "").split()):
            return call(function, arguments, keywords, node)
        if name in MERGES and len(arguments) == 1 and not keywords:
            return _merged(name, arguments[0], node)
        if name == "int" and len(arguments) == 1:
            return _whole_number(arguments[0], node)
        if "random" in name or "dropout" in name:
            raise NotKnown(f"random: {written[:80]} gives other numbers at each call", node)
        raise NotKnown(f"{written[:80]} is not a known operation", node)


def _inline(
    name: str, arguments: Sequence[Expression], keywords: Mapping[str, Expression], node: ast.expr
) -> Expression:
    """Put the arguments into the definition of a function."""
    definition = definitions()[name]
    parameters = [parameter.arg for parameter in definition.args.args]
    defaults = dict(
        zip(reversed(parameters), [_literal(d) for d in reversed(definition.args.defaults)], strict=False)
    )
    rest = definition.args.vararg
    if rest is not None:
        arguments = [*arguments[: len(parameters)], Items(tuple(arguments[len(parameters) :]))]
        parameters.append(rest.arg)
    bound = bind(name, parameters, defaults, arguments, keywords, node)
    used = {piece.id for piece in ast.walk(definition.body) if isinstance(piece, ast.Name)}
    for parameter, value in bound.items():
        if parameter not in used and value != defaults.get(parameter):
            shown = f"={value}" if isinstance(value, Constant) else ""
            raise NotKnown(f"{name} with {parameter}{shown} is not a known operation", node)
    try:
        return _Translator(bound, True).visit(definition.body)
    except NotKnown as error:
        raise NotKnown(error.reason, node) from error


def _merged(name: str, inputs: Expression, node: ast.expr) -> Expression:
    """`Add()([a, b, c])` and its kind: the operation between each and the next."""
    if not isinstance(inputs, Items) or not inputs.items:
        raise NotKnown(f"{name} needs its inputs in a list", node)
    merged = functools.reduce(lambda a, b: call(MERGES[name], [a, b], {}, node), inputs.items)
    if name == "applied.layers.Average":
        return call("divide", [merged, Constant(len(inputs.items))], {}, node)
    return merged


def _literal(node: ast.expr) -> Expression:
    return _Translator({}, False).visit(node)


def _constant(node: ast.Constant) -> Constant:
    value = node.value
    if isinstance(value, bool | type(None) | type(...)):
        return Constant(value)
    if isinstance(value, int) and abs(value) < 1 << 63:
        return Constant(value)
    if isinstance(value, float) and value == value:
        return Constant(value)
    if isinstance(value, str) and len(value) <= 100 and value.isprintable():
        return Constant(value)
    raise NotKnown("this constant is not a usable number or name", node)


def _whole_number(value: Expression, node: ast.expr) -> Expression:
    """`int(...)` of a constant, or of a size, which is a whole number already."""
    if isinstance(value, Constant) and isinstance(value.value, int | float) and abs(value.value) < 1 << 62:
        return Constant(int(value.value))
    if isinstance(value, Index) and value.value == Call("shape", getattr(value.value, "arguments", ())):
        return value
    raise NotKnown("int of this is not a known operation", node)


def _index(value: Expression, key: Expression, node: ast.expr) -> Expression:
    """`value[key]`; of a tuple that is written out, the item itself."""
    if not isinstance(value, Items):
        if isinstance(value, Constant | Span):
            raise NotKnown("a number cannot be indexed", node)
        return Index(value, key)
    places = _whole_numbers(key)
    try:
        if isinstance(key, Constant) and places is not None:
            item: Expression = value.items[places[0]]
            return item
        if isinstance(key, Span) and places is not None:
            return Items(value.items[slice(*places)])
    except (IndexError, TypeError, ValueError) as error:
        raise NotKnown("the tuple has no such item", node) from error
    raise NotKnown("a tuple can be indexed with whole numbers only", node)


def _whole_numbers(key: Expression) -> list[Any] | None:
    bounds = [key.start, key.stop, key.step] if isinstance(key, Span) else [key]
    numbers = [bound.value for bound in bounds if isinstance(bound, Constant)]
    whole = all(number is None or type(number) is int for number in numbers)
    return numbers if whole and len(numbers) == len(bounds) else None


_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "mod",
    ast.Pow: "power",
    ast.MatMult: "matmul",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
