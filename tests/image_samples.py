"""Small image files for the tests, made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(7)
NOISE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
"""(20, 30, 3): no two pixels, rows or channels alike."""


def encode(image: Image.Image | np.ndarray, file_format: str, **options: Any) -> bytes:
    """The bytes of an image file; arrays are (h, w, 3) or (h, w)."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, file_format, **options)
    return buffer.getvalue()


def pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    """What plain Pillow makes of the file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG by the book: `rows` holds each row after its filter byte; `extra` chunks precede the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + end


def every_format() -> dict[str, bytes]:
    """One file of each format that is read, all of them with the pixels of `NOISE` (or near, where lossy)."""
    turned = Image.fromarray(NOISE).rotate(180)
    return {
        "JPEG": encode(NOISE, "JPEG"),
        "JPEG progressive": encode(NOISE, "JPEG", progressive=True),
        "JPEG with further pictures": encode(NOISE, "MPO", save_all=True, append_images=[turned]),
        "PNG": encode(NOISE, "PNG"),
        "GIF": encode(NOISE, "GIF"),
        "GIF animated": encode(NOISE, "GIF", save_all=True, append_images=[turned]),
        "BMP": encode(NOISE, "BMP"),
        "TIFF": encode(NOISE, "TIFF"),
        "TIFF packed": encode(NOISE, "TIFF", compression="tiff_adobe_deflate"),
        "WebP": encode(NOISE, "WEBP"),
        "WebP lossless": encode(NOISE, "WEBP", lossless=True),
        "AVIF": encode(NOISE, "AVIF"),
    }
