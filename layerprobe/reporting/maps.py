"""Feature maps made small: one byte a value, on the scale of their channel."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from layerprobe.records import Array
    from layerprobe.views.scale import Scale

STEPS = 254
"""The byte of a channel's largest value; 0 is its least."""
MISSING = 255
"""The byte of NaN and infinite values, and of maps that are not there."""


class Maps:
    """The maps of the rows that excite each channel most, or of the channels that each row excites most.

    Args:
        count: n, of channels or of rows.
        top: K, so many maps for each of them.
        size: (h, w) of one map.
    """

    def __init__(self, count: int, top: int, size: tuple[int, int]) -> None:
        self.size = size
        self.values = np.full((count, top, *size), MISSING, np.uint8)

    def put(self, place: int, rank: int, values: Array, scale: Scale) -> None:
        """Keep one map, (H, W) of any real type, averaged down to the size; its channel has the scale."""
        small = values.astype(np.float32)
        if small.shape != self.size:
            small = np.asarray(Image.fromarray(small).resize(self.size[::-1], Image.Resampling.BOX))
        extent = (scale.high - scale.low) or 1.0
        with np.errstate(invalid="ignore"):
            steps = np.rint((small - scale.low) / extent * STEPS)
        known = np.isfinite(steps)
        steps = np.clip(np.where(known, steps, 0), 0, STEPS)
        self.values[place, rank] = np.where(known, steps, MISSING).astype(np.uint8)

    @property
    def packed(self) -> str:
        """(n, K, h, w) bytes in C order, deflated with zlib's header, in base64."""
        return base64.b64encode(zlib.compress(self.values.tobytes())).decode("ascii")


def map_size(shape: tuple[int, ...], channel_axis: int, side: int) -> tuple[int, int] | None:
    """(h, w) of maps that are no longer or wider than `side`; None where rows hold no maps.

    A sequence, (T, C), is a map of height 1.
    """
    if len(shape) not in (2, 3) or not all(shape) or not side:
        return None
    sizes = shape[1:] if channel_axis == 0 else shape[:-1]
    height, width = sizes if len(sizes) == 2 else (1, sizes[0])
    factor = max(1.0, max(height, width) / side)
    return max(1, round(height / factor)), max(1, round(width / factor))


def as_map(row: Array, channel_axis: int) -> Array:
    """One row as (H, W, C)."""
    values = np.moveaxis(row, 0, -1) if channel_axis == 0 else row
    return values if values.ndim == 3 else values[np.newaxis]
