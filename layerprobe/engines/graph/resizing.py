"""An axis of an image at another length, as TensorFlow's kernels weigh the pixels.

Every method is linear and goes axis by axis, so that one is a matrix: row i holds the share that each pixel
has in pixel i of the result. The shares are computed in float32 and in TensorFlow's own steps, since in a
large image the last bit of a position shows in the fifth digit of a pixel
(tensorflow/core/kernels/image: scale_and_translate_op.cc, resize_bicubic_op.cc, resize_area_op.cc).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from openvino import opset13 as op

from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import Node, constant, dims, known, whole

if TYPE_CHECKING:
    from layerprobe.records import Array

Kernel = tuple[float, Callable[["Array"], "Array"]]
"""How many pixels a method reaches, and the weight of a pixel at a distance of so many."""


def resized(x: Node, axis: int, length: int, method: str, antialias: bool = False) -> Node:
    """One axis of a float32 tensor, the last or the one before, at another length.

    Args:
        x: Of any rank of at least two.
        axis: Among its node's own, from the front.
        length: In pixels.
        method: As Keras names the interpolation.
        antialias: Whether a method weighs all pixels that a smaller pixel covers.

    Raises:
        Unsupported: There is no such method.
    """
    (size,) = known([dims(x)[axis]])
    if method == "nearest":
        return op.gather(x, whole(nearest(size, length)), constant(axis, "int64"))
    weights = shares(size, length, method, antialias)
    if axis == len(dims(x)) - 1:
        return op.matmul(x, constant(weights), False, True)
    return op.matmul(constant(weights), x, False, False)


def nearest(size: int, length: int) -> Array:
    """Which pixel each pixel of the result is a copy of."""
    places = _positions(size, length) * np.float32(size / length)
    return np.minimum(np.floor(places).astype(np.int64), size - 1)


def shares(size: int, length: int, method: str, antialias: bool) -> Array:
    """(length, size) float32, the share of each pixel in each of the result."""
    if method == "area":
        return _areas(size, length)
    if method == "bicubic" and not antialias:
        return _tabulated_bicubic(size, length)
    if method not in _KERNELS:
        raise Unsupported(f"interpolation={method}")
    if method == "bilinear" and not antialias:
        return _between_centres(size, length)
    return _spans(size, length, _KERNELS[method], antialias)


def _positions(size: int, length: int) -> Array:
    return np.arange(length, dtype=np.float32) + np.float32(0.5)


def _between_centres(size: int, length: int) -> Array:
    places = _positions(size, length) * np.float32(size / length) - np.float32(0.5)
    below = np.floor(places)
    part = places - below
    weights = np.zeros((length, size), np.float32)
    rows = np.arange(length)
    np.add.at(weights, (rows, np.clip(below, 0, size - 1).astype(int)), 1 - part)
    np.add.at(weights, (rows, np.clip(below + 1, 0, size - 1).astype(int)), part)
    return weights


def _spans(size: int, length: int, kernel: Kernel, antialias: bool) -> Array:
    """The kernel around each new pixel's centre, as far as it is in the image, its sum made 1."""
    reach, weigh = kernel
    step = np.float32(1) / np.float32(length / size)
    wide = np.float32(max(float(step), 1.0) if antialias else 1.0)
    centres = _positions(size, length) * step
    pixels = np.arange(size, dtype=np.float32) + np.float32(0.5)
    distance = (pixels[None, :] - centres[:, None]) * (np.float32(1) / wide)
    first = np.ceil(centres - np.float32(reach) * wide - np.float32(0.5))[:, None]
    last = np.floor(centres + np.float32(reach) * wide - np.float32(0.5))[:, None]
    inside = (pixels - np.float32(0.5) >= first) & (pixels - np.float32(0.5) <= last)
    weights = np.where(inside, weigh(np.abs(distance)), np.float32(0)).astype(np.float32)
    return _even(weights)


def _even(weights: Array) -> Array:
    """With rows whose sum is 1."""
    rows: Array = weights / weights.sum(axis=1, keepdims=True, dtype=np.float32)
    return rows


def _triangle(x: Array) -> Array:
    return np.maximum(np.float32(1) - x, np.float32(0))


def _keys_cubic(x: Array) -> Array:
    """https://doi.org/10.1109/TASSP.1981.1163711 with a = -0.5."""
    near = (np.float32(1.5) * x - np.float32(2.5)) * x * x + np.float32(1)
    far = ((np.float32(-0.5) * x + np.float32(2.5)) * x - np.float32(4)) * x + np.float32(2)
    return np.where(x >= 2, np.float32(0), np.where(x >= 1, far, near))


def _lanczos(radius: int) -> Kernel:
    def weigh(x: Array) -> Array:
        turn = np.float32(math.pi)
        safe = np.where(x <= 1e-3, np.float32(1), x)
        curve = np.float32(radius) * np.sin(turn * safe) * np.sin(turn * safe / np.float32(radius))
        return np.where(x > radius, 0, np.where(x <= 1e-3, 1, curve / (turn * turn * safe * safe)))

    return radius, weigh


def _tabulated_bicubic(size: int, length: int) -> Array:
    """Without antialiasing TensorFlow looks its cubic up in a table with 1,024 steps to the pixel."""
    places = _positions(size, length) * np.float32(size / length) - np.float32(0.5)
    below = np.floor(places)
    offset = np.rint((places - below) * np.float32(1024)) / np.float32(1024)
    weights = np.zeros((length, size), np.float32)
    rows = np.arange(length)
    for tap in (-1, 0, 1, 2):
        column = below + tap
        inside = (column >= 0) & (column < size)
        share = np.where(inside, _keys_cubic(np.abs(np.float32(tap) - offset).astype(np.float32)), 0)
        np.add.at(weights, (rows, np.clip(column, 0, size - 1).astype(int)), share.astype(np.float32))
    return _even(weights)


def _areas(size: int, length: int) -> Array:
    """What part of a new pixel each old one covers."""
    step = np.float32(size / length)
    start = (np.arange(length, dtype=np.float32) * step)[:, None]
    stop = ((np.arange(length, dtype=np.float32) + 1) * step)[:, None]
    pixels = np.arange(size, dtype=np.float32)[None, :]
    cover = np.minimum(pixels + 1, stop) - np.maximum(pixels, start)
    within = (pixels < start) & (pixels + 1 > stop)
    return np.where(within, step, np.maximum(cover, np.float32(0))) / step


_KERNELS: dict[str, Kernel] = {
    "bicubic": (2, _keys_cubic),
    "bilinear": (1, _triangle),
    "lanczos3": _lanczos(3),
    "lanczos5": _lanczos(5),
}
