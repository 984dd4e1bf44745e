from __future__ import annotations

import struct

import numpy as np
import pytest
from image_samples import NOISE, chunk, encode, every_format, pillow, png
from PIL import Image

from layerprobe.errors import SampleError
from layerprobe.images.decode import decode

FILES = every_format()
# (rows then columns) of the stored picture that the upright picture shows, for each EXIF orientation
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def with_orientation(file_format: str, value: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encode(NOISE, file_format, exif=exif, **options)


def white_is_zero_tiff(values: np.ndarray) -> bytes:
    data = bytearray(encode(values, "TIFF"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack("<H", 0)
    return bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_pillow(name: str) -> None:
    decoded = decode(FILES[name])
    np.testing.assert_array_equal(decoded.pixels, pillow(FILES[name]))
    assert decoded.pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "TIFF packed", "WebP lossless"])
def test_lossless_formats_give_the_pixels_that_were_saved(name: str) -> None:
    np.testing.assert_array_equal(decode(FILES[name]).pixels, NOISE)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {}), ("MPO", {})],
)
def test_exif_orientation_turns_the_picture_upright(
    file_format: str, options: dict[str, object], orientation: int
) -> None:
    data = with_orientation(file_format, orientation, **options)
    stored = pillow(encode(NOISE, file_format, **options))
    np.testing.assert_array_equal(decode(data).pixels, UPRIGHT[orientation](stored))


def test_exif_orientation_can_be_left_alone() -> None:
    np.testing.assert_array_equal(decode(with_orientation("PNG", 6), exif=False).pixels, NOISE)


@pytest.mark.parametrize("orientation", [0, 9, 99, 65535])
def test_an_orientation_that_does_not_exist_counts_as_upright(orientation: int) -> None:
    np.testing.assert_array_equal(decode(with_orientation("PNG", orientation)).pixels, NOISE)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 40])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_data_counts_as_upright(exif: bytes) -> None:
    np.testing.assert_array_equal(decode(encode(NOISE, "PNG", exif=exif)).pixels, NOISE)
    np.testing.assert_array_equal(decode(encode(NOISE, "JPEG", exif=exif)).pixels, pillow(FILES["JPEG"]))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
def test_transparent_pixels_show_the_background(background: tuple[int, int, int]) -> None:
    alpha = np.arange(600, dtype=np.uint16).reshape(20, 30) * 255 // 599
    rgba = np.dstack([NOISE, alpha.astype(np.uint8)])
    weight = alpha[..., np.newaxis] / 255
    expected = np.floor(NOISE * weight + np.array(background) * (1 - weight) + 0.5)
    pixels = decode(encode(rgba, "PNG"), background=background).pixels
    np.testing.assert_array_equal(pixels, expected)


def test_four_channels_keep_transparency() -> None:
    rgba = np.dstack([NOISE, NOISE[..., 0]])
    np.testing.assert_array_equal(decode(encode(rgba, "PNG"), channels=4).pixels, rgba)
    opaque = decode(FILES["PNG"], channels=4).pixels
    np.testing.assert_array_equal(opaque, np.dstack([NOISE, np.full((20, 30), 255)]))


def test_grey_with_alpha_is_laid_over_the_background() -> None:
    data = png(3, 1, 8, 4, bytes([0, 100, 255, 100, 0, 100, 128]))
    background = (200, 0, 0)
    assert decode(data, background=background).pixels.tolist() == [[[100] * 3, [200, 0, 0], [150, 50, 50]]]
    assert decode(data, background=(0, 0, 0), channels=1).pixels.tolist() == [[[100], [0], [50]]]


@pytest.mark.parametrize(("alphas", "over"), [(b"\x00", [0, 1]), (b"\x00\x80\xff", [0, 0.498])])
def test_transparent_palette_entries_show_the_background(alphas: bytes, over: list[float]) -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    data = png(3, 1, 8, 3, bytes([0, 0, 1, 2]), palette, chunk(b"tRNS", alphas))
    pixels = decode(data, background=(0, 0, 0)).pixels
    assert pixels.tolist() == [[[0, 0, 0], [0, round(255 * over[1]) + (over[1] < 1), 0], [0, 0, 255]]]


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key"),
    [
        (8, 0, bytes([7, 8]), struct.pack(">H", 7)),
        (16, 0, struct.pack(">2H", 0x0707, 0x0808), struct.pack(">H", 0x0707)),
        (8, 2, bytes([7, 7, 7, 8, 8, 8]), struct.pack(">3H", 7, 7, 7)),
        (16, 2, struct.pack(">6H", *[0x0701] * 3, *[0x0802] * 3), struct.pack(">3H", *[0x0701] * 3)),
    ],
)
def test_a_transparent_colour_shows_the_background(bits: int, colour: int, row: bytes, key: bytes) -> None:
    data = png(2, 1, bits, colour, b"\0" + row, chunk(b"tRNS", key))
    assert decode(data, background=(1, 2, 3)).pixels.tolist() == [[[1, 2, 3], [8, 8, 8]]]
    assert decode(data, channels=4).pixels[..., 3].tolist() == [[0, 255]]


