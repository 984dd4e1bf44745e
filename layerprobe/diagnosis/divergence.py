"""How far apart what arrives at a layer is from what arrived there in training, per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerprobe.records import Array


@dataclass(frozen=True, slots=True)
class Moments:
    """Of what arrives at one layer, for each image by itself, over all of its positions."""

    means: Array
    """(n, C) float64."""
    squares: Array
    """(n, C) float64, the mean of the squares."""


def moments(values: Array, axis: int) -> Moments:
    """Per image and channel: the mean, and the mean of the squares.

    Args:
        values: (n, ...), what arrives.
        axis: Of the channels.
    """
    last = np.moveaxis(values, axis, -1).astype(np.float64)
    flat = last.reshape(len(last), -1, last.shape[-1])
    return Moments(flat.mean(1), np.square(flat).mean(1))


def joined(parts: Sequence[Moments]) -> Moments:
    """Those of all images, one after the other."""
    return Moments(
        np.concatenate([part.means for part in parts]), np.concatenate([part.squares for part in parts])
    )


def pooled(found: Moments) -> tuple[Array, Array]:
    """The mean and variance of each channel over all images: (C,) and (C,)."""
    mean = found.means.mean(0)
    return mean, np.maximum(found.squares.mean(0) - mean**2, 0.0)


def without_each(found: Moments) -> tuple[Array, Array]:
    """The same over all images but one, for each that may be left out: (n, C) and (n, C)."""
    count = max(2, len(found.means))  # Without the only one nothing is left, and no error can be told.
    mean = (found.means.sum(0) - found.means) / (count - 1)
    square = (found.squares.sum(0) - found.squares) / (count - 1)
    return mean, np.maximum(square - mean**2, 0.0)


def divergence(mean: Array, variance: Array, stored_mean: Array, stored_variance: Array) -> Array:
    """Kullback-Leibler divergence of two normals, that of the images from the stored one, in nats.

    Args:
        mean: (..., C) of the images.
        variance: (..., C), above 0.
        stored_mean: (C,).
        stored_variance: (C,), above 0.

    Returns:
        (..., C), 0 or more.
    """
    ratio = variance / stored_variance
    return 0.5 * (ratio - 1 - np.log(ratio) + (mean - stored_mean) ** 2 / stored_variance)
