"""One node of the normal form -> one Keras layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from layerprobe.errors import ModelError
from layerprobe.loading.activations import find_activation
from layerprobe.loading.expressions import ExpressionLayer
from layerprobe.modelfile.graph import LayerNode, Reference
from layerprobe.modelfile.lambda_layer import expression_of
from layerprobe.modelfile.slots import parts

MakeLayer = Callable[[LayerNode], keras.Layer]


def make_layer(node: LayerNode, custom_objects: Mapping[str, Any], make_inner: MakeLayer) -> keras.Operation:
    """Construct a layer from plain arguments; its weights follow when it is called.

    Args:
        node: Not a nested model.
        custom_objects: The user's own classes and functions by name.
        make_inner: Makes the layers that are arguments of this one.

    Raises:
        ModelError: The class is neither Keras's nor the user's.
    """
    if node.module != "keras.layers":
        return _custom_layer(node, custom_objects)
    if node.class_name == "Lambda":
        return _lambda_layer(node, custom_objects)
    layer_class = _KERAS_CLASSES.get(node.class_name) or getattr(keras.layers, node.class_name)
    arguments = {name: _argument(value, make_inner) for name, value in node.config.items()}
    for name in ("activation", "recurrent_activation"):
        if isinstance(arguments.get(name), str):
            arguments[name] = find_activation(arguments[name], custom_objects)
    if node.is_input:
        del arguments["trainable"]
    arguments.update(_INITIALIZERS.get(layer_class) or _learn_initializers(layer_class))
    return layer_class(name=node.name, **arguments)


def pieces(node: LayerNode, layer: keras.Operation) -> Iterator[tuple[str, LayerNode, keras.Layer]]:
    """The live layers inside a wrapper, with their names and nodes; Keras may have made copies of them."""
    for attribute, child in parts(node):
        piece = getattr(layer, attribute, None)
        if isinstance(piece, list):
            piece = next((item for item in piece if item.name == child.name), None)
        if isinstance(piece, keras.Layer):
            yield child.name, child, piece
            for name, inner, live in pieces(child, piece):
                yield f"{child.name}/{name}", inner, live


def fill_in(structure: Any, tensor: Callable[[Reference], Any]) -> Any:
    """A structure of lists, tuples and dicts with every `Reference` in it replaced by its tensor."""
    if isinstance(structure, Reference):
        return tensor(structure)
    if isinstance(structure, list | tuple):
        return type(structure)(fill_in(item, tensor) for item in structure)
    if isinstance(structure, dict):
        return {key: fill_in(item, tensor) for key, item in structure.items()}
    return structure


def first_line(error: Exception) -> str:
    """The first sentence of what Keras says, for the end of one of ours."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


def _argument(value: Any, make_inner: MakeLayer) -> Any:
    if isinstance(value, LayerNode):
        return make_inner(value)
    if isinstance(value, list):
        return [_argument(item, make_inner) for item in value]
    return value


def _custom_layer(node: LayerNode, custom_objects: Mapping[str, Any]) -> keras.Operation:
    """A layer of the user's own class, which gets its config as the file has it."""
    for name in (node.registered_name, node.class_name):
        if name is not None and name in custom_objects:
            with keras.saving.custom_object_scope(dict(custom_objects)):
                layer = custom_objects[name].from_config(dict(node.config))
            if not isinstance(layer, keras.Operation):
                raise ModelError(f"{name} is not a Keras layer. Received: {type(layer).__name__}.")
            layer.name = node.name
            return layer
    raise ModelError(f"layer {node.name!r} is a {node.class_name}: give its code with --custom FILE.py.")


def _lambda_layer(node: LayerNode, custom_objects: Mapping[str, Any]) -> keras.Layer:
    """What the Lambda computes; never what the file would have run."""
    expression = expression_of(node)
    if expression is not None:
        return ExpressionLayer(expression, name=node.name, dtype=node.config["dtype"])
    function = custom_objects[node.config["function"]]
    arguments = dict(node.config["arguments"])
    return keras.layers.Lambda(function, arguments=arguments, name=node.name, dtype=node.config["dtype"])


def _learn_initializers(layer_class: type) -> dict[str, str]:
    """Zeros for every weight: the file's numbers replace them, and random ones take long to draw."""
    names = [
        name
        for ancestor in layer_class.__mro__
        if "__init__" in vars(ancestor)
        for name in inspect.signature(ancestor.__init__).parameters
        if name.endswith("_initializer")
    ]
    _INITIALIZERS[layer_class] = dict.fromkeys(names, "zeros")
    return _INITIALIZERS[layer_class]


_INITIALIZERS: dict[type, dict[str, str]] = {}
_KERAS_CLASSES: dict[str, type] = {}
"""Layers of Keras that are not in `keras.layers`."""
