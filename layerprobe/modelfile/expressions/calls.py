"""Arguments of a known operation: bound to their parameters, checked, brought into one form."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from layerprobe.modelfile.expressions.operations import OPERATIONS, STATIC
from layerprobe.modelfile.expressions.spellings import RENAMED
from layerprobe.modelfile.expressions.tree import Call, Constant, Expression, Items, Span


class NotKnown(Exception):
    """There is no expression for a piece of syntax; `reason` is a clause without a full stop."""

    def __init__(self, reason: str, node: ast.AST) -> None:
        super().__init__(reason)
        self.reason = reason
        self.node = node


def call(
    name: str, arguments: Sequence[Expression], keywords: Mapping[str, Expression], node: ast.expr
) -> Expression:
    """Apply a known operation; what is certain without the input is put in its simplest form.

    Raises:
        NotKnown: The arguments do not fit the operation.
    """
    parameters = OPERATIONS[name]
    defaults = {p.name: Constant(p.default) for p in parameters if not p.required}
    bound = bind(name, [p.name for p in parameters], defaults, arguments, keywords, node)
    for parameter, value in bound.items():
        _check(name, parameter, value, node)
    bound = {**bound, **_normal(name, bound, node)}
    return _simplified(name, tuple(bound.values()))


def bind(
    name: str,
    parameters: Sequence[str],
    defaults: Mapping[str, Expression],
    arguments: Sequence[Expression],
    keywords: Mapping[str, Expression],
    node: ast.expr,
) -> dict[str, Expression]:
    """Give each parameter its argument, as Python would; `name=` and old keywords are understood.

    Raises:
        NotKnown: An argument is missing, unknown or given twice.
    """
    if len(arguments) > len(parameters):
        raise NotKnown(f"{name} takes {len(parameters)} arguments, not {len(arguments)}", node)
    given = dict(zip(parameters, arguments, strict=False))
    for keyword, value in keywords.items():
        target = keyword if keyword in parameters else RENAMED.get(keyword, keyword)
        if keyword == "name" and target not in parameters:
            continue
        if target not in parameters or target in given:
            raise NotKnown(f"{name} takes no argument {keyword[:80]}, or it is given twice", node)
        given[target] = value
    bound = {**defaults, **given}
    for parameter in parameters:
        if parameter not in bound:
            raise NotKnown(f"{name} needs its argument {parameter}", node)
    return {parameter: bound[parameter] for parameter in parameters}


def _check(name: str, parameter: str, value: Expression, node: ast.expr) -> None:
    if isinstance(value, Span):
        raise NotKnown("a slice is possible only in an index", node)
    if parameter in STATIC and not (_is_static(value) or (parameter == "dtype" and _is_dtype(value))):
        raise NotKnown(f"the {parameter} of {name} must be written as a constant", node)
    if parameter in ("axis", "axes") and not _are_whole(value):
        raise NotKnown(f"the {parameter} of {name} must be whole numbers", node)
    if parameter == "dtype" and isinstance(value, Constant) and value.value not in _DTYPES:
        raise NotKnown(f"the dtype of {name} is not known", node)
    words = ("dtype", "mode", "interpolation", "subscripts")
    if parameter not in words and isinstance(value, Constant) and isinstance(value.value, str):
        raise NotKnown(f"the {parameter} of {name} cannot be text", node)
    if parameter in _TENSORS and (value in (Constant(None), Constant(...))):
        raise NotKnown(f"the {parameter} of {name} is None", node)


def _normal(name: str, bound: Mapping[str, Expression], node: ast.expr) -> dict[str, Expression]:
    """The arguments that have several spellings, in one."""
    changed: dict[str, Expression] = {}
    for parameter in ("keepdims", "transpose_x1", "transpose_x2"):
        if parameter in bound:
            changed[parameter] = Constant(bound[parameter] in (Constant(True), Constant(1)))
    if "mode" in bound:
        changed["mode"] = _choice(bound["mode"], _PAD_MODES, f"mode of {name}", node)
    if "interpolation" in bound:
        changed["interpolation"] = _choice(bound["interpolation"], _METHODS, f"method of {name}", node)
    return changed


def _choice(value: Expression, choices: Mapping[str | int, str], what: str, node: ast.expr) -> Constant:
    key = value.value if isinstance(value, Constant) else None
    if not isinstance(key, str | int) or key not in choices:
        raise NotKnown(f"the {what} is not one of {', '.join(sorted(set(choices.values())))}", node)
    return Constant(choices[key])


def _simplified(name: str, arguments: tuple[Expression, ...]) -> Expression:
    first = arguments[0]
    if name == "negative" and isinstance(first, Constant) and isinstance(first.value, int | float):
        return Constant(-first.value)
    if name == "add" and isinstance(first, Items) and isinstance(arguments[1], Items):
        return Items(first.items + arguments[1].items)
    return Call(name, arguments)


def _is_static(value: Expression) -> bool:
    if isinstance(value, Items):
        return all(_is_static(item) for item in value.items)
    return isinstance(value, Constant)


def _is_dtype(value: Expression) -> bool:
    return isinstance(value, Call) and value.name == "dtype"


def _are_whole(value: Expression) -> bool:
    if isinstance(value, Items):
        return all(_are_whole(item) for item in value.items)
    return isinstance(value, Constant) and (value.value is None or type(value.value) is int)


_TENSORS = ("x", "x1", "x2", "xs", "condition")
_PAD_MODES: dict[str | int, str] = {
    spelling: mode for mode in ("constant", "reflect", "symmetric") for spelling in (mode, mode.upper())
}
_METHODS: dict[str | int, str] = {"bilinear": "bilinear", 0: "bilinear", "nearest": "nearest", 1: "nearest"}
_DTYPES = (
    *(None, "float16", "float32", "float64", "bfloat16"),
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
)
