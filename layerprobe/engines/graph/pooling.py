"""Pooling, over windows and over whole images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import openvino as ov
from openvino import opset1, opset13

from layerprobe.engines.graph.convolution import channels_first_input, each, same_padding
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.rearranging import cut
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Node,
    Value,
    constant,
    dims,
    in_keras_order,
    known,
    only_float,
    value,
    whole,
)


def _windows(layer: Layer, x: ov.Output) -> tuple[tuple[int, ...], list[int], list[int], tuple[int, ...]]:
    """Strides, padding before and after, and size of a pooling layer's windows."""
    sizes = known(dims(x)[2:])
    size = each(layer, "pool_size", len(sizes))
    strides = size if layer.config["strides"] is None else each(layer, "strides", len(sizes))
    if layer.config["padding"] == "same":
        before, after = same_padding(sizes, size, strides, [1] * len(sizes))
    elif layer.config["padding"] == "valid":
        before, after = [0] * len(sizes), [0] * len(sizes)
    else:
        raise Unsupported(f"padding={layer.config['padding']}")
    return strides, before, after, size


def _maximum(layer: Layer, inputs: Sequence[Value]) -> Value:
    only_float(inputs[0])
    x = channels_first_input(layer, inputs)
    return layer.result(opset1.max_pool(x, *_windows(layer, x), "floor"))


def _average(layer: Layer, inputs: Sequence[Value]) -> Value:
    """What "same" adds is not counted."""
    only_float(inputs[0])
    x = channels_first_input(layer, inputs)
    return layer.result(opset1.avg_pool(x, *_windows(layer, x), True, "floor"))


def _global(reduce: Callable[..., ov.Node]) -> BuildLayer:
    def build(layer: Layer, inputs: Sequence[Value]) -> Value:
        only_float(inputs[0])
        x = channels_first_input(layer, inputs)
        keep = bool(layer.config["keepdims"])
        node = reduce(x, whole(range(2, len(dims(x)))), keep)
        return layer.result(node) if keep else value(node)

    return build


def _adaptive(reduce: Callable[..., ov.Node]) -> BuildLayer:
    """As many windows along each axis as asked for; where they do not fit evenly they overlap."""

    def build(layer: Layer, inputs: Sequence[Value]) -> Value:
        only_float(inputs[0])
        node: Node = channels_first_input(layer, inputs)
        sizes = known(dims(node)[2:])
        counts = each(layer, "output_size", len(sizes))
        for axis, (size, count) in enumerate(zip(sizes, counts, strict=True), 2):
            bounds = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
            parts = [cut(node, axis, first, last) for first, last in bounds]
            node = opset13.concat([reduce(part, whole([axis]), True) for part in parts], axis)
        return layer.result(node)

    return build


def _average_of_steps(layer: Layer, inputs: Sequence[Value]) -> Value | list[Value]:
    """The mean over time of the steps that count; NaN, as in Keras, where none does."""
    if layer.mask is None:
        return _global_average(layer, inputs)
    (tensor,) = inputs
    axis = 2 if layer.is_channels_first else 1
    if len(dims(layer.mask)) != 2:
        raise Unsupported("a mask with more axes than batch and time")
    counts = opset13.unsqueeze(layer.mask, whole([3 - axis]))
    kept = opset13.select(counts, in_keras_order(only_float(tensor)), constant(0.0))
    keep, time = bool(layer.config["keepdims"]), whole([axis])
    number = opset13.reduce_sum(opset13.convert(counts, "f32"), time, keep)
    return value(opset13.divide(opset13.reduce_sum(kept, time, keep), number))


_adaptive_average = _adaptive(opset13.reduce_mean)
_adaptive_maximum = _adaptive(opset13.reduce_max)
_global_average = _global(opset13.reduce_mean)
_global_maximum = _global(opset13.reduce_max)

LAYERS: dict[str, BuildLayer] = {
    **{f"AdaptiveAveragePooling{rank}D": _adaptive_average for rank in (1, 2, 3)},
    **{f"AdaptiveMaxPooling{rank}D": _adaptive_maximum for rank in (1, 2, 3)},
    **{f"AveragePooling{rank}D": _average for rank in (1, 2, 3)},
    **{f"GlobalAveragePooling{rank}D": _global_average for rank in (2, 3)},
    "GlobalAveragePooling1D": _average_of_steps,
    **{f"GlobalMaxPooling{rank}D": _global_maximum for rank in (1, 2, 3)},
    **{f"MaxPooling{rank}D": _maximum for rank in (1, 2, 3)},
}
