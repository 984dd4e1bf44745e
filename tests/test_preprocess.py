from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import NOISE
from PIL import Image, ImageOps

from layerprobe.errors import UsageError
from layerprobe.images.preprocess import (
    FILTERS,
    check_preprocessing,
    normalise,
    parse_background,
    parse_preprocess,
    parse_size,
    preprocess,
    preprocess_text,
    resize,
)
from layerprobe.records import Preprocessing

SHAPES = [(20, 30), (30, 20), (7, 7), (1, 1), (1, 500), (500, 1)]


def spec(size: tuple[int, int] = (24, 16), **changes: Any) -> Preprocessing:
    return Preprocessing(size=size, **changes)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_squashing_is_pillows_resize_with_that_filter(name: str, shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    expected = Image.fromarray(pixels).resize((16, 24), getattr(Image.Resampling, name.upper()))
    np.testing.assert_array_equal(resize(pixels, spec(resize=name)), np.asarray(expected))


@pytest.mark.parametrize("crop", ["none", "center", "pad"])
def test_an_image_of_the_right_size_is_left_alone(crop: Any) -> None:
    np.testing.assert_array_equal(resize(NOISE, spec((20, 30), crop=crop, resize="lanczos")), NOISE)


def test_the_centre_crop_keeps_the_middle_of_the_longer_side() -> None:
    pixels = picture(20, 50)
    middle = spec((10, 10), crop="center", resize="box")
    np.testing.assert_array_equal(
        resize(pixels, middle), resize(pixels[:, 15:35], spec((10, 10), resize="box"))
    )


def test_padding_fits_the_whole_image_in_and_fills_the_rest() -> None:
    pixels = picture(20, 40)
    padded = resize(pixels, spec((20, 20), crop="pad", background=(1, 2, 3)))
    np.testing.assert_array_equal(padded[5:15], resize(pixels, spec((10, 20))))
    assert (padded[:5] == (1, 2, 3)).all()
    assert (padded[15:] == (1, 2, 3)).all()


@pytest.mark.parametrize("shape", [(20, 30), (33, 10), (64, 64), (2, 90)])
def test_padding_agrees_with_pillows_own(shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    expected = ImageOps.pad(Image.fromarray(pixels), (32, 32), Image.Resampling.BILINEAR, color=(9, 8, 7))
    actual = resize(pixels, spec((32, 32), crop="pad", background=(9, 8, 7)))
    inside = min(32, round(32 * shape[1] / shape[0])) * min(32, round(32 * shape[0] / shape[1]))
    if (1024 - inside) // 32 % 2 == 0:  # an odd rest is rounded the other way round
        np.testing.assert_array_equal(actual, np.asarray(expected))
    assert (actual == (9, 8, 7)).all(axis=-1).sum() == 1024 - inside


@pytest.mark.parametrize(("channels", "fill"), [(1, [76]), (4, [255, 0, 0, 255])])
def test_padding_has_the_background_in_the_images_own_channels(channels: int, fill: list[int]) -> None:
    padded = resize(picture(1, 4, channels), spec((4, 4), crop="pad", background=(255, 0, 0)))
    assert padded.shape == (4, 4, channels)
    assert padded[0, 0].tolist() == fill


@pytest.mark.parametrize("crop", ["none", "center", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1_000_000), (1_000_000, 1), (3, 7001)])
def test_extreme_proportions_give_an_image_of_the_right_size(shape: tuple[int, int], crop: Any) -> None:
    for size in ((24, 16), (1, 300), (300, 1)):
        assert resize(np.full((*shape, 3), 200, np.uint8), spec(size, crop=crop)).shape == (*size, 3)


def test_an_image_and_its_pixels_give_the_same() -> None:
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        pixels = picture(20, 30, channels)
        image = Image.fromarray(pixels.squeeze())
        assert image.mode == mode
        how = spec(channels=channels)
        np.testing.assert_array_equal(preprocess(image, how), preprocess(pixels, how))


def test_the_result_is_contiguous_float32_and_the_pixels_stay_as_they_were() -> None:
    for preset in ("raw", "caffe", "torch"):
        for pixels in (NOISE.copy(), picture(24, 16)):
            before = pixels.copy()
            values = preprocess(pixels, parse_preprocess(preset, size=(24, 16)))
            assert (values.shape, values.dtype, values.flags.c_contiguous) == ((24, 16, 3), np.float32, True)
            np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(
    ("preset", "pixel", "expected"),
    [
        ("raw", (0, 128, 255), (0, 128, 255)),
        ("unit", (0, 51, 255), (0, 0.2, 1)),
        ("tf", (0, 51, 255), (-1, -0.6, 1)),
        ("torch", (0, 0, 255), (-0.485 / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225)),
        ("caffe", (10, 20, 30), (30 - 103.939, 20 - 116.779, 10 - 123.68)),
        ("100,110,120/2,4,5", (100, 130, 220), (0, 5, 20)),
        ("127.5/127.5", (0, 51, 255), (-1, -0.6, 1)),
        ("rgb:unit", (0, 51, 255), (0, 0.2, 1)),
        ("bgr:unit", (0, 51, 255), (1, 0.2, 0)),
        ("bgr:caffe", (10, 20, 30), (30 - 103.939, 20 - 116.779, 10 - 123.68)),
        ("rgb:caffe", (10, 20, 30), (10 - 123.68, 20 - 116.779, 30 - 103.939)),
        ("bgr:torch", (0, 0, 255), ((1 - 0.406) / 0.225, -0.456 / 0.224, -0.485 / 0.229)),
        ("bgr:100,110,120/2,4,5", (220, 130, 100), (0, 5, 20)),
    ],
)
def test_presets_give_the_numbers_worked_out_by_hand(
    preset: str, pixel: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    values = normalise(np.array([[pixel]], np.uint8), parse_preprocess(preset))
    np.testing.assert_allclose(values[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("caffe", "caffe"),
        ("bgr:caffe", "caffe"),
        ("rgb:tf", "tf"),
        ("bgr:tf", "bgr:tf"),
        ("bgr:1,2,3/0.5", None),
    ],
)
def test_a_preprocessing_can_be_told_as_it_is_asked_for(text: str, told: str | None) -> None:
    how = parse_preprocess(text)
    assert preprocess_text(how) == (told or text)
    assert parse_preprocess(preprocess_text(how)) == how


def test_one_number_serves_all_channels() -> None:
    for channels in (1, 3, 4):
        how = parse_preprocess("tf", channels=channels)
        assert normalise(np.full((1, 1, channels), 255, np.uint8), how).tolist() == [[[1.0] * channels]]


@pytest.mark.parametrize(
    "text",
    [
        "", "auto", "RAW", "caffe2", "1,2,3", "/", "1/", "/1", "1,2,3/4,5,6/7", "1,2/3,4,5", "1/0", "1/-2",
        "nan/1", "1/inf", "1,,2/1", "1,2/1", "1,2,3,4/1", "a/b",
        "bgr:", "bgr", "gbr:unit", "bgr:auto", "bgr:bgr:unit", ":unit", "BGR:unit",
    ],
)  # fmt: skip
def test_a_preprocessing_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="^preprocess ") as raised:
        parse_preprocess(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("text", ["caffe", "torch", "1,2,3/1", "bgr:unit", "rgb:caffe"])
def test_three_numbers_need_three_channels(text: str, channels: Any) -> None:
    with pytest.raises(UsageError, match="channels"):
        parse_preprocess(text, channels=channels)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"resize": "cubic"}, "cubic"),
        ({"crop": "middle"}, "middle"),
        ({"size": (0, 5)}, "0"),
        ({"size": (5, 20_000)}, "20000"),
        ({"background": (0, 0, 256)}, "256"),
        ({"channel_order": "bgr", "channels": 1}, "three channels"),
    ],
)
def test_a_preprocessing_that_cannot_be_carried_out_is_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        check_preprocessing(dataclasses.replace(spec(), **change))


