"""Lambda layers, as the expressions that they were decoded to, and bare operations (`x + y`)."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import openvino as ov

from layerprobe.engines.graph.functions import FUNCTIONS
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.operations import OPERATIONS
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import Value, in_keras_order, value
from layerprobe.modelfile.expressions import OPERATIONS as KNOWN
from layerprobe.modelfile.expressions import evaluate
from layerprobe.modelfile.graph import Call, LayerNode
from layerprobe.modelfile.lambda_layer import expression_of


def _lambda(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    expression = expression_of(layer.node)
    if expression is None:
        raise Unsupported("a function that the file does not hold")
    nodes = tuple(in_keras_order(tensor) for tensor in inputs)
    (argument,) = layer.arguments
    x = nodes if isinstance(argument, list | tuple) else nodes[0]
    made = _results(evaluate(expression, x, FUNCTIONS))
    # A Lambda hands no mask on, but what goes through it unchanged keeps its own.
    masks = {id(node): tensor.mask for node, tensor in zip(nodes, inputs, strict=True)}
    return [dataclasses.replace(tensor, mask=masks.get(id(tensor.node))) for tensor in made]


def operation(node: LayerNode, call: Call) -> list[Value]:
    """Apply a bare operation of Keras 3.

    Args:
        node: The operation; its config holds arguments that are the same for every call.
        call: Its arguments, tensors as `Value`s.

    Raises:
        Unsupported: It is not among the operations of expressions, or has other arguments.
    """
    if node.class_name == "ConvertToTensor" and node.config.get("dtype") is None:
        return [leaf for leaf in call.arguments if isinstance(leaf, Value)]
    name = _NAMES.get(node.class_name)
    arguments = [_plain(argument) for argument in call.arguments]
    if node.class_name in OPERATIONS:
        keywords = {**node.config, **{key: _plain(item) for key, item in call.keywords.items()}}
        return _results(_called(node.class_name, arguments, keywords))
    if name is None:
        raise Unsupported(f"the operation {node.class_name}")
    if name == "index":
        return _results(FUNCTIONS["index"](*arguments))
    parameters = KNOWN[name]
    given = dict(zip((parameter.name for parameter in parameters), arguments, strict=False))
    more = {**node.config, **{key: _plain(item) for key, item in call.keywords.items()}}
    for key, item in more.items():
        if item is None:
            continue
        if key in given or key not in (parameter.name for parameter in parameters):
            raise Unsupported(f"the operation {node.class_name} with {key}={item!r}")
        given[key] = item
    if len(call.arguments) > len(parameters):
        raise Unsupported(f"the operation {node.class_name} with {len(call.arguments)} arguments")
    if any(parameter.required and parameter.name not in given for parameter in parameters):
        raise Unsupported(f"the operation {node.class_name} with other arguments")
    bound = [given.get(parameter.name, parameter.default) for parameter in parameters]
    return _results(FUNCTIONS[name](*bound))


def _called(class_name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    given = {key: item for key, item in keywords.items() if item is not None}
    function = OPERATIONS[class_name]
    try:
        bound = inspect.signature(function).bind(*arguments, **given)
    except TypeError as error:
        raise Unsupported(f"the operation {class_name} with other arguments ({error})") from error
    return function(*bound.args, **bound.kwargs)


def _plain(argument: Any) -> Any:
    """An argument with its tensors as nodes in Keras's order."""
    if isinstance(argument, Value):
        return in_keras_order(argument)
    if isinstance(argument, list | tuple):
        return tuple(_plain(item) for item in argument)
    return argument


def _results(result: Any) -> list[Value]:
    found = list(result) if isinstance(result, tuple) else [result]
    if not all(isinstance(node, ov.Node | ov.Output) for node in found):
        raise Unsupported("a result that is not a tensor")
    return [value(node) for node in found]


_SAME = (
    "Abs Add All Any Cast Ceil Clip Concatenate Cos Divide Dot Equal Exp ExpandDims Flip Floor Greater "
    "GreaterEqual HardSigmoid Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr Logsumexp "
    "Matmul Max Maximum Mean Min Minimum Mod Multiply Negative NotEqual OnesLike Pad Power Prod Relu Relu6 "
    "Repeat Reshape Round Rsqrt Selu Sigmoid Sign Silu Sin Softmax Softplus Softsign Sqrt Square Squeeze "
    "Stack Std Subtract Sum Tan Tanh Tile Transpose Var Where ZerosLike"
)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


_NAMES = {
    **{name: _snake(name) for name in _SAME.split()},
    "Absolute": "abs",
    "Amax": "max",
    "Amin": "min",
    "GetItem": "index",
    "TrueDivide": "divide",
}
"""Keras's class of an operation -> its name in expressions; `index` besides."""

LAYERS: dict[str, BuildLayer] = {"Lambda": _lambda}
