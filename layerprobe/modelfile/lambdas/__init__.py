"""What the Lambda layers of saved models compute, decoded from their byte code; nothing is executed.

Keras stores a Lambda as a marshalled code object: as latin-1 text before Keras 2.1, in base64 since; in a
list `[code, defaults, closure]` in Keras 1 and 2, in a dict of class `__lambda__` in the `.keras` format.
Which Python wrote it is not stored: each version is tried, and those that fit must agree on the result. A
function that was stored by its name alone is known where it is one of Keras's or TensorFlow's operations.
"""

from __future__ import annotations

import ast
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerprobe.modelfile.expressions.calls import NotKnown
from layerprobe.modelfile.expressions.language import translate
from layerprobe.modelfile.expressions.tree import Expression, Input
from layerprobe.modelfile.lambdas.decompile import decompile
from layerprobe.modelfile.lambdas.instructions import VERSIONS
from layerprobe.modelfile.lambdas.machine import Stop, literal
from layerprobe.modelfile.lambdas.unmarshal import BadCode, Code, read_code


class Undecodable(Exception):
    """A Lambda that no expression can be built for."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """A clause without a full stop: "os.system is not a known operation"."""
        self.text = text
        """What could be read of it, for people; at most 200 printable characters, "" if nothing."""


@dataclass(frozen=True, slots=True)
class Function:
    """A stored function: its code, or only its name, and the values that came with it."""

    code: str | None
    name: str
    defaults: Sequence[Any]
    closure: Sequence[Any]


def decode_lambda(config: Mapping[str, Any]) -> Expression:
    """Give the expression of a Lambda layer.

    Args:
        config: The layer's own config as any Keras from 1.0 to 3 stored it.

    Raises:
        Undecodable: It does something that is not known, or it is damaged.
    """
    arguments = config.get("arguments")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    try:
        function = _stored_function(config)
        if function.code is None:
            return _named(function.name, arguments)
        return _decoded(function, arguments)
    except RecursionError as error:
        raise Undecodable("it is nested too deep", "") from error


def _stored_function(config: Mapping[str, Any]) -> Function:
    """Find the function in the config of any Keras generation."""
    stored = config.get("function")
    module = config.get("module")
    if isinstance(stored, Mapping):
        inner = stored.get("config")
        if stored.get("class_name") == "__lambda__" and isinstance(inner, Mapping):
            return _with_code(inner.get("code"), inner.get("defaults"), inner.get("closure"))
        module = stored.get("module")
        if module in (None, "builtins"):
            module = config.get("module")
        stored = inner if isinstance(inner, str) else stored.get("registered_name")
    if isinstance(stored, Sequence) and not isinstance(stored, str) and 1 <= len(stored) <= 3:
        return _with_code(*stored)
    if isinstance(stored, str) and config.get("function_type") == "lambda":
        return _with_code(stored)
    if not isinstance(stored, str):
        raise Undecodable("its function is missing", "")
    return Function(None, f"{_home(module)}{stored}", (), ())


def _with_code(code: Any, defaults: Any = None, closure: Any = None) -> Function:
    if not isinstance(code, str):
        raise Undecodable("its byte code is missing", "")
    return Function(code, "", _values(defaults), _values(closure))


def _values(stored: Any) -> Sequence[Any]:
    """A list of values; Keras 3 writes a tuple as `{"class_name": "__tuple__", "items": [...]}`."""
    if isinstance(stored, Mapping) and stored.get("class_name") == "__tuple__":
        stored = stored.get("items")
    return stored if isinstance(stored, list | tuple) else ()


def _home(module: Any) -> str:
    """The canonical beginning of names from the module that a function says it was defined in."""
    if not isinstance(module, str):
        return ""
    parts = module.split(".")
    if parts[0] in ("keras", "tf_keras") or parts[:3] == ["tensorflow", "python", "keras"]:
        for part, beginning in (("ops", "ops."), ("activations", "activations.")):
            if part in parts:
                return beginning
        return "K." if parts[-1].endswith("backend") else f"{module}."
    if parts[:3] == ["tensorflow", "python", "ops"]:
        tail = parts[-1].removeprefix("gen_")
        return "tf.nn." if tail.startswith("nn_") else "tf.image." if tail.startswith("image_") else "tf."
    return f"{module}."


def _named(name: str, arguments: Mapping[str, Any]) -> Expression:
    """A function without code: `relu` of `keras.ops`, applied to the layer's input."""
    shown = _printable(name)
    try:
        keywords = [ast.keyword(key, literal(value)[0]) for key, value in arguments.items()]
        function: ast.expr = ast.Name("")
        for place, part in enumerate(name.split(".")):
            function = ast.Attribute(function, part) if place else ast.Name(part)
        syntax = ast.Call(function, [ast.Name("_input")], keywords)
        return translate(syntax, {"_input": Input()}, bare_operations=False)
    except (NotKnown, Stop) as error:
        raise Undecodable(f"only the name of its function, {shown}, is stored", shown) from error


