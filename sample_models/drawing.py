"""Draws the pictures that the sample models are trained on: one shape over clutter.

Everything about a picture follows from its seed, so a test can draw as many as it likes that no model
has ever seen. Seeds below `HELD_OUT` belong to the training sets of `train.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "cross", "ring", "square", "star", "triangle")
"""In the order of every model's output."""

HELD_OUT = 1_000_000
"""No training picture has this seed or a higher one."""

_SUPERSAMPLING = 4
_SIDES = (96, 176)  # of a picture whose size is left to chance, in pixels
_MIN_CONTRAST = 110.0  # Euclidean distance in RGB, 0 to 441

_Point = tuple[float, float]
_Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawn picture and what is to be seen on it."""

    image: Image.Image
    """RGB."""
    label: str
    """One of `CLASSES`."""
    box: tuple[int, int, int, int]
    """(left, top, right, bottom) of the shape in pixels; right and bottom are the first outside of it."""


def draw(seed: int, size: tuple[int, int] | None = None, label: str | None = None) -> Picture:
    """Draw one shape at a random place, size, angle and colour over clutter.

    Args:
        seed: 0 or more. The same arguments give the same picture, pixel for pixel.
        size: (width, height) in pixels, each at least 32; None: by chance, half of them not square.
        label: The shape, one of `CLASSES`; None: by chance.

    Returns:
        The picture; its shape lies wholly inside of it and covers a third to two thirds of the shorter side.
    """
    rng = np.random.default_rng([seed, 0])
    chosen_size, chosen_label = _random_size(rng), CLASSES[rng.integers(len(CLASSES))]
    width, height = size or chosen_size
    label = label or chosen_label
    image = _draw_clutter(seed, (width, height))
    mask = _draw_mask(rng, label, (width, height))
    box = mask.getbbox()
    assert box is not None  # a radius of at least a sixth of 32 pixels leaves something to see
    behind = np.asarray(image.crop(box)).mean(axis=(0, 1))
    image.paste(_contrasting_colour(rng, behind), mask=mask)
    return Picture(_add_noise(seed, image), label, box)


def draw_without_shape(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw what `draw(seed, size)` draws, but for the shape: outside of its box the pixels are equal."""
    return _add_noise(seed, _draw_clutter(seed, size))


def _draw_clutter(seed: int, size: tuple[int, int]) -> Image.Image:
    """A gradient, blotches, lines and specks."""
    rng = np.random.default_rng([seed, 1])
    width, height = size
    angle = rng.uniform(0, 2 * math.pi)
    across = np.linspace(-0.5, 0.5, width) * math.cos(angle)
    down = np.linspace(-0.5, 0.5, height) * math.sin(angle)
    ramp = (across + down[:, None] + 0.5).astype(np.float32)[..., None]
    first, second = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    blotches = Image.fromarray(rng.integers(0, 256, (*rng.integers(3, 8, 2), 3), dtype=np.uint8))
    smooth = np.asarray(blotches.resize(size, Image.Resampling.BICUBIC), np.float32) - 127.5
    pixels = first + (second - first) * ramp + smooth * np.float32(rng.uniform(0.1, 0.45))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 10)):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
        pen.line([tuple(end) for end in ends], fill=_random_colour(rng), width=int(rng.integers(1, 4)))
    for _ in range(rng.integers(10, 40)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        corners = centre + rng.uniform(-0.03, 0.03, (4, 2)) * min(size)
        pen.polygon([tuple(corner) for corner in corners], fill=_random_colour(rng))
    return image


def _random_size(rng: np.random.Generator) -> tuple[int, int]:
    width, height = (int(side) for side in rng.integers(*_SIDES, 2, endpoint=True))
    return (width, width) if rng.random() < 0.5 else (width, height)


def _draw_mask(rng: np.random.Generator, label: str, size: tuple[int, int]) -> Image.Image:
    """How much of each pixel the shape covers, as an "L" image."""
    radius = rng.uniform(1 / 6, 1 / 3) * min(size)
    centre = [rng.uniform(radius + 1, side - radius - 1) for side in size]
    angle = rng.uniform(0, 2 * math.pi)
    mask = Image.new("L", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
    pen = ImageDraw.Draw(mask)
    for fill, outline in zip((255, 0), _outlines(label), strict=False):
        turned = [
            (
                (centre[0] + radius * (x * math.cos(angle) - y * math.sin(angle))) * _SUPERSAMPLING,
                (centre[1] + radius * (x * math.sin(angle) + y * math.cos(angle))) * _SUPERSAMPLING,
            )
            for x, y in outline
        ]
        pen.polygon(turned, fill=fill)
    return mask.reduce(_SUPERSAMPLING)


def _outlines(label: str) -> list[list[_Point]]:
    """The shape's outline within the unit circle, and that of its hole if it has one."""
    arm, reach = 0.3, math.sqrt(1 - 0.3**2)
    corner = [(arm, reach), (arm, arm), (reach, arm)]  # of a cross; the others follow by quarter turns
    outlines = {
        "circle": [_regular(48)],
        "cross": [[p for turn in range(4) for p in (_quarter_turns(q, -turn) for q in corner)]],
        "ring": [_regular(48), _regular(48, 0.55)],
        "square": [_regular(4)],
        "star": [[p for pair in zip(_regular(5), _regular(5, 0.4, 0.5), strict=True) for p in pair]],
        "triangle": [_regular(3)],
    }
    return outlines[label]


def _regular(corners: int, radius: float = 1.0, offset: float = 0.0) -> list[_Point]:
    """The corners of a regular polygon; `offset` turns it, 1 being the angle from corner to corner."""
    angles = [2 * math.pi * (i + offset) / corners for i in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _quarter_turns(point: _Point, turns: int) -> _Point:
    for _ in range(turns % 4):
        point = (-point[1], point[0])
    return point


def _random_colour(rng: np.random.Generator) -> _Colour:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _contrasting_colour(rng: np.random.Generator, behind: np.ndarray) -> _Colour:
    """A random colour that stands out from the mean colour `behind`; some corner of RGB always does."""
    while True:
        colour = _random_colour(rng)
        if np.linalg.norm(colour - behind) >= _MIN_CONTRAST:
            return colour


def _add_noise(seed: int, image: Image.Image) -> Image.Image:
    rng = np.random.default_rng([seed, 2])
    noise = rng.standard_normal((image.height, image.width, 3), np.float32) * np.float32(rng.uniform(2, 14))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).round().astype(np.uint8))
