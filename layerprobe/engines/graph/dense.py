"""Dense layers and tables of vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openvino import opset13 as op

from layerprobe.engines.graph.activations import activate
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
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


def _embedding(layer: Layer, inputs: Sequence[Value]) -> Value:
    """Rows of a table; an index that the table does not have gives NaN, where TensorFlow stops."""
    (tensor,) = inputs
    rows, width = layer.config["input_dim"], layer.config["output_dim"]
    table = layer.arrays(embeddings=(rows, width))["embeddings"]
    table = np.concatenate([table, np.full((1, width), np.nan, np.float32)])
    if tensor.dtype not in ("float32", "int32", "int64", "uint8", "int16", "uint16", "int8"):
        raise Unsupported(f"indices of type {tensor.dtype}")
    index = op.convert(in_keras_order(tensor), "i32")
    zero, end = constant(0, np.int32), constant(rows, np.int32)
    index = op.select(op.less(index, zero), op.add(index, end), index)
    inside = op.logical_and(op.greater_equal(index, zero), op.less(index, end))
    node = op.gather(constant(table), op.select(inside, index, end), constant(0, np.int32))
    return Value(node.output(0), masked=tensor.masked or bool(layer.config["mask_zero"]))


LAYERS: dict[str, BuildLayer] = {"Dense": _dense, "Embedding": _embedding}
