"""What stands between a layer's maps and the scores, where that is linear: then CAM is exact.

CAM (B. Zhou and others, "Learning Deep Features for Discriminative Localization", 2016) is about a global
average and a dense layer. Whatever else is affine in each position's channels (dropout, batch normalisation,
1 x 1 convolutions without activation) or keeps the average (pooling in even tiles) can stand between: the
score is still an average over positions of a weighted sum of channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.class_maps.walk import Place, Scores, way_back

if TYPE_CHECKING:
    from layerprobe.modelfile.weights import Weights
    from layerprobe.records import Array, Tap, TensorSpec


_NOTHING = np.zeros(1)


class NotLinear(Exception):
    """Why scores are not a weighted sum of a layer's channels, averaged over positions."""


@dataclass(frozen=True, slots=True)
class Head:
    """Scores of a layer's maps: at each position `maps @ weights`, their average plus `bias`."""

    weights: Array
    """(C, K) float32."""
    bias: Array
    """(K,) float32."""
    activation: str
    """What makes probabilities of scores: a name of `keras.activations`."""
    through: tuple[str, ...]
    """Addresses of the layers between the maps and the scores."""


@dataclass(frozen=True, slots=True)
class _Average:
    """The average over positions of what a layer gives is that of the maps, `@ matrix + offset`."""

    matrix: Array
    """(C, C')."""
    offset: Array
    """(C',)."""
    positions: tuple[int, ...]
    """Sizes of the axes beside the batch and the channels."""
    first: bool
    """Whether the channels come first."""

    def times(self, factor: Array) -> _Average:
        """With each channel multiplied, (C',), or mixed, (C', C'')."""
        if factor.ndim == 1:
            return replace(self, matrix=self.matrix * factor, offset=self.offset * factor)
        return replace(self, matrix=self.matrix @ factor, offset=self.offset @ factor)

    def plus(self, offset: Array) -> _Average:
        """With a number added to each channel."""
        return replace(self, offset=self.offset + offset)


def find_head(scores: Scores, layer: Tap, weights: Weights, spec: TensorSpec) -> Head:
    """Follow the scores back to a layer, and multiply out what is between.

    Args:
        scores: Of the model.
        layer: The layer's output.
        weights: Of the model; those of the layers between are read.
        spec: What the layer gives.

    Raises:
        NotLinear: Something between is not linear, or the layer is not what the scores are made of.
    """
    between = _between(scores, layer)
    sizes = [size or 0 for size in spec.shape]
    channels = sizes.pop(spec.channel_axis)
    average = _Average(np.eye(channels), np.zeros(channels), tuple(sizes), spec.channel_axis == 0)
    for place in reversed(between):
        last = place is between[0] and scores.tap.kind == "preactivation"
        average = _after(place, average, weights, last)
    if math.prod(average.positions) != 1:
        raise NotLinear("there is no global average pooling behind it")
    matrix, offset = average.matrix.astype(np.float32), average.offset.astype(np.float32)
    return Head(matrix, offset, scores.activation, tuple(place.address for place in reversed(between)))


def _between(scores: Scores, layer: Tap) -> list[Place]:
    """What gives the scores, and what that takes, back to the layer, which is left out."""
    between: list[Place] = []
    for place in way_back(scores.place):
        if place.is_tapped_by(layer) and not (place is scores.place and scores.tap.kind == "preactivation"):
            return between
        if place.node.inner is None and not place.node.is_input:
            between.append(place)
    end = between[-1] if between else scores.place
    if layer.kind != "output":
        raise NotLinear(f"{layer.name} is not what a layer gives")
    raise NotLinear(f"{end.node.class_name} {end.address} is between it and the scores")


def _after(place: Place, average: _Average, weights: Weights, last: bool) -> _Average:
    """The average of what a layer gives, from that of what it takes."""
    node = place.node
    said = f"{node.class_name} {place.address} is between it and the scores"
    if node.module != "keras.layers" or (node.class_name not in _RULES and node.class_name not in _SAME):
        raise NotLinear(said)
    if not last and node.config.get("activation", "linear") != "linear":
        raise NotLinear(f"{said}, with activation {node.config['activation']}")
    if node.class_name in _SAME:
        return average
    if node.config.get("data_format") not in (None, "channels_first" if average.first else "channels_last"):
        raise NotLinear(f"{said}, with its channels on another axis")
    found = _RULES[node.class_name](node.config, average, weights.arrays(place.address))
    if found is None:
        raise NotLinear(f"{said}, which does not keep the average")
    return found


