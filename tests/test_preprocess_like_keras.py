"""The same settings give the same bits as Keras's own functions."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from image_samples import encode
from PIL import Image

from layerprobe.images.decode import decode
from layerprobe.images.preprocess import FILTERS, parse_preprocess, preprocess
from layerprobe.records import Preprocessing

pytestmark = pytest.mark.slow
keras = pytest.importorskip("keras")

SHAPES = [(375, 500), (500, 375), (224, 192), (97, 31), (1, 1), (3, 400)]
SIZES = [(224, 192), (32, 32), (7, 90)]


def photograph(height: int, width: int) -> Image.Image:
    down, across = np.mgrid[0:height, 0:width]
    channels = [(down * across) % 251, (down + 3 * across) % 256, (down // 5 ^ across // 3) % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def by_keras(data: bytes, **options: Any) -> np.ndarray:
    return keras.utils.img_to_array(keras.utils.load_img(io.BytesIO(data), **options))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("crop", "keep"), [("none", False), ("center", True)])
@pytest.mark.parametrize(("channels", "colours"), [(3, "rgb"), (1, "grayscale")])
def test_pixels_equal_load_img(
    file_format: str, name: str, crop: Any, keep: bool, channels: Any, colours: str
) -> None:
    for shape in SHAPES:
        data = encode(photograph(*shape), file_format)
        for size in SIZES:
            how = Preprocessing(size=size, channels=channels, resize=name, crop=crop)
            expected = by_keras(
                data, target_size=size, interpolation=name, keep_aspect_ratio=keep, color_mode=colours
            )
            np.testing.assert_array_equal(preprocess(decode(data, channels=channels).image, how), expected)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_other_modes_equal_load_img(mode: str) -> None:
    data = encode(photograph(60, 80).convert(mode), "TIFF")
    how = Preprocessing(size=(32, 32))
    expected = by_keras(data, target_size=(32, 32), interpolation="bilinear")
    np.testing.assert_array_equal(preprocess(decode(data).image, how), expected)


@pytest.mark.parametrize("name", FILTERS)
def test_four_channels_equal_load_img(name: str) -> None:
    image = photograph(60, 80)
    image.putalpha(photograph(60, 80).convert("L"))
    data = encode(image, "PNG")
    how = Preprocessing(size=(32, 40), channels=4, resize=name)
    expected = by_keras(data, target_size=(32, 40), interpolation=name, color_mode="rgba")
    np.testing.assert_array_equal(preprocess(decode(data, channels=4).image, how), expected)


@pytest.mark.parametrize("preset", ["tf", "torch", "caffe"])
def test_presets_equal_preprocess_input(preset: str) -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = keras.applications.imagenet_utils.preprocess_input(pixels.astype(np.float32), mode=preset)
    np.testing.assert_array_equal(preprocess(pixels, parse_preprocess(preset, size=(16, 16))), expected)
