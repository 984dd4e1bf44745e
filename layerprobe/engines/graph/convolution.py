"""Convolutions of one, two and three dimensions, computed channels-first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.activations import activate
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Value,
    as_float,
    channels_first,
    constant,
    dims,
    in_keras_order,
    known,
    whole,
)


def channels_first_input(layer: Layer, inputs: Sequence[Value]) -> ov.Output:
    """What goes into a layer with a `data_format`, as (B, C, ...)."""
    (tensor,) = inputs
    tensor = as_float(tensor)
    return in_keras_order(tensor) if layer.is_channels_first else channels_first(tensor)


def each(layer: Layer, argument: str, rank: int) -> tuple[int, ...]:
    """An argument that is one number per spatial axis, or one for all."""
    given = layer.config[argument]
    sizes = (given,) * rank if isinstance(given, int) else tuple(given)
    if len(sizes) != rank or not all(type(size) is int and size > 0 for size in sizes):
        raise Unsupported(f"{argument}={given}")
    return sizes


def same_padding(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """What "same" puts before and after each axis: the odd one comes after."""
    totals = [
        max((-(-size // stride) - 1) * stride + (width - 1) * step + 1 - size, 0)
        for size, width, stride, step in zip(sizes, kernel, strides, dilation, strict=True)
    ]
    return [total // 2 for total in totals], [total - total // 2 for total in totals]


class Geometry:
    """Strides, dilation and padding of one convolution."""

    def __init__(self, layer: Layer, x: ov.Output) -> None:
        sizes = known(dims(x)[2:])
        rank = len(sizes)
        self.kernel = each(layer, "kernel_size", rank)
        self.strides = each(layer, "strides", rank)
        self.dilation = each(layer, "dilation_rate", rank)
        padding = str(layer.config["padding"]).lower()
        if padding == "same":
            self.before, self.after = same_padding(sizes, self.kernel, self.strides, self.dilation)
        elif padding == "causal" and rank == 1:
            self.before, self.after = [self.dilation[0] * (self.kernel[0] - 1)], [0]
        elif padding == "valid":
            self.before, self.after = [0] * rank, [0] * rank
        else:
            raise Unsupported(f"padding={padding}")

    def convolve(self, x: ov.Output, kernel: np.ndarray, groups: int) -> ov.Node:
        """Convolve with a kernel of Keras's layout, (space..., in / groups, out)."""
        weights = np.moveaxis(kernel, (-1, -2), (0, 1))
        if groups == 1:
            return op.convolution(x, constant(weights), *self._arguments())
        weights = weights.reshape(groups, -1, *weights.shape[1:])
        return op.group_convolution(x, constant(weights), *self._arguments())

    def _arguments(self) -> tuple[Sequence[int], ...]:
        return self.strides, self.before, self.after, self.dilation


def finish(layer: Layer, node: ov.Node | ov.Output, bias: np.ndarray | None) -> Value:
    """Add the bias to a node that is (B, C, ...), and apply the activation."""
    if bias is not None:
        rank = len(dims(node))
        node = op.add(node, constant(bias.reshape(1, -1, *[1] * (rank - 2))))
    return activate(layer, layer.result(node))


def _bias(layer: Layer, filters: int) -> dict[str, tuple[int, ...]]:
    return {"bias": (filters,)} if layer.config["use_bias"] else {}