def test_sizes_are_height_by_width() -> None:
    assert parse_size("224") == (224, 224)
    assert parse_size("224x192") == (224, 192)
    assert parse_size(" 16384X1 ") == (16384, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0",
        "-5",
        "224x",
        "x224",
        "224x0",
        "1x2x3",
        "22.5",
        "16385",
        "9" * 5000,
        "\N{FULLWIDTH DIGIT TWO}",
    ],
)
def test_a_size_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_backgrounds_are_colours() -> None:
    assert parse_background("white") == (255, 255, 255)
    assert parse_background("#0a1B2c") == (10, 27, 44)
    for text in ("", "transparentish", "#0a1b2c3d", "1,2,3", "rgba(1,2,3,4)"):
        with pytest.raises(UsageError, match="background"):
            parse_background(text)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    crop=st.sampled_from(["none", "center", "pad"]),
    name=st.sampled_from(sorted(FILTERS)),
)
def test_every_size_and_shape_gives_finite_values(
    shape: tuple[int, int], size: tuple[int, int], crop: Any, name: str
) -> None:
    values = preprocess(np.full((*shape, 3), 77, np.uint8), spec(size, crop=crop, resize=name))
    assert values.shape == (*size, 3)
    allowed = {77.0} if crop != "pad" else {77.0, 255.0}
    assert set(np.unique(values).tolist()) <= allowed
    assert math.isfinite(values.sum())
