"""Layers that prepare images: those that resize and crop, and those that vary them in training alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.resizing import resized
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    FLOATS,
    Node,
    Value,
    as_float,
    channels_first,
    constant,
    converted,
    dims,
    dtype_of,
    in_keras_order,
    known,
    only_float,
    whole,
)


def _varied_in_training(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The same images; what becomes of whole numbers differs from class to class."""
    (tensor,) = inputs
    return only_float(tensor)


def _image(layer: Layer, inputs: Sequence[Value]) -> tuple[Node, int, int]:
    """A batch of images as (B, C, H, W), and its height and width."""
    (tensor,) = inputs
    if tensor.rank != 4:
        raise Unsupported(f"a tensor with {tensor.rank} axes")
    node = in_keras_order(tensor) if layer.is_channels_first else channels_first(tensor)
    height, width = known(dims(node)[2:])
    return node, height, width


def _resizing(layer: Layer, inputs: Sequence[Value]) -> Value:
    node, _, _ = _image(layer, inputs)
    wanted = layer.config["height"], layer.config["width"]
    result = at_size(node, wanted, layer.config)
    dtype = inputs[0].dtype
    return layer.result(result if dtype_of(result) == dtype else _rounded(result, dtype))


def at_size(node: Node, wanted: tuple[int, int], how: Mapping[str, Any]) -> Node:
    """Images at another size, as float32 where pixels are weighed.

    Args:
        node: (B, C, H, W).
        wanted: Height and width.
        how: The arguments of Keras's Resizing, by name.
    """
    height, width = known(dims(node)[2:])
    if how["crop_to_aspect_ratio"]:
        node = _cropped(node, *_of_ratio(height, width, wanted))
    elif how["pad_to_aspect_ratio"]:
        node = _padded(node, wanted, how["fill_value"])
    if how["interpolation"] == "nearest" or dims(node)[2:] == wanted:
        return _at_size(node, wanted, "nearest")
    floats = node if dtype_of(node) == FLOATS else converted(node, FLOATS)
    return _at_size(floats, wanted, how["interpolation"], bool(how["antialias"]))


def _at_size(node: Node, wanted: tuple[int, int], method: str, antialias: bool = False) -> Node:
    for axis, length in enumerate(wanted, 2):
        if dims(node)[axis] != length:
            node = resized(node, axis, length, method, antialias)
    return node


def _rounded(node: Node, dtype: str) -> Node:
    limits = np.iinfo(dtype)
    node = op.clamp(op.round(node, "half_to_even"), float(limits.min), float(limits.max))
    return converted(node, dtype)


def _of_ratio(height: int, width: int, wanted: tuple[int, int]) -> tuple[int, int]:
    """The largest height and width within an image that have the ratio of those that are wanted."""
    across = int(np.float32(width * wanted[0]) / np.float32(wanted[1]))
    down = int(np.float32(height * wanted[1]) / np.float32(wanted[0]))
    return max(min(height, across), 1), max(min(width, down), 1)


def _cropped(node: Node, height: int, width: int) -> Node:
    """The middle of an image; where it cannot be in the middle, one pixel further up or left."""
    sizes = known(dims(node)[2:])
    start = [(size - length) // 2 for size, length in zip(sizes, (height, width), strict=True)]
    stop = [first + length for first, length in zip(start, (height, width), strict=True)]
    return op.slice(node, whole(start), whole(stop), whole([1, 1]), whole([2, 3]))


def _padded(node: Node, wanted: tuple[int, int], filler: float) -> Node:
    """An image with equal margins, so that it has about the ratio of the sizes that are wanted."""
    height, width = known(dims(node)[2:])
    across = max(height, int(np.float32(width * wanted[0]) / np.float32(wanted[1])))
    down = max(width, int(np.float32(height * wanted[1]) / np.float32(wanted[0])))
    margins = whole([0, 0, (across - height) // 2, (down - width) // 2])
    return op.pad(node, margins, margins, "constant", constant(filler, dtype_of(node)))


def _center_crop(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The middle of an image; of a smaller one as much as has the ratio, enlarged."""
    node, height, width = _image(layer, [as_float(tensor) for tensor in inputs])
    wanted = layer.config["height"], layer.config["width"]
    if height >= wanted[0] and width >= wanted[1]:
        return layer.result(_cropped(node, *wanted))
    node = _cropped(node, *_of_ratio(height, width, wanted))
    return layer.result(_at_size(node, wanted, "bilinear"))


IN_TRAINING = (
    "AugMix",
    "CutMix",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "Solarization",
)
"""Layers that change images only while a network is trained."""

LAYERS: dict[str, BuildLayer] = {
    **dict.fromkeys(IN_TRAINING, _varied_in_training),
    "CenterCrop": _center_crop,
    "Resizing": _resizing,
}
