"""One node of the normal form -> one Keras layer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import keras
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from layerprobe.errors import ModelError
from layerprobe.loading.activations import find_activation
from layerprobe.loading.channels_first import channels_first_class
from layerprobe.loading.expressions import ExpressionLayer
from layerprobe.modelfile.graph import LayerNode, Reference
from layerprobe.modelfile.lambda_layer import expression_of
from layerprobe.modelfile.operations import OPERATIONS
from layerprobe.modelfile.slots import parts

MakeLayer = Callable[[LayerNode], keras.Layer]


@keras.saving.register_keras_serializable(package="layerprobe")  # Wrappers copy their layers by config.
class BoundedZeros(keras.initializers.Zeros):  # type: ignore[misc]
    """Zeros for every weight: the file's numbers replace them, and random ones take long to draw."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Make one weight.

        Raises:
            ModelError: It would have more than `limit` numbers; refused before any memory is taken.
        """
        if math.prod(shape) > self.limit:
            raise ModelError(
                f"a weight of shape {tuple(shape)} would need {4 * math.prod(shape) / 2**30:.1f} GiB, but "
                f"all weights of the file have {self.limit} numbers: the model's sizes are wrong."
            )
        return super().__call__(shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to copy it."""
        return {"limit": self.limit}


def make_layer(
    node: LayerNode, custom_objects: Mapping[str, Any], zeros: BoundedZeros, make_inner: MakeLayer
) -> keras.Operation:
    """Construct a layer from plain arguments; its weights follow when it is called.

    Args:
        node: Not a nested model.
        custom_objects: The user's own classes and functions by name.
        zeros: The initializer of all weights.
        make_inner: Makes the layers that are arguments of this one.

    Raises:
        ModelError: The class is neither Keras's nor the user's.
    """
    if node.is_operation:
        return _operation(node)
    if node.module != "keras.layers":
        return _custom_layer(node, custom_objects)
    if node.class_name == "Lambda":
        return _lambda_layer(node, custom_objects)
    layer_class = _KERAS_CLASSES.get(node.class_name) or getattr(keras.layers, node.class_name)
    if node.config.get("data_format") == "channels_first":
        layer_class = channels_first_class(layer_class)
    arguments = {name: _argument(value, make_inner) for name, value in node.config.items()}
    for name in ("activation", "recurrent_activation"):
        if isinstance(arguments.get(name), str):
            arguments[name] = find_activation(arguments[name], custom_objects)
    trainable = arguments.pop("trainable")
    arguments.update(dict.fromkeys(_initializers(layer_class), zeros))
    layer = layer_class(name=node.name, **arguments)
    if not trainable:
        layer.trainable = False
    return layer


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


def _argument(value: Any, make_inner: MakeLayer) -> Any:
    if isinstance(value, LayerNode):
        return make_inner(value)
    if isinstance(value, list):
        return [_argument(item, make_inner) for item in value]
    return value


def _operation(node: LayerNode) -> keras.Operation:
    """A bare operation, of Keras's own class for it."""
    module = import_module(f"keras.src.ops.{OPERATIONS[node.class_name]}")
    operation = getattr(module, node.class_name)(**node.config)
    operation.name = node.name
    return operation


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


@cache
def _initializers(layer_class: type) -> tuple[str, ...]:
    """The names of a class's arguments that are initializers."""
    return tuple(
        name
        for ancestor in layer_class.__mro__
        if "__init__" in vars(ancestor)
        for name in inspect.signature(vars(ancestor)["__init__"]).parameters
        if name.endswith("_initializer")
    )


_KERAS_CLASSES: dict[str, type] = {"CustomScaleLayer": CustomScaleLayer, "LayerScale": LayerScale}
"""Layers of Keras that are not in `keras.layers`."""
