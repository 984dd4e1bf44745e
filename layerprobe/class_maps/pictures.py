"""The inputs of a model as pictures to draw on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from layerprobe.errors import SampleError
from layerprobe.images.decode import MAX_PIXELS, decode

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.records import Array, Preprocessing, Sample


class KeptInputs:
    """A source that keeps what was read of each row until it is taken; see `protocols.Source`.

    So a picture is read once, be it from a stream, and drawn on when its maps are there.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.kind = source.kind
        self.row_shape: Any = getattr(source, "row_shape", None)
        self._kept: dict[int, bytes | Array] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._source:
            yield replace(sample, read=self._reading(sample))

    def _reading(self, sample: Sample) -> Any:
        def read() -> bytes | Array:
            self._kept[sample.index] = data = sample.read()
            return data

        return read

    def take(self, row: int) -> bytes | Array | None:
        """What was read of a row; None where it could not be."""
        return self._kept.pop(row, None)


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