def _decoded(function: Function, arguments: Mapping[str, Any]) -> Expression:
    data = _bytes(function.code or "")
    outcomes: dict[str, Expression | Undecodable] = {}
    for version in VERSIONS:
        try:
            code = read_code(data, version)
            outcome = _outcome(code, version, function, arguments)
        except BadCode:
            continue
        outcomes.setdefault(str(outcome), outcome)
    found = [outcome for outcome in outcomes.values() if not isinstance(outcome, Undecodable)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Undecodable(
            f"its byte code can be read in {len(found)} ways", " or ".join(map(str, found))[:200]
        )
    for outcome in outcomes.values():
        if isinstance(outcome, Undecodable):
            raise outcome
    raise Undecodable("its byte code is damaged, or of a Python that is not known", "")


def _outcome(
    code: Code, version: tuple[int, int], function: Function, arguments: Mapping[str, Any]
) -> Expression | Undecodable:
    """Decode as one version of Python; BadCode where it cannot be of that version."""
    try:
        syntax = decompile(code, version)
    except Stop as error:
        names = [name for name in code.names if isinstance(name, str)]
        return Undecodable(str(error), _printable("uses " + ", ".join(names)) if names else "")
    text = _printable(f"lambda {', '.join(code.locals[: code.argument_count])}: {ast.unparse(syntax)}")
    try:
        return translate(syntax, _variables(code, function, arguments), bare_operations=False)
    except (NotKnown, Stop) as error:
        return Undecodable(str(error), text)


def _variables(code: Code, function: Function, arguments: Mapping[str, Any]) -> dict[str, Expression]:
    """The first argument is the layer's input; of the others, and of the closure, what is stored."""
    if code.argument_count < 1:
        raise Stop("it takes no input")
    names = code.locals[: code.argument_count]
    values: dict[str, Any] = {}
    defaults = function.defaults[: code.argument_count]
    values.update(zip(names[code.argument_count - len(defaults) :], defaults, strict=True))
    values.update(zip(code.free, function.closure, strict=False))
    values.update((name, value) for name, value in arguments.items() if name in names)
    variables: dict[str, Expression] = {}
    for name, value in values.items():
        if name not in ("mask", "training"):  # Keras fills these in at each call.
            _add_value(variables, name, value)
    return {**variables, names[0]: Input()}


def _add_value(variables: dict[str, Expression], name: str, value: Any) -> None:
    """Leave out what is no plain number, text or tuple: it is then reported where it is used."""
    if isinstance(value, Mapping):
        value = value.get("value") if value.get("type") == "ndarray" else _values(value) or None
        if value is None:
            return
    try:
        variables[name] = translate(literal(value)[0], {}, bare_operations=False)
    except (NotKnown, Stop):
        return


def _bytes(code: str) -> bytes:
    """Base64 since Keras 2.1; before that, the marshalled bytes as characters."""
    try:
        return base64.b64decode("".join(code.split()), validate=True)
    except (binascii.Error, ValueError):
        pass
    try:
        return code.encode("latin-1")
    except UnicodeEncodeError as error:
        raise Undecodable("its byte code is neither base64 nor bytes", "") from error


def _printable(text: str) -> str:
    short = text if len(text) <= 200 else f"{text[:197]}..."
    return "".join(character if character.isprintable() else "?" for character in short)
