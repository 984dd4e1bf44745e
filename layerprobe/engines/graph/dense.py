"""Dense layers."""

from __future__ import annotations

from collections.abc import Sequence

from openvino import opset13 as op

from layerprobe.engines.graph.activations import activate
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.values import (
    Value,
    as_float,
    constant,
    in_keras_order,
    known,
    value,
)


def _dense(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    (size,) = known(tensor.shape[-1:])
    units = layer.config["units"]
    bias = {"bias": (units,)} if layer.config["use_bias"] else {}
    arrays = layer.arrays(kernel=(size, units), **bias)
    node = op.matmul(in_keras_order(as_float(tensor)), constant(arrays["kernel"]), False, False)
    if "bias" in arrays:
        node = op.add(node, constant(arrays["bias"]))
    return activate(layer, value(node))


LAYERS: dict[str, BuildLayer] = {"Dense": _dense}
