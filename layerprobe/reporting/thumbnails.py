"""Small pictures of the images as the model saw them, as many and as large as a number of bytes allows."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image, features

from layerprobe.errors import AccessError, NoInputError, SampleError, UnavailableError, UsageError
from layerprobe.images.decode import MAX_PIXELS, decode
from layerprobe.images.preprocess import enough, resize
from layerprobe.processors import processors
from layerprobe.run.prefetch import ordered_map

if TYPE_CHECKING:
    from layerprobe.records import Preprocessing
    from layerprobe.reporting.originals import Originals, Read

LEVELS = ((400, 82), (320, 80), (256, 78), (200, 75), (160, 70), (128, 66), (96, 62), (72, 58), (48, 50))
"""The longer side in pixels, and the quality, from the best."""
_BYTES_A_PIXEL = 0.15
"""Of a picture at these qualities; photographs take up to twice as much, and are then made smaller."""
_OVERHEAD = 60
"""Bytes of the page for a picture, beside its own."""
BASE64 = 4 / 3


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One small picture."""

    data: bytes
    """Of a WebP file, or a JPEG where Pillow has no WebP."""
    width: int
    height: int

    @property
    def url(self) -> str:
        """It, as an address that holds it."""
        kind = "webp" if self.data.startswith(b"RIFF") else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode('ascii')}"

    @property
    def size(self) -> int:
        """Bytes that the page grows by."""
        return int(len(self.data) * BASE64) + _OVERHEAD


def make_thumbnails(
    keys: Mapping[int, str],
    originals: Originals,
    how: Preprocessing,
    size: int,
    max_pixels: int | None,
    done: Callable[[int], None],
) -> tuple[dict[int, Thumbnail], dict[int, str]]:
    """Make pictures of some rows that take no more than `size` bytes of the page.

    Args:
        keys: Row -> its name, the most important first; where not all fit the last are left out.
        originals: Find the images.
        how: What the model was given, for cropping, orientation and the like.
        size: Bytes.
        max_pixels: Of images; larger ones are not decoded. None: `decode.MAX_PIXELS`.
        done: Progress.

    Returns:
        Row -> its picture, and row -> why there is none, of those that were tried.
    """
    chosen = dict(list(keys.items())[: _most(size)])
    level = _first_level(len(chosen), size)
    found: dict[int, Thumbnail] = {}
    faults: dict[int, str] = {}
    make = partial(_one, how=how, level=level, max_pixels=max_pixels or MAX_PIXELS)
    workers = len(processors())
    for row, made in ordered_map(make, originals.read_all(chosen), workers=workers, window=4 * workers):
        if isinstance(made, Thumbnail):
            found[row] = made
        else:
            faults[row] = made
        done(1)
    while sum(picture.size for picture in found.values()) > size and level < len(LEVELS) - 1:
        level += 1
        found = {row: _smaller(picture, level) for row, picture in found.items()}
    left = size
    for row in chosen:  # in order of importance
        if row in found and (left := left - found[row].size) < 0:
            del found[row]
    return found, faults


def _most(size: int) -> int:
    """So many pictures fit in at most, each of a few hundred bytes."""
    return max(0, size // 400)


def _first_level(count: int, size: int) -> int:
    """The best that photographs may just fit in with."""
    for level, (side, _) in enumerate(LEVELS):
        if count * (side * side * 0.75 * _BYTES_A_PIXEL * BASE64 + _OVERHEAD) <= size * 1.5:
            return level
    return len(LEVELS) - 1


def _one(
    item: tuple[int, Read], how: Preprocessing, level: int, max_pixels: int
) -> tuple[int, Thumbnail | str]:
    row, read = item
    side = LEVELS[level][0]
    try:
        image = decode(
            read(),
            exif=how.exif,
            channels=how.channels,
            background=how.background,
            max_pixels=max_pixels,
            enough=lambda size: enough(size, _seen(how, size, side)),
        ).image
    except (SampleError, AccessError, NoInputError, UnavailableError, UsageError) as error:
        return row, str(error)
    pixels = resize(image, _seen(how, image.size, side))
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return row, _encoded(picture, LEVELS[level][1])


def _seen(how: Preprocessing, size: tuple[int, int], side: int) -> Preprocessing:
    """How to make a picture of what the model saw: squashed images keep their own proportions."""
    height, width = how.size if how.crop != "none" else size[::-1]
    factor = min(1.0, side / max(height, width))
    if how.crop != "none":
        factor = min(side, max(size)) / max(height, width)
    wanted = (max(1, round(height * factor)), max(1, round(width * factor)))
    return dataclasses.replace(how, size=wanted, resize="box" if factor < 0.5 else "bilinear")


def _smaller(picture: Thumbnail, level: int) -> Thumbnail:
    side, quality = LEVELS[level]
    image = Image.open(io.BytesIO(picture.data))
    image.thumbnail((side, side), Image.Resampling.BOX)
    return _encoded(image, quality)


def _encoded(picture: Image.Image, quality: int) -> Thumbnail:
    written = io.BytesIO()
    if features.check("webp"):
        picture.save(written, "WEBP", quality=quality, method=4)
    else:
        picture.convert("RGB").save(written, "JPEG", quality=quality, optimize=True)
    return Thumbnail(written.getvalue(), picture.width, picture.height)
