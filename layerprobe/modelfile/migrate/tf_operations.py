"""TensorFlow functions on Keras tensors (`x + y`, `tf.reshape(x, ...)`), which tf.keras saves as layers.

tf.keras 2.4 and later has TFOpLambda and SlicingOpLambda
(https://github.com/keras-team/tf-keras/blob/v2.15.0/tf_keras/layers/core/tf_op_layer.py), 2.0 to 2.3
TensorFlowOpLayer with a node of TensorFlow's graph. Each is written down as the call it was, in the
expression language, and becomes a Lambda layer of that expression.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from layerprobe.errors import UsageError
from layerprobe.modelfile.graph import Call, LayerNode, Reference
from layerprobe.modelfile.lambda_layer import lambda_node

_INFIX = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "truediv": "{} / {}",
    "floordiv": "{} // {}",
    "mod": "{} % {}",
    "pow": "{} ** {}",
    "matmul": "{} @ {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "neg": "-{}",
    "abs": "tf.abs({})",
}
_INFIX |= {
    f"r{name}": text.replace("{} ", "{1} ").replace(" {}", " {0}")
    for name, text in _INFIX.items()
    if name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
}

_NEUTRAL = (
    ("data_format", "NHWC"),
    ("data_format", None),
    ("conjugate", False),
    ("batch_dims", 0),
    ("validate_indices", None),
)
_POSITIONAL = ("shape", "multiples")
"""Keywords that other libraries call otherwise."""

_GRAPH_OPERATIONS = {
    "Abs": "tf.abs({0})",
    "Add": "{0} + {1}",
    "AddV2": "{0} + {1}",
    "BiasAdd": "{0} + {1}",
    "Cast": "tf.cast({0}, {DstT})",
    "Exp": "tf.exp({0})",
    "ExpandDims": "tf.expand_dims({0}, {1})",
    "Log": "tf.math.log({0})",
    "MatMul": "tf.matmul({0}, {1})",
    "Max": "tf.reduce_max({0}, {1}, {keep_dims})",
    "Maximum": "tf.maximum({0}, {1})",
    "Mean": "tf.reduce_mean({0}, {1}, {keep_dims})",
    "Min": "tf.reduce_min({0}, {1}, {keep_dims})",
    "Minimum": "tf.minimum({0}, {1})",
    "Mul": "{0} * {1}",
    "Neg": "-{0}",
    "Pow": "{0} ** {1}",
    "RealDiv": "{0} / {1}",
    "Relu": "tf.nn.relu({0})",
    "Relu6": "tf.nn.relu6({0})",
    "Reshape": "tf.reshape({0}, {1})",
    "Rsqrt": "1 / tf.sqrt({0})",
    "Sigmoid": "tf.sigmoid({0})",
    "Softmax": "tf.nn.softmax({0})",
    "Sqrt": "tf.sqrt({0})",
    "Square": "tf.square({0})",
    "Squeeze": "tf.squeeze({0}, {squeeze_dims})",
    "SquaredDifference": "tf.square({0} - {1})",
    "Sub": "{0} - {1}",
    "Sum": "tf.reduce_sum({0}, {1}, {keep_dims})",
    "Tanh": "tf.tanh({0})",
    "Transpose": "tf.transpose({0}, {1})",
}


def as_lambda(node: LayerNode) -> LayerNode:
    """Turn such a layer, its config as the file has it, into a Lambda layer.

    Returns:
        A node with an expression whose calls take the tensors alone, or with a `problem`.
    """
    texts, calls = [], []
    for call in node.calls:
        tensors: list[Reference] = []
        write = _Writer(tensors, alone=len(call.references()) == 1)
        try:
            texts.append(_text(node.class_name, node.config, call, write))
        except (NotImplementedError, KeyError, ValueError, IndexError) as error:
            return replace(node, problem=f"its operation is not known ({error})")
        calls.append(Call((tensors[0] if len(tensors) == 1 else tensors,)))
    if len(set(texts)) != 1:
        problem = "its calls have different arguments" if texts else "the file does not say what goes into it"
        return replace(node, problem=problem)
    try:
        made = lambda_node(node.name, node.config, texts[0])
    except UsageError as error:
        reason = str(error).partition(". ")[0]
        return replace(node, problem=f"its operation is not known: {reason}")
    return replace(made, calls=tuple(calls), stored_class=node.stored_class)


def _text(class_name: str, config: Mapping[str, Any], call: Call, write: Callable[[Any], str]) -> str:
    """The call in the expression language."""
    if class_name == "TensorFlowOpLayer":
        return _graph_operation(config, call, write)
    function = str(config.get("function"))
    keywords = {name: value for name, value in call.keywords.items() if name != "name"}
    if function.endswith("__operators__.getitem"):
        spec = keywords.get("slice_spec", call.arguments[1:])
        keys = spec if isinstance(spec, list | tuple) else [spec]
        return f"{write(call.arguments[0])}[{', '.join(map(_key, keys))}]"
    operands = [write(value) for value in call.arguments]
    if function.startswith("__operators__."):
        operands += [write(value) for value in keywords.values()]
        return _INFIX[function.removeprefix("__operators__.")].format(*operands)
    for name, value in keywords.items():
        if (name, value) not in _NEUTRAL:
            operands.append(write(value) if name in _POSITIONAL else f"{name}={write(value)}")
    if function == "nn.bias_add":
        return f"{operands[0]} + {operands[1].removeprefix('bias=')}"
    return f"tf.{function.removeprefix('compat.v1.')}({', '.join(operands)})"


def _graph_operation(config: Mapping[str, Any], call: Call, write: Callable[[Any], str]) -> str:
    """A node of TensorFlow's graph; inputs that were constants are kept beside it, by their place."""
    definition = config["node_def"]
    definition = json.loads(definition) if isinstance(definition, str) else definition
    constants = config.get("constants") or {}
    tensors = iter(call.references())
    count = len(call.references()) + len(constants)
    operands = [
        write(constants[str(place)] if str(place) in constants else next(tensors)) for place in range(count)
    ]
    attributes = {name: _attribute(value) for name, value in definition.get("attr", {}).items()}
    attributes.setdefault("keep_dims", "False")
    if definition["op"] == "ConcatV2":
        return f"tf.concat([{', '.join(operands[:-1])}], {operands[-1]})"
    return _GRAPH_OPERATIONS[definition["op"]].format(*operands, **attributes)


