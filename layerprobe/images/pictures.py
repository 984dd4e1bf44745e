"""The inputs of a model as pictures to draw on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from layerprobe.errors import SampleError
from layerprobe.images.decode import MAX_PIXELS, decode

if TYPE_CHECKING:
    from layerprobe.records import Array, Preprocessing


def picture(data: bytes | Array, how: Preprocessing | None, max_pixels: int | None = None) -> Image.Image:
    """Decode an image, upright as the model saw it; or show an array as one.

    Args:
        data: The whole file, or a row (h, w, C) or (C, h, w), or (h, w).
        how: How the model's input is made of images; None for arrays.
        max_pixels: Larger images are refused; None for the decoder's own limit.

    Raises:
        SampleError: It is no image, or a broken one.
    """
    if how is None:
        return _of_array(cast("Array", data))
    return decode(
        cast(bytes, data), exif=how.exif, background=how.background, max_pixels=max_pixels or MAX_PIXELS
    ).image


def _of_array(row: Array) -> Image.Image:
    """An array from its least value, black, to its largest, white; whole numbers of 8 bits as they are."""
    if row.ndim == 3 and row.shape[2] not in (1, 3, 4) and row.shape[0] in (1, 3, 4):
        row = np.moveaxis(row, 0, 2)
    if row.ndim == 3 and row.shape[2] == 4:
        row = row[..., :3]
    if row.ndim == 3 and row.shape[2] != 3:
        row = row.mean(2)
    if row.ndim not in (2, 3):
        raise SampleError(f"rows of shape {row.shape} are no images: expected (h, w, C)")
    if row.dtype != np.uint8:
        values = np.nan_to_num(row.astype(np.float32))
        low, high = values.min(), values.max()
        row = ((values - low) * (255 / (high - low) if high > low else 0)).round().astype(np.uint8)
    return Image.fromarray(row).convert("RGB")