def _convolution(layer: Layer, inputs: Sequence[Value]) -> Value:
    x = channels_first_input(layer, inputs)
    geometry = Geometry(layer, x)
    channels, filters, groups = known(dims(x)[1:2])[0], layer.config["filters"], layer.config["groups"]
    shape = (*geometry.kernel, channels // groups, filters)
    arrays = layer.arrays(kernel=shape, **_bias(layer, filters))
    return finish(layer, geometry.convolve(x, arrays["kernel"], groups), arrays.get("bias"))


def _per_channel(kernel: np.ndarray) -> np.ndarray:
    """(space..., channels, multiplier) -> (space..., 1, channels * multiplier), one group per channel."""
    return kernel.reshape(*kernel.shape[:-2], 1, -1)


def _depthwise(layer: Layer, inputs: Sequence[Value]) -> Value:
    x = channels_first_input(layer, inputs)
    geometry = Geometry(layer, x)
    channels, multiplier = known(dims(x)[1:2])[0], layer.config["depth_multiplier"]
    shape = (*geometry.kernel, channels, multiplier)
    arrays = layer.arrays(kernel=shape, **_bias(layer, channels * multiplier))
    return finish(layer, geometry.convolve(x, _per_channel(arrays["kernel"]), channels), arrays.get("bias"))


def _separable(layer: Layer, inputs: Sequence[Value]) -> Value:
    x = channels_first_input(layer, inputs)
    geometry = Geometry(layer, x)
    channels, filters = known(dims(x)[1:2])[0], layer.config["filters"]
    multiplier = layer.config["depth_multiplier"]
    arrays = layer.arrays(
        depthwise_kernel=(*geometry.kernel, channels, multiplier),
        pointwise_kernel=(*(1 for _ in geometry.kernel), channels * multiplier, filters),
        **_bias(layer, filters),
    )
    within = geometry.convolve(x, _per_channel(arrays["depthwise_kernel"]), channels)
    weights = np.moveaxis(arrays["pointwise_kernel"], (-1, -2), (0, 1))
    ones, none = [1] * len(geometry.kernel), [0] * len(geometry.kernel)
    across = op.convolution(within, constant(weights), ones, none, none, ones)
    return finish(layer, across, arrays.get("bias"))


def _transposed(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The gradient of a convolution from the larger image to the smaller one.

    Keras says how large the larger image is (keras/src/backend/common/backend_utils.py), and TensorFlow
    pads it as it would for that convolution; what none of its windows reaches is zero.
    """
    x = channels_first_input(layer, inputs)
    channels, *sizes = known(dims(x)[1:])
    rank, filters = len(sizes), layer.config["filters"]
    kernel, strides = each(layer, "kernel_size", rank), each(layer, "strides", rank)
    dilation = each(layer, "dilation_rate", rank)
    spans = [(width - 1) * step + 1 for width, step in zip(kernel, dilation, strict=True)]
    large = [_enlarged(layer, *axis) for axis in zip(sizes, spans, strides, range(rank), strict=True)]
    before = [0] * rank
    if layer.config["padding"] == "same":
        before, _ = same_padding(large, kernel, strides, dilation)
    full = [(size - 1) * stride + span for size, stride, span in zip(sizes, strides, spans, strict=True)]
    after = [has - first - wanted for has, first, wanted in zip(full, before, large, strict=True)]
    arrays = layer.arrays(kernel=(*kernel, filters, channels), **_bias(layer, filters))
    weights = constant(np.moveaxis(arrays["kernel"], (-1, -2), (0, 1)))
    cut = [max(rows, 0) for rows in after]
    node = op.convolution_backprop_data(
        x, weights, list(strides), pads_begin=before, pads_end=cut, dilations=list(dilation)
    )
    if min(after) < 0:
        missing = whole([0, 0, *(max(-rows, 0) for rows in after)])
        node = op.pad(node, whole([0] * (rank + 2)), missing, "constant", constant(0.0))
    return finish(layer, node, arrays.get("bias"))


def _enlarged(layer: Layer, size: int, span: int, stride: int, axis: int) -> int:
    """How long Keras makes an axis; the kernel reaches over `span` of its pixels."""
    padding, extra = layer.config["padding"], layer.config["output_padding"]
    if padding not in ("same", "valid"):
        raise Unsupported(f"padding={padding}")
    if extra is None:
        return size * stride if padding == "same" else size * stride + max(span - stride, 0)
    more: int = extra if isinstance(extra, int) else extra[axis]
    return (size - 1) * stride + (span if padding == "valid" else span % 2) + more


LAYERS: dict[str, BuildLayer] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
}
