"""What lies over the model's input lies over the same things on the image, however it was cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from layerprobe.images.preprocess import parse_preprocess, resize
from layerprobe.images.projection import onto_image

SIZES = [(112, 112), (150, 90), (97, 171), (400, 80), (60, 40)]
"""(width, height) of images; the model takes others."""


def smooth(size: tuple[int, int]) -> Image.Image:
    cells = np.random.default_rng(sum(size)).integers(0, 256, (3, 3), np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", ["none", "center", "pad"])
@pytest.mark.parametrize("target", [(64, 64), (80, 48)])
def test_the_models_view_of_an_image_laid_back_on_it_is_the_image(
    size: tuple[int, int], crop: str, target: tuple[int, int]
) -> None:
    spec = dataclasses.replace(parse_preprocess("raw", size=target, channels=1), crop=crop)
    image = smooth(size)
    seen = resize(image, spec)[..., 0].astype(np.float32)
    back = onto_image(seen, size, spec)
    assert back.shape == size[::-1]
    known = ~np.isnan(back)
    # Of the padded edge a little is mixed in, as far as bilinear filters reach.
    inner = np.zeros_like(known)
    down, across = 6 + size[1] // 10, 6 + size[0] // 10
    inner[down:-down, across:-across] = True
    difference = np.abs(back - np.asarray(image, np.float32))[known & inner]
    assert difference.mean() < 3
    assert difference.max() < 25


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", ["none", "center", "pad"])
def test_what_is_unseen_is_nan_and_nothing_else(size: tuple[int, int], crop: str) -> None:
    """A column that the model sees changes its input when it is painted over."""
    spec = dataclasses.replace(parse_preprocess("raw", size=(64, 64), channels=1), crop=crop)
    back = onto_image(np.ones((4, 4), np.float32), size, spec)
    before = resize(smooth(size), spec)
    for axis in (0, 1):
        for place in range(0, back.shape[axis], 7):
            pixels = np.array(smooth(size))
            np.moveaxis(pixels, axis, 0)[place] ^= 0x80
            changed = bool((resize(Image.fromarray(pixels), spec) != before).any())
            unseen = bool(np.isnan(np.take(back, place, axis)).all())
            assert changed != unseen, (axis, place)


def test_an_image_that_is_the_input_already_is_covered_as_a_whole() -> None:
    back = onto_image(np.arange(4, dtype=np.float32).reshape(2, 2), (8, 6), None)
    assert back.shape == (6, 8)
    assert (back[0, 0], back[-1, -1]) == (0, 3)


def test_extreme_proportions_keep_at_least_a_pixel() -> None:
    spec = dataclasses.replace(parse_preprocess("raw", size=(64, 256)), crop="center")
    back = onto_image(np.ones((2, 2), np.float32), (3, 4000), spec)
    assert np.isfinite(back).any()