def _normalised(config: Mapping[str, Any], average: _Average, arrays: Mapping[str, Array]) -> _Average | None:
    """BatchNormalization, with its moving statistics."""
    rank = len(average.positions) + 2
    axis = config["axis"]
    if not isinstance(axis, int) or axis % rank != (1 if average.first else rank - 1):
        return None
    deviation = np.sqrt(np.asarray(arrays["moving_variance"], float) + config["epsilon"])
    factor = arrays.get("gamma", 1 + _NOTHING) / deviation
    return average.times(factor).plus(arrays.get("beta", _NOTHING) - arrays["moving_mean"] * factor)


def _rescaled(config: Mapping[str, Any], average: _Average, _: Mapping[str, Array]) -> _Average | None:
    scale, offset = (np.asarray(config[name], float) for name in ("scale", "offset"))
    channels = average.offset.shape
    if {scale.size, offset.size} - {1, channels[0]} or (average.first and scale.size + offset.size > 2):
        return None
    return average.times(np.broadcast_to(scale, channels)).plus(np.broadcast_to(offset, channels))


def _dense(config: Mapping[str, Any], average: _Average, arrays: Mapping[str, Array]) -> _Average | None:
    if average.first and average.positions:
        return None  # It mixes the last axis, which is one of positions.
    return average.times(np.asarray(arrays["kernel"], float)).plus(arrays.get("bias", _NOTHING))


def _convolved(config: Mapping[str, Any], average: _Average, arrays: Mapping[str, Array]) -> _Average | None:
    """Of each position alone."""
    kernel = np.asarray(arrays["kernel"], float)
    one = set(kernel.shape[:-2]) == {1} and set(_each(config["strides"])) == {1}
    if not one or config.get("groups", 1) != 1:
        return None
    return average.times(kernel.reshape(kernel.shape[-2:])).plus(arrays.get("bias", _NOTHING))


def _pooled(config: Mapping[str, Any], average: _Average, _: Mapping[str, Array]) -> _Average | None:
    """Averages over tiles of equal size that leave nothing out keep the average of the whole.

    One tile for all of it may be moved on by less than its size, unless padding makes room for more of them.
    """
    count = len(average.positions)
    size = _each(config["pool_size"], count)
    strides = size if config["strides"] is None else _each(config["strides"], count)
    once = size == average.positions and config.get("padding", "valid") == "valid"
    tiled = [whole % tile == 0 for tile, whole in zip(size, average.positions, strict=True)]
    if not all(tiled) or not (once or size == strides):
        return None
    return replace(
        average, positions=tuple(whole // tile for whole, tile in zip(average.positions, size, strict=True))
    )


def _averaged(config: Mapping[str, Any], average: _Average, _: Mapping[str, Array]) -> _Average:
    kept = (1,) * len(average.positions) if config.get("keepdims") else ()
    return replace(average, positions=kept)


def _flattened(_: Mapping[str, Any], average: _Average, __: Mapping[str, Array]) -> _Average | None:
    return replace(average, positions=()) if math.prod(average.positions) == 1 else None


def _reshaped(config: Mapping[str, Any], average: _Average, _: Mapping[str, Array]) -> _Average | None:
    shape = _each(config["target_shape"])
    others = shape[1:] if average.first and len(shape) > 1 else shape[:-1]
    if math.prod(average.positions) != 1 or set(others) - {1}:
        return None
    return replace(average, positions=(1,) * len(others))


def _each(value: Any, count: int = 1) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (int(value),) * count


_SAME = (
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "SpatialDropout2D",
)
"""Classes that change nothing in the inference phase, an activation aside."""
_RULES: dict[str, Callable[[Mapping[str, Any], _Average, Mapping[str, Array]], _Average | None]] = {
    "AveragePooling2D": _pooled,
    "BatchNormalization": _normalised,
    "Conv2D": _convolved,
    "Dense": _dense,
    "Flatten": _flattened,
    "GlobalAveragePooling2D": _averaged,
    "Rescaling": _rescaled,
    "Reshape": _reshaped,
}
