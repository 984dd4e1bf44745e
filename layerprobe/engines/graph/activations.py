"""Activations, by name and as layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Mask,
    Node,
    Value,
    along,
    axis_of,
    constant,
    dims,
    in_keras_order,
    known,
    only_float,
    value,
    whole,
)
from layerprobe.modelfile.graph import LayerNode


def activate(layer: Layer, tensor: Value) -> Value:
    """Apply the activation among a layer's arguments; what goes into it is noted for the taps."""
    layer.note(tensor)
    activation = layer.config["activation"]
    if isinstance(activation, LayerNode):
        return layer.child("activation", [tensor])[0]
    return apply_named(activation, tensor)


def apply_named(name: str | None, tensor: Value) -> Value:
    """Apply the activation of that name; None is none."""
    if name in (None, "linear"):
        return tensor
    only_float(tensor)
    if name in _ALONG_CHANNELS:
        node = _ALONG_CHANNELS[name](tensor.node, axis_of(tensor, -1))
    elif name in ELEMENTWISE:
        node = ELEMENTWISE[name](tensor.node)
    else:
        raise Unsupported(f"the activation {name}")
    return Value(node.output(0), tensor.turned)


def rectified(x: Node, negative_slope: float, max_value: float | None, threshold: float) -> Node:
    """Keras's ReLU with all its arguments, in the same steps."""
    below = op.relu(op.subtract(constant(threshold), x)) if negative_slope else None
    above = op.convert(op.greater(x, constant(threshold)), "f32")
    x = op.multiply(x, above) if threshold else op.relu(x)
    if max_value is not None:
        x = op.clamp(x, 0.0, float(max_value))
    return x if below is None else op.subtract(x, op.multiply(constant(negative_slope), below))


def _leaky(x: Node, slope: float) -> Node:
    return op.prelu(x, constant([slope]))


def _scaled_sum(x: Node, factor: float, offset: float) -> Node:
    return op.add(op.multiply(x, constant(factor)), constant(offset))


def _hard_sigmoid(x: Node) -> Node:
    return op.multiply(op.clamp(op.add(x, constant(3.0)), 0.0, 6.0), constant(1 / 6))


def _hard_silu(x: Node) -> Node:
    return op.multiply(x, _hard_sigmoid(x))


def _hard_shrink(x: Node) -> Node:
    return op.select(op.greater(op.abs(x), constant(0.5)), x, constant(0.0))


def _soft_shrink(x: Node) -> Node:
    return op.subtract(op.relu(_scaled_sum(x, 1.0, -0.5)), op.relu(_scaled_sum(x, -1.0, -0.5)))


def _softsign(x: Node) -> Node:
    return op.divide(x, op.add(op.abs(x), constant(1.0)))


def _sparse_plus(x: Node) -> Node:
    curve = op.multiply(constant(0.25), op.power(op.add(x, constant(1.0)), constant(2.0)))
    above = op.select(op.less(x, constant(1.0)), curve, x)
    return op.select(op.less_equal(x, constant(-1.0)), constant(0.0), above)


def _squareplus(x: Node) -> Node:
    root = op.sqrt(op.add(op.multiply(x, x), constant(4.0)))
    return op.multiply(op.add(x, root), constant(0.5))


def _gated(x: Node, axis: int) -> Node:
    halves = op.split(x, constant(axis, "int64"), 2)
    return op.multiply(halves.output(0), op.sigmoid(halves.output(1)))


ELEMENTWISE: dict[str, Callable[[Node], Node]] = {
    "celu": lambda x: op.elu(x, 1.0),
    "elu": lambda x: op.elu(x, 1.0),
    "exponential": op.exp,
    "gelu": lambda x: op.gelu(x, "erf"),
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
    "hard_tanh": lambda x: op.clamp(x, -1.0, 1.0),
    "keras2_hard_sigmoid": lambda x: op.clamp(_scaled_sum(x, 0.2, 0.5), 0.0, 1.0),
    "leaky_relu": lambda x: _leaky(x, 0.2),
    "log_sigmoid": lambda x: op.negative(op.softplus(op.negative(x))),
    "mish": op.mish,
    "relu": op.relu,
    "relu6": lambda x: op.clamp(x, 0.0, 6.0),
    "selu": lambda x: op.selu(x, constant(1.6732632423543772), constant(1.0507009873554805)),
    "sigmoid": op.sigmoid,
    "silu": op.swish,
    "soft_shrink": _soft_shrink,
    "softplus": op.softplus,
    "softsign": _softsign,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda x: op.clamp(_scaled_sum(x, 0.5, 0.5), 0.0, 1.0),
    "squareplus": _squareplus,
    "swish": op.swish,
    "tanh": op.tanh,
    "tanh_shrink": lambda x: op.subtract(x, op.tanh(x)),
}
_ALONG_CHANNELS: dict[str | None, Callable[[Node, int], Node]] = {
    "glu": _gated,
    "log_softmax": op.log_softmax,
    "softmax": op.softmax,
}


def _elementwise(function: Callable[[Layer, Node], Node]) -> BuildLayer:
    def build(layer: Layer, inputs: Sequence[Value]) -> Value:
        (tensor,) = inputs
        return Value(function(layer, only_float(tensor).node).output(0), tensor.turned)

    return build


def _activation(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    return activate(layer, tensor)


def _relu(layer: Layer, x: Node) -> Node:
    config = layer.config
    return rectified(x, config["negative_slope"], config["max_value"], config["threshold"])


def _softmax(layer: Layer, inputs: Sequence[Value]) -> Value:
    """Along one axis or several."""
    (tensor,) = inputs
    only_float(tensor)
    axis = layer.config["axis"]
    axes = [axis] if isinstance(axis, int) else axis
    if layer.mask is None:
        shares = softmax(tensor.node, [axis_of(tensor, one) for one in axes])
        return Value(shares.output(0), tensor.turned)
    if len(dims(layer.mask)) != tensor.rank:
        raise Unsupported("a mask with fewer axes")
    return value(softmax(in_keras_order(tensor), [one % tensor.rank for one in axes], layer.mask))


def softmax(x: Node, axes: Sequence[int], mask: Mask = None) -> ov.Node:
    """Shares of 1 over some of a node's own axes together; what a mask leaves out has none."""
    if mask is not None:
        x = op.select(mask, x, constant(-1e9))
    if len(axes) == 1:
        shares = op.softmax(x, axes[0])
    else:
        shares = op.exp(op.subtract(x, op.reduce_max(x, whole(axes), True)))
        shares = op.divide(shares, op.reduce_sum(shares, whole(axes), True))
    return shares if mask is None else op.select(mask, shares, constant(0.0))


def _prelu(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    shape = list(known(tensor.shape[1:]))
    for axis in layer.config["shared_axes"] or ():
        shape[axis - 1] = 1
    alpha = layer.arrays(alpha=tuple(shape))["alpha"]
    slope = along(tensor, range(1, tensor.rank), alpha)
    x = only_float(tensor).node
    node = op.subtract(op.relu(x), op.multiply(slope, op.relu(op.negative(x))))
    return Value(node.output(0), tensor.turned)


LAYERS: dict[str, BuildLayer] = {
    "Activation": _activation,
    "ELU": _elementwise(lambda layer, x: op.elu(x, float(layer.config["alpha"]))),
    "LeakyReLU": _elementwise(lambda layer, x: _leaky(x, float(layer.config["negative_slope"]))),
    "PReLU": _prelu,
    "ReLU": _elementwise(_relu),
    "Softmax": _softmax,
}
