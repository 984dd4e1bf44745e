"""Pictures on their way to disk: complete or not there."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from layerprobe.errors import OutputError, UsageError
from layerprobe.formats.pending import PendingFile
from layerprobe.formats.placement import check_target

if TYPE_CHECKING:
    from PIL import Image

LEVEL = 4
"""Of zlib: a sheet of 200 photographs takes a quarter of the time of `optimize`, and 1 % more bytes."""


def check_picture(path: str, overwrite: bool) -> None:
    """Raise, before anything is computed, unless a PNG file can be created at `path`.

    Raises:
        UsageError: The name is not that of a PNG file.
        OutputError: Something is in the way.
    """
    if not path.lower().endswith(".png"):
        raise UsageError(f"{path!r}: pictures are written as PNG: give -o a name that ends with .png.")
    check_target(path, "png", overwrite)


def make_folder(path: str) -> None:
    """Make a folder for pictures, unless it is there.

    Raises:
        UsageError: The name is that of standard output.
        OutputError: Something else is there, or it cannot be made.
    """
    if path == "-":
        raise UsageError("pictures do not go to standard output: give -o a name that ends with .png.")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"folder {path!r} cannot be made: {error.strerror}; give -o for another."
        ) from error


def save_picture(picture: Image.Image, path: str) -> None:
    """Write a PNG file under a temporary name, which becomes its own when it is whole.

    Raises:
        OutputError: It cannot be created.
        WriteError: The disk is full, or fails.
    """
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=LEVEL)
    save_bytes(encoded.getbuffer(), path)


def save_bytes(data: bytes | memoryview, path: str) -> None:
    """Write a file in the same way."""
    pending = PendingFile(path, "png")
    try:
        pending.reserve(len(data))
        pending.write(0, data)
        pending.commit()
    finally:
        pending.abort()
