"""From a file's bytes to pixels: the safe raster formats, each mode converted in one defined way.

Colour profiles are not applied. Of several frames or pages the first is taken; the further pictures that
phones append to a JPEG (previews, gain maps) are not frames. What Pillow's decoders cannot notice (bytes
changed inside the entropy-coded data of a JPEG, WebP or AVIF, which carry no checksum) is not noticed here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from layerprobe.errors import SampleError
from layerprobe.images.signatures import describe, image_format

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from layerprobe.records import Array

MAX_PIXELS = 120_000_000
"""Larger images are refused unless asked for: 108-megapixel photographs pass, bombs do not."""

MAX_SIDE = 1_000_000
"""Pixels; Pillow's resampling tables grow with the longer side, 50 MB here."""

_PLUGINS = {
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile", "pip install --upgrade pillow"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile", ""),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile", ""),
    "HEIC": ("pillow_heif", "HeifImageFile", "pip install pillow-heif"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile", ""),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile", ""),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile", ""),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile", "pip install --upgrade pillow"),
}
"""Format -> module and class that read it, and what to run when they are missing.

The classes are called directly: `Image.open` would apply Pillow's own limit of pixels, which is global, and
hand a photograph with a broken table of further pictures to the wrong class.
"""

_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNING = [_TRANSPOSES[orientation] for orientation in (5, 6, 7, 8)]
"""Those that swap width and height."""
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded image."""

    image: Image.Image
    """Mode "L", "RGB" or "RGBA"; what `preprocess` takes without another copy of every pixel."""
    frames: int
    """Frames or pages in the file, of which `image` is the first."""

    @property
    def pixels(self) -> Array:
        """(h, w, C) uint8, 0 to 255, channels in RGB order; a copy."""
        pixels = np.array(self.image)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def decode(
    data: bytes,
    *,
    exif: bool = True,
    channels: int = 3,
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    enough: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> Decoded:
    """Decode one image file.

    Grey becomes three equal channels, palettes and CMYK become RGB, colour becomes grey by ITU-R 601-2 as in
    Pillow and Keras. Of 16 bits per channel the upper 8 are taken. Transparent pixels are laid over
    `background` unless 4 channels are wanted.

    Args:
        data: The whole file.
        exif: Apply the orientation in the file's EXIF data; a TIFF's own orientation is always applied.
        channels: 1 grey, 3 RGB, 4 RGB with alpha.
        background: RGB, 0 to 255.
        max_pixels: Width times height above which the image is refused before its pixels are decoded.
        enough: From the (width, height) of the upright image to the smallest that will do. A JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, as long as that is no less on either side; this is faster,
            and gives other pixels than shrinking afterwards. None decodes it whole, as all other formats.

    Raises:
        SampleError: The bytes are no image that can be read, or a broken one, or too large.
    """
    kind = image_format(data)
    if kind is None:
        raise SampleError(describe(data))
    with _pillow_errors(kind):
        image = _open(kind, data)
        _check_size(image.size, max_pixels)
        frames = _check_gif(data) if kind == "GIF" else getattr(image, "n_frames", 1)
        if kind == "JPEG":
            _check_jpeg(data, image)
            if enough is not None:
                _draft(image, enough, exif)
        elif kind == "PNG":
            _check_png(data)
            _narrow_transparency(image, data)
        image.load()
        upright = _upright(image) if exif else image
        return Decoded(_convert(_eight_bits(upright, image), _MODES[channels], background), frames)


def _open(kind: str, data: bytes) -> ImageFile:
    module, name, remedy = _PLUGINS[kind]
    try:
        plugin = import_module(module)
    except ModuleNotFoundError:
        plugin = None
    if plugin is None or not getattr(plugin, "SUPPORTED", True):
        raise SampleError(f"{kind} image, which this installation cannot read: run `{remedy}`")
    image: ImageFile = getattr(plugin, name)(io.BytesIO(data))
    return image


@contextmanager
def _pillow_errors(kind: str) -> Iterator[None]:
    """Turn what Pillow raises into SampleError.

    Its parsers let through whatever broken bytes provoke (OSError, SyntaxError, ValueError, KeyError,
    struct.error, zlib.error, RuntimeError, ...), so no smaller class will do. Running out of memory
    is not the file's fault.
    """
    try:
        yield
    except (SampleError, MemoryError):
        raise
    except Exception as error:  # whatever broken bytes provoke, see above
        raise SampleError(_reason(kind, error)) from error


def _reason(kind: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    cut = (EOFError, IndexError, struct.error)
    if "truncated" in text.lower():
        return f"truncated {kind}"
    if isinstance(error, cut) or isinstance(error.__cause__, cut):
        return f"truncated or corrupt {kind}"
    return f"corrupt {kind} ({text[:200]})"


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise SampleError(f"{width} x {height} pixels are more than the limit of {max_pixels} (max_pixels)")
    if max(size) > MAX_SIDE:
        raise SampleError(f"{width} x {height} pixels: a side is longer than {MAX_SIDE}")


def _check_jpeg(data: bytes, image: ImageFile) -> None:
    """Ask for the end marker, which libjpeg does without when all rows happen to be there."""
    assert image.fp is not None
    if data.find(b"\xff\xd9", image.fp.tell()) < 0:  # Pillow has stopped behind the first scan's header
        raise SampleError("truncated JPEG")


def _draft(image: ImageFile, enough: Callable[[tuple[int, int]], tuple[int, int]], exif: bool) -> None:
    """Have libjpeg decode at a fraction of the size: its inverse DCT gives fewer pixels per block."""
    turned = exif and _transpose(image) in _TURNING
    width, height = reversed(image.size) if turned else image.size
    wanted = enough((width, height))
    image.draft(image.mode, wanted[::-1] if turned else wanted)


def _check_png(data: bytes) -> None:
    """Check every chunk's CRC and that the file is whole: Pillow skips the CRCs of the pixel data."""
    view = memoryview(data)
    start = 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        name = bytes(view[start + 4 : start + 8])
        if end + 4 > len(data):
            break
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise SampleError(f"corrupt PNG (wrong checksum of chunk {name!r})")
        if name == b"IEND":
            return
        start = end + 4
    raise SampleError("truncated PNG")


