"""What is kept of each layer's activations: (B, ...) -> (B, ...); the table is in `registry.REDUCTIONS`.

Each takes one batch, and the axis of the channels within one row: -1, or 0 for `channels_first` layers. The
result is C-contiguous.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from layerprobe.records import Array


def keep(activations: Array, channel_axis: int) -> Array:
    """Keep everything.

    Args:
        activations: (B, ...), any dtype.
        channel_axis: Does not matter here.

    Returns:
        The same values, shape and dtype.
    """
    return np.ascontiguousarray(activations)


def flatten(activations: Array, channel_axis: int) -> Array:
    """Make a vector of each row, in C order, as `keras.layers.Flatten` does for `channels_last`.

    Args:
        activations: (B, ...), any dtype.
        channel_axis: Does not matter here: the order of the values stays what it is.

    Returns:
        (B, n), n the number of values in a row; same dtype.
    """
    return np.ascontiguousarray(activations).reshape(len(activations), math.prod(activations.shape[1:]))


def global_average(activations: Array, channel_axis: int) -> Array:
    """Average over all positions, as `keras.layers.GlobalAveragePooling2D` does.

    Args:
        activations: (B, ..., C), or (B, C, ...) where `channel_axis` is 0. Where there are no positions, as
            in (B, C), nothing is averaged.
        channel_axis: Of one row, -1 or 0.

    Returns:
        (B, C); dtype float32 for integers and booleans, else the same. Sums are taken in float64, which is
        no slower and leaves a relative error under 1e-7 for float32 maps of any size.

    Raises:
        UsageError: An axis of positions has length zero.
    """
    axes = _positions(activations, channel_axis)
    if not axes:
        return np.ascontiguousarray(activations)
    dtype = np.dtype(np.float32) if activations.dtype.kind in "biu" else activations.dtype
    wide = np.promote_types(activations.dtype, np.float64)
    return np.ascontiguousarray(activations.mean(axes, dtype=wide), dtype)


def global_maximum(activations: Array, channel_axis: int) -> Array:
    """Take the largest value over all positions, as `keras.layers.GlobalMaxPooling2D` does.

    Args:
        activations: As for `global_average`.
        channel_axis: Of one row, -1 or 0.

    Returns:
        (B, C), same dtype; NaN where a position holds NaN.

    Raises:
        UsageError: An axis of positions has length zero.
    """
    axes = _positions(activations, channel_axis)
    return np.ascontiguousarray(activations.max(axes) if axes else activations)


def _positions(activations: Array, channel_axis: int) -> tuple[int, ...]:
    """The axes that are neither the batch nor the channels; none where there are only those."""
    if activations.ndim < 3:
        return ()
    channels = 1 if channel_axis == 0 else activations.ndim - 1
    axes = tuple(axis for axis in range(1, activations.ndim) if axis != channels)
    if not all(activations.shape[axis] for axis in axes):
        shape = activations.shape[1:]
        raise UsageError(
            f"activations of shape {shape} have no positions to pool over: use pool none or flatten."
        )
    return axes