SIXTEEN = np.array([[0, 100, 256, 1000, 65535]], np.uint16)
UPPER_HALF = [[0], [0], [1], [3], [255]]  # the upper 8 of 16 bits


@pytest.mark.parametrize(
    "data",
    [encode(SIXTEEN, "PNG"), encode(SIXTEEN, "TIFF"), encode(SIXTEEN.astype(">u2"), "TIFF")],
    ids=["PNG", "TIFF", "TIFF big-endian"],
)
def test_16_bit_grey_is_scaled_and_not_saturated(data: bytes) -> None:
    assert decode(data, channels=1).pixels.tolist() == [UPPER_HALF]
    assert decode(data).pixels.tolist() == [[value * 3 for value in UPPER_HALF]]


def test_16_bit_colour_is_scaled_like_16_bit_grey() -> None:
    row = np.repeat(SIXTEEN[0], 3).astype(">u2").tobytes()
    assert decode(png(5, 1, 16, 2, b"\0" + row)).pixels.tolist() == [[value * 3 for value in UPPER_HALF]]


def test_16_bit_grey_where_white_is_zero_is_inverted() -> None:
    data = white_is_zero_tiff(SIXTEEN)
    assert decode(data, channels=1).pixels.tolist() == [[[255 - value[0]] for value in UPPER_HALF]]


def test_float_images_are_refused_rather_than_black() -> None:
    with pytest.raises(SampleError, match="float image"):
        decode(encode(NOISE[..., 0].astype(np.float32) / 255, "TIFF"))


def test_wide_integers_are_taken_at_face_value_or_refused() -> None:
    values = NOISE[..., 0].astype(np.int32)
    np.testing.assert_array_equal(decode(encode(values, "TIFF"), channels=1).pixels[..., 0], values)
    with pytest.raises(SampleError, match="values from 0 to 256"):
        decode(encode(np.array([[0, 256]], np.int32), "TIFF"))


def test_cmyk_is_converted_by_the_plain_formula() -> None:
    cmyk = np.dstack([NOISE, NOISE[::-1, :, 0]])
    data = encode(Image.frombytes("CMYK", (30, 20), cmyk.tobytes()), "TIFF")
    white = 255.0 - cmyk[..., 3:]
    expected = white - cmyk[..., :3] * white / 255
    np.testing.assert_allclose(decode(data).pixels, expected, atol=0.5001)


def test_inverted_cmyk_of_a_jpeg_has_the_right_colours() -> None:
    for colour in ((250, 20, 20), (20, 250, 20), (20, 20, 250), (240, 240, 240), (10, 10, 10)):
        data = encode(Image.new("RGB", (16, 16), colour).convert("CMYK"), "JPEG")
        np.testing.assert_allclose(decode(data).pixels, np.full((16, 16, 3), colour), atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_become_the_same_colours_as_in_pillow(mode: str) -> None:
    data = encode(Image.fromarray(NOISE).convert(mode), "TIFF")
    np.testing.assert_array_equal(decode(data).pixels, pillow(data))
    if mode != "LAB":
        np.testing.assert_array_equal(decode(data, channels=1).pixels[..., 0], pillow(data, "L"))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF"])
def test_grey_is_made_as_pillow_makes_it(name: str) -> None:
    pixels = decode(FILES[name], channels=1).pixels
    assert pixels.shape == (20, 30, 1)
    np.testing.assert_array_equal(pixels[..., 0], pillow(FILES[name], "L"))


@pytest.mark.parametrize(("file_format", "frames"), [("GIF", 3), ("PNG", 3), ("WEBP", 3), ("TIFF", 3)])
def test_of_several_frames_the_first_is_taken_and_all_are_counted(file_format: str, frames: int) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    others = [Image.fromarray(NOISE).rotate(angle) for angle in (90, 180)]
    decoded = decode(encode(NOISE, file_format, save_all=True, append_images=others, **options))
    assert decoded.frames == frames
    np.testing.assert_array_equal(decoded.pixels, pillow(encode(NOISE, file_format, **options)))


def test_further_pictures_of_a_photograph_are_not_frames() -> None:
    assert decode(FILES["JPEG with further pictures"]).frames == 1