def _check_gif(data: bytes) -> int:
    """Count the frames up to the trailer, which Pillow does not ask for."""
    frames = 0
    try:
        at = 13 + _gif_table_size(data[10])
        while data[at] != 0x3B:
            if data[at] == 0x2C:  # image descriptor, colour table, code size, then sub-blocks
                frames += 1
                at += 11 + _gif_table_size(data[at + 9])
            elif data[at] == 0x21:  # extension: label, then sub-blocks
                at += 2
            else:  # stray bytes between blocks are ignored, as Pillow does
                at += 1
                continue
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        raise SampleError("truncated GIF") from None
    return frames


def _gif_table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _narrow_transparency(image: Image.Image, data: bytes) -> None:
    """Bring the transparent colour of a 16-bit RGB PNG to the 8 bits that Pillow makes of its pixels."""
    key = image.info.get("transparency")
    if data[24] == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _upright(image: Image.Image) -> Image.Image:
    transpose = _transpose(image)
    return image if transpose is None else image.transpose(transpose)


def _transpose(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for; unreadable data and values other than 1 to 8 ask for nothing."""
    try:
        return _TRANSPOSES.get(image.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # broken EXIF data provokes as much as in _pillow_errors; the pixels are good without
        return None


def _eight_bits(image: Image.Image, original: Image.Image) -> Image.Image:
    """Bring grey images of more than 8 bits to 8; others pass through.

    Args:
        image: Upright.
        original: As opened, with the tags that a transposed copy lacks.
    """
    if image.mode == "F":
        raise SampleError("float image, whose range of values is not known: convert it to 8 or 16 bits")
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 255:
            raise SampleError(
                f"integer image with values from {values.min()} to {values.max()}: convert it to 8 or 16 bits"
            )
        return Image.fromarray(values.astype(np.uint8))
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    tags = getattr(original, "tag_v2", {})
    grey = (values >> (tags.get(258, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(262) == 0:  # white is zero: Pillow inverts up to 8 bits only
        grey = 255 - grey
    if "transparency" not in original.info:
        return Image.fromarray(grey)
    alpha = np.where(values == original.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _convert(image: Image.Image, mode: str, background: tuple[int, int, int]) -> Image.Image:
    """Bring an image of 8 bits per channel to `mode`: "L", "RGB" or "RGBA"."""
    if image.mode == "La":  # premultiplied: no direct way to RGBA
        image = image.convert("LA")
    if mode != "RGBA" and image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, background)
        image.paste(layer, mask=layer)
    if image.mode == "LAB" and mode != "RGB":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)
