"""A Lambda layer of a model file -> a node whose function is an expression, never code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerprobe.modelfile.arguments import dtype_name
from layerprobe.modelfile.expressions import Expression, parse_expression
from layerprobe.modelfile.graph import LayerNode
from layerprobe.modelfile.lambdas import Undecodable, decode_lambda


def read_lambda(name: str, config: Mapping[str, Any], given: str | None) -> LayerNode:
    """Read a Lambda layer.

    Args:
        name: Of the layer.
        config: As any Keras generation stored it.
        given: The expression that the user gives for it; None to decode the file's own function.

    Returns:
        A node of class Lambda whose `config["expression"]` is an `Expression`. Where the function cannot be
        decoded it has a `problem`, or, where the file has only its name, `needs` that function.

    Raises:
        UsageError: The given expression is not in the language.
    """
    if given is not None:
        return lambda_node(name, config, given)
    values = _options(config)
    try:
        return _node(name, {**values, "expression": decode_lambda(config)})
    except Undecodable as error:
        function = _named_function(config)
        if function is not None:
            arguments = config.get("arguments")
            values |= {"function": function, "arguments": arguments if isinstance(arguments, dict) else {}}
            return _node(name, values, needs=(function,))
        seen = f" (it reads {error.text!r})" if error.text else ""
        hint = f"give an expression with --lambda {name}='...'"
        return _node(name, values, problem=f"its Lambda cannot be decoded, {error.reason}{seen}: {hint}")


def lambda_node(name: str, config: Mapping[str, Any], text: str) -> LayerNode:
    """A Lambda layer that computes the expression which `text` says.

    Raises:
        UsageError: The text is not in the language.
    """
    return _node(name, {**_options(config), "expression": parse_expression(text)})


def expression_of(node: LayerNode) -> Expression | None:
    """What a Lambda layer computes; None for other layers, and for one that was not decoded."""
    expression = node.config.get("expression") if node.class_name == "Lambda" else None
    return expression if isinstance(expression, Expression) else None


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"trainable": False, "dtype": dtype_name(config.get("dtype")) or "float32"}


def _node(name: str, config: Mapping[str, Any], **more: Any) -> LayerNode:
    return LayerNode(name, "Lambda", "keras.layers", config, stored_class="Lambda", **more)


def _named_function(config: Mapping[str, Any]) -> str | None:
    """The name of a function whose code is not in the file."""
    function = config.get("function")
    if isinstance(function, str) and config.get("function_type") == "function":
        return function
    if isinstance(function, dict) and function.get("class_name") == "function":
        named = function.get("config")
        return named if isinstance(named, str) else None
    return None