def _attribute(value: Mapping[str, Any]) -> str:
    """One attribute of a graph node: a flag, a dtype, or a list of whole numbers."""
    if "b" in value:
        return repr(bool(value["b"]))
    if "type" in value:
        names = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}
        return repr(names.get(value["type"], str(value["type"]).removeprefix("DT_").lower()))
    if "list" in value:
        return repr([int(item) for item in value["list"].get("i", [])])
    return "None"


def _key(key: Any) -> str:
    """One entry of an index."""
    if isinstance(key, dict) and {"start", "stop", "step"} <= key.keys():
        key = slice(key["start"], key["stop"], key["step"])
    if isinstance(key, dict) and key.get("class_name") == "__ellipsis__":
        key = Ellipsis
    if isinstance(key, slice):
        return ":".join(
            "" if bound is None else repr(int(bound)) for bound in (key.start, key.stop, key.step)
        )
    if key is None or key is Ellipsis or type(key) is int:
        return "..." if key is Ellipsis else repr(key)
    raise NotImplementedError(f"an index {str(key)[:40]}")


class _Writer:
    """Writes arguments down; tensors become `x`, or `x[0]`, `x[1]` in the order in which they come."""

    def __init__(self, tensors: list[Reference], alone: bool) -> None:
        self._tensors = tensors
        self._alone = alone

    def __call__(self, value: Any) -> str:
        if isinstance(value, Reference):
            self._tensors.append(value)
            return "x" if self._alone else f"x[{len(self._tensors) - 1}]"
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self, value))}]"
        if value is None or isinstance(value, bool | int | float | str):
            return f"({value!r})" if isinstance(value, float) else repr(value)
        raise NotImplementedError(f"an argument {str(value)[:40]}")
