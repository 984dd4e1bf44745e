"""Normalisation by stored statistics, by those of each sample, and by constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Value,
    along,
    as_float,
    axis_of,
    constant,
    in_keras_order,
    known,
    only_float,
    value,
    whole,
)


def _axes(layer: Layer, tensor: Value) -> list[int]:
    """The layer's axes, sorted and counted from the front."""
    axis = layer.config["axis"]
    given = [axis] if isinstance(axis, int) else list(axis or ())
    return sorted(number % tensor.rank for number in given)


def _stored_shape(layer: Layer, tensor: Value) -> tuple[int, ...]:
    """Of a weight with the layer's axes, which Keras sorts as they are written: -1 comes before 1."""
    axis = layer.config["axis"]
    return known([tensor.shape[number] for number in sorted([axis] if isinstance(axis, int) else axis)])


def _scaled(layer: Layer, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    wanted = {"gamma": shape} if layer.config["scale"] else {}
    return wanted | ({"beta": shape} if layer.config["center"] else {})


def _affine(tensor: Value, axes: Sequence[int], scale: np.ndarray, shift: np.ndarray) -> Value:
    x = as_float(tensor)
    node = op.add(op.multiply(x.node, along(x, axes, scale)), along(x, axes, shift))
    return Value(node.output(0), tensor.turned)


def _batch_normalization(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    axes = _axes(layer, tensor)
    if len(axes) != 1:
        raise Unsupported(f"axis={layer.config['axis']}")
    shape = known([tensor.shape[axes[0]]])
    arrays = layer.arrays(moving_mean=shape, moving_variance=shape, **_scaled(layer, shape))
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    scale = wide.get("gamma", np.ones(shape)) / np.sqrt(wide["moving_variance"] + layer.config["epsilon"])
    shift = wide.get("beta", np.zeros(shape)) - wide["moving_mean"] * scale
    return _affine(tensor, axes, scale, shift)


def _standardised(x: ov.Node | ov.Output, axes: Sequence[int], epsilon: float) -> ov.Node:
    """Minus the mean and over the standard deviation that a tensor has along some of its node's axes."""
    centred = op.subtract(x, op.reduce_mean(x, whole(axes), True))
    variance = op.reduce_mean(op.multiply(centred, centred), whole(axes), True)
    return op.divide(centred, op.sqrt(op.add(variance, constant(epsilon))))


def _layer_normalization(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    axes = _axes(layer, tensor)
    shape = known([tensor.shape[axis] for axis in axes])
    arrays = layer.arrays(**_scaled(layer, _stored_shape(layer, tensor)))
    places = [axis_of(tensor, axis) for axis in axes]
    node = _standardised(only_float(tensor).node, places, layer.config["epsilon"])
    if "gamma" in arrays:
        node = op.multiply(node, along(tensor, axes, arrays["gamma"].reshape(shape)))
    if "beta" in arrays:
        node = op.add(node, along(tensor, axes, arrays["beta"].reshape(shape)))
    return Value(node.output(0), tensor.turned)


def _rms_normalization(layer: Layer, inputs: Sequence[Value]) -> Value:
    """Over the root of the mean square; along whichever axes that is, Keras scales the last ones."""
    (tensor,) = inputs
    axes = _axes(layer, tensor)
    scale = layer.arrays(scale=_stored_shape(layer, tensor))["scale"]
    x = only_float(tensor).node
    places = whole([axis_of(tensor, axis) for axis in axes])
    mean_square = op.reduce_mean(op.multiply(x, x), places, True)
    node = op.divide(x, op.sqrt(op.add(mean_square, constant(layer.config["epsilon"]))))
    even = Value(node.output(0), tensor.turned)
    if axes == [tensor.rank - 1]:
        return Value(op.multiply(node, along(tensor, axes, scale)).output(0), tensor.turned)
    return value(op.multiply(in_keras_order(even), constant(scale)))


def _group_normalization(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The channels in groups, each standardised over itself and all of space."""
    (tensor,) = inputs
    (axis,) = _axes(layer, tensor)
    if axis != tensor.rank - 1:
        raise Unsupported(f"axis={axis}")
    sizes = known(tensor.shape[1:])
    channels = sizes[-1]
    groups = channels if layer.config["groups"] == -1 else layer.config["groups"]
    arrays = layer.arrays(**_scaled(layer, (channels,)))
    apart = op.reshape(
        in_keras_order(only_float(tensor)), whole([-1, *sizes[:-1], groups, channels // groups]), False
    )
    places = [place for place in range(1, tensor.rank + 1) if place != tensor.rank - 1]
    even = _standardised(apart, places, layer.config["epsilon"])
    node = op.reshape(even, whole([-1, *sizes]), False)
    if "gamma" in arrays:
        node = op.multiply(node, constant(arrays["gamma"]))
    if "beta" in arrays:
        node = op.add(node, constant(arrays["beta"]))
    return value(node)


def _unit_normalization(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    x = only_float(tensor).node
    axes = whole([axis_of(tensor, axis) for axis in _axes(layer, tensor)])
    total = op.reduce_sum(op.multiply(x, x), axes, True)
    node = op.divide(x, op.sqrt(op.maximum(total, constant(1e-12))))
    return Value(node.output(0), tensor.turned)


def _normalization(layer: Layer, inputs: Sequence[Value]) -> Value:
    """Values minus the mean, over the standard deviation, of what the layer was adapted to."""
    (tensor,) = inputs
    axes = _axes(layer, tensor)
    shape = known([tensor.shape[axis] for axis in axes])
    if layer.config["mean"] is None:
        arrays = layer.arrays(mean=shape, variance=shape)
        mean, variance = arrays["mean"], arrays["variance"]
    else:
        mean, variance = (_spread(layer.config[name], shape) for name in ("mean", "variance"))
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    x = as_float(tensor)
    mean_node, deviation_node = along(x, axes, mean), along(x, axes, deviation)
    if layer.config["invert"]:
        node = op.add(mean_node, op.multiply(x.node, deviation_node))
    else:
        node = op.divide(op.subtract(x.node, mean_node), deviation_node)
    return Value(node.output(0), tensor.turned)


def _spread(given: object, shape: tuple[int, ...]) -> np.ndarray:
    """A statistic among the arguments, as the axes have it; Keras aligns it to the last of them."""
    array = np.asarray(given, np.float32)
    array = array.reshape([size for size in array.shape if size != 1]) if array.ndim > len(shape) else array
    return np.broadcast_to(array, shape)


def _rescaling(layer: Layer, inputs: Sequence[Value]) -> Value:
    """`x * scale + offset`; a list has one number per channel."""
    (tensor,) = inputs
    x = as_float(tensor)
    node: ov.Node | ov.Output = x.node
    for combine, argument in ((op.multiply, "scale"), (op.add, "offset")):
        numbers = np.asarray(layer.config[argument], np.float32)
        if numbers.ndim > 1:
            raise Unsupported(f"{argument} with {numbers.ndim} axes")
        node = combine(node, along(x, [-1], numbers) if numbers.ndim else constant(numbers))
    return Value(node.output(0), tensor.turned)


def _layer_scale(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    gamma = layer.arrays(gamma=(layer.config["projection_dim"],))["gamma"]
    node = op.multiply(only_float(tensor).node, along(tensor, [-1], gamma))
    return Value(node.output(0), tensor.turned)


LAYERS: dict[str, BuildLayer] = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
    "LayerScale": _layer_scale,
    "Normalization": _normalization,
    "RMSNormalization": _rms_normalization,
    "Rescaling": _rescaling,
    "UnitNormalization": _unit_normalization,
}
