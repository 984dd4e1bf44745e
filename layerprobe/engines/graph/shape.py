"""Layers that move, repeat or leave out values, and those that change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.convolution import channels_first_input
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.resizing import resized
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Value,
    constant,
    dims,
    in_keras_order,
    known,
    only_float,
    value,
    whole,
)


def _identity(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    return tensor


def _wrapped(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The layer within; its weights were normalised when they were trained."""
    return layer.child("layer", inputs)[0]


def _reshaped(tensor: Value, sizes: Sequence[int]) -> Value:
    """The same values, row by row in other sizes."""
    if math.prod(sizes) != math.prod(known(tensor.shape[1:])):
        raise Unsupported(f"a reshape of {tensor.shape[1:]} to {tuple(sizes)}")
    return value(op.reshape(in_keras_order(tensor), whole([-1, *sizes]), False))


def _channels_first(layer: Layer, inputs: Sequence[Value]) -> ov.Output:
    only_float(inputs[0])
    return channels_first_input(layer, inputs)


def _flatten(layer: Layer, inputs: Sequence[Value]) -> Value:
    """One vector per sample; its order is that of a channels-last image."""
    (tensor,) = inputs
    size = math.prod(known(tensor.shape[1:]))
    if layer.is_channels_first and tensor.rank > 2:
        tensor = value(_channels_to_the_end(in_keras_order(tensor), tensor.rank))
    return _reshaped(tensor, [size])


def _channels_to_the_end(node: ov.Output, rank: int) -> ov.Node:
    return op.transpose(node, whole([0, *range(2, rank), 1]))


def _reshape(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    sizes = list(layer.config["target_shape"])
    if sizes.count(-1) > 1:
        raise Unsupported(f"target_shape={tuple(sizes)}")
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(known(tensor.shape[1:])) // max(rest, 1)
    return _reshaped(tensor, sizes)


def _permute(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    return value(op.transpose(in_keras_order(tensor), whole([0, *layer.config["dims"]])))


def _repeat_vector(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    return value(op.tile(op.unsqueeze(in_keras_order(tensor), whole([1])), whole([1, layer.config["n"], 1])))


def _margins(given: Any, rank: int) -> list[tuple[int, int]]:
    """What is added to or cut from both ends of each spatial axis."""
    if isinstance(given, int):
        return [(given, given)] * rank
    if rank == 1:
        given = (tuple(given),)
    pairs = [(each, each) if isinstance(each, int) else tuple(each) for each in given]
    if len(pairs) != rank or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise Unsupported(f"margins {given}")
    return pairs


def _zero_padding(layer: Layer, inputs: Sequence[Value]) -> Value:
    x = _channels_first(layer, inputs)
    margins = _margins(layer.config["padding"], len(dims(x)) - 2)
    before, after = ([0, 0, *(pair[end] for pair in margins)] for end in (0, 1))
    return layer.result(op.pad(x, whole(before), whole(after), "constant", constant(0.0)))


def _cropping(layer: Layer, inputs: Sequence[Value]) -> Value:
    x = _channels_first(layer, inputs)
    sizes = known(dims(x)[2:])
    margins = _margins(layer.config["cropping"], len(sizes))
    start = [before for before, _ in margins]
    stop = [size - after for size, (_, after) in zip(sizes, margins, strict=True)]
    if any(first >= last for first, last in zip(start, stop, strict=True)):
        raise Unsupported(f"a cropping of {margins} from {sizes}")
    axes = range(2, len(sizes) + 2)
    return layer.result(op.slice(x, whole(start), whole(stop), whole([1] * len(sizes)), whole(axes)))


def _up_sampling(layer: Layer, inputs: Sequence[Value]) -> Value:
    """Every value repeated along each spatial axis, or the image resized."""
    x = _channels_first(layer, inputs)
    sizes = known(dims(x)[2:])
    given = layer.config["size"]
    factors = [given] * len(sizes) if isinstance(given, int) else list(given)
    method = layer.config.get("interpolation", "nearest")
    if method == "nearest":
        node: ov.Node | ov.Output = x
        for axis, factor in enumerate(factors, 2):
            node = _repeated(node, axis, factor)
        return layer.result(node)
    larger = [size * factor for size, factor in zip(sizes, factors, strict=True)]
    if method != "bilinear":
        node = x
        for axis, length in enumerate(larger, 2):
            node = resized(node, axis, length, method)
        return layer.result(node)
    axes = whole(range(2, len(sizes) + 2))
    node = op.interpolate(
        x, whole(larger), "linear_onnx", "sizes", coordinate_transformation_mode="half_pixel", axes=axes
    )
    return layer.result(node)


def _repeated(node: ov.Node | ov.Output, axis: int, count: int) -> ov.Node | ov.Output:
    """Every value along an axis so many times over."""
    if count == 1:
        return node
    sizes = dims(node)
    apart = op.unsqueeze(node, whole([axis + 1]))
    tiled = op.tile(apart, whole([count if place == axis + 1 else 1 for place in range(len(sizes) + 1)]))
    joined = [*known(sizes[1:])]
    joined[axis - 1] *= count
    return op.reshape(tiled, whole([-1, *joined]), False)


_UNCHANGED = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
)
"""Layers that do something only while a network is trained."""

LAYERS: dict[str, BuildLayer] = {
    **dict.fromkeys(_UNCHANGED, _identity),
    **{f"Cropping{rank}D": _cropping for rank in (1, 2, 3)},
    "Flatten": _flatten,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "Reshape": _reshape,
    "SpectralNormalization": _wrapped,
    **{f"UpSampling{rank}D": _up_sampling for rank in (1, 2, 3)},
    **{f"ZeroPadding{rank}D": _zero_padding for rank in (1, 2, 3)},
}
