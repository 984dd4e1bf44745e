"""`--fast-decode`: large JPEGs are decoded at a fraction of their size, as Pillow's `draft` does it."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_samples import encode
from PIL import Image, ImageOps

import layerprobe
from layerprobe.images.decode import decode
from layerprobe.images.preprocess import enough, preprocess
from layerprobe.records import Preprocessing


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth shapes with a little noise, the two ways (and colours) not alike."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 17), np.sin((x + 2 * y) / 31)], axis=-1) * 100 + 128
    noise = np.random.default_rng(2).normal(0, 8, waves.shape)
    return Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def fast(data: bytes, size: tuple[int, int], crop: Any = "none", exif: bool = True) -> Image.Image:
    how = Preprocessing(size, crop=crop, exif=exif, fast_decode=True)
    return decode(data, exif=exif, enough=partial(enough, spec=how)).image


def drafted(data: bytes, scale: int) -> Image.Image:
    """Pillow's own, at 1 / scale."""
    image = Image.open(io.BytesIO(data))
    image.draft(None, (image.width // scale, image.height // scale))
    return image.convert("RGB")


@pytest.mark.parametrize(
    ("width", "height", "crop", "scale"),
    [
        (392, 240, "none", 4), (400, 240, "none", 8), (100, 60, "none", 2), (99, 60, "none", 1),
        (100, 59, "none", 1), (4000, 60, "none", 2), (20, 20, "none", 1), (4000, 60, "center", 2),
        (240, 4000, "center", 4), (4000, 60, "pad", 8), (200, 400, "pad", 8), (200, 200, "pad", 4),
    ],
)  # fmt: skip
def test_the_smallest_scale_is_taken_that_needs_no_enlarging(
    width: int, height: int, crop: str, scale: int
) -> None:
    data = jpeg(photograph(width, height))
    np.testing.assert_array_equal(fast(data, (30, 50), crop), drafted(data, scale))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_measured_upright(orientation: int) -> None:
    data = jpeg(photograph(480, 220), orientation)
    # Needed: 110 wide and 55 high. Upright the photograph is 220 by 480 when it is turned by a quarter.
    scale = 2 if orientation >= 5 else 4
    np.testing.assert_array_equal(
        fast(data, (55, 110)), ImageOps.exif_transpose(drafted(data, scale)).convert("RGB")
    )
    np.testing.assert_array_equal(fast(data, (55, 110), exif=False), drafted(data, 4))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_every_kind_of_jpeg_can_be_decoded_fast(mode: str) -> None:
    data = jpeg(photograph(400, 400, mode))
    np.testing.assert_array_equal(fast(data, (50, 50)), drafted(data, 8))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats_are_decoded_as_ever(file_format: str) -> None:
    data = encode(np.asarray(photograph(400, 400)), file_format)
    np.testing.assert_array_equal(fast(data, (50, 50)), decode(data).image)


def test_the_picture_stays_nearly_the_same() -> None:
    data = jpeg(photograph(1600, 1200))
    how = Preprocessing((224, 224))
    exact, quick = preprocess(decode(data).image, how), preprocess(fast(data, (224, 224)), how)
    assert 0 < np.abs(exact - quick).mean() < 2
    assert np.abs(exact - quick).max() < 25


def test_a_run_uses_it_when_asked_and_records_it(tmp_path: Path, samples: Path) -> None:
    data = jpeg(photograph(1000, 700))
    (tmp_path / "photo.jpg").write_bytes(data)
    rows = {}
    for name, options in (("exact", {}), ("fast", {"fast_decode": True})):
        output = tmp_path / f"{name}.npz"
        layerprobe.extract(
            samples / "vgg_shapes.h5", [str(tmp_path / "photo.jpg")], ["in:rescaling"], output, **options
        )
        with layerprobe.open(output) as found:
            assert found.provenance["preprocessing"]["fast_decode"] is (name == "fast")
            rows[name] = np.asarray(found["in:rescaling"][0])
    whole, quick = Image.open(io.BytesIO(data)).convert("RGB"), drafted(data, 4)
    for name, image in (("exact", whole), ("fast", quick)):
        by_hand = np.asarray(image.resize((112, 112), Image.Resampling.BILINEAR), "float32")
        np.testing.assert_array_equal(rows[name], by_hand)
