"""Numbers to colours: one scale for amounts and one for signed values, both perceptually uniform.

The scales are straight or evenly curved lines in OKLab, a colour space in which equal steps look equal
(B. Ottosson, "A perceptual color space for image processing", 2020), so that they also hold in grey.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from layerprobe.records import Array

STEPS = 256

_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def amounts(values: Array) -> Array:
    """Colour what has a least and a largest: dark blue through red to light yellow.

    Args:
        values: (...) from 0 to 1; what is outside is clipped, NaN is grey.

    Returns:
        (..., 3) uint8 sRGB.
    """
    return _looked_up(_amounts(), np.asarray(values, float))


def signed(values: Array) -> Array:
    """Colour what has a sign: blue below 0, nearly white at 0, red above.

    Args:
        values: (...) from -1 to 1; what is outside is clipped, NaN is grey.

    Returns:
        (..., 3) uint8 sRGB.
    """
    return _looked_up(_signed(), (np.asarray(values, float) + 1) / 2)


MISSING = (128, 128, 128)
"""The colour of NaN."""


def _looked_up(table: Array, places: Array) -> Array:
    missing = np.isnan(places)
    steps = np.clip(np.where(missing, 0, places), 0, 1) * (STEPS - 1) + 0.5
    found = table[steps.astype(np.uint8)]
    found[missing] = MISSING
    return found


@cache
def _amounts() -> Array:
    """Lightness rises evenly; hue turns from blue over red to yellow, with most chroma in the middle."""
    t = np.linspace(0, 1, STEPS)
    hue = np.radians(285 + 185 * t)
    chroma = 0.02 + 0.15 * np.sin(np.pi * t**0.9)
    return _srgb(0.14 + 0.83 * t, chroma * np.cos(hue), chroma * np.sin(hue))


@cache
def _signed() -> Array:
    """Two lines of equal length from nearly white, one to blue and one to red."""
    t = np.linspace(-1, 1, STEPS)
    hue = np.radians(np.where(t < 0, 255, 28))
    chroma = 0.155 * np.abs(t) ** 0.8
    return _srgb(0.97 - 0.57 * np.abs(t), chroma * np.cos(hue), chroma * np.sin(hue))


def _srgb(lightness: Array, a: Array, b: Array) -> Array:
    """OKLab -> (..., 3) uint8; colours outside sRGB are clipped."""
    linear = (np.stack([lightness, a, b], -1) @ _TO_LMS.T) ** 3 @ _TO_LINEAR.T
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(encoded * 255), np.uint8)
