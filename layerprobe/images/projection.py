"""From the model's input back to the image: where on it lies what a layer gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from layerprobe.images.preprocess import centre_box, fitted

if TYPE_CHECKING:
    from layerprobe.records import Array, Preprocessing


def onto_image(values: Array, size: tuple[int, int], spec: Preprocessing | None) -> Array:
    """Enlarge a map over the model's input to one over the whole image, bilinearly.

    Args:
        values: (h, w) of any size; its cells share the model's input evenly.
        size: (width, height) of the image, upright.
        spec: How the image became the model's input; None: it was that input already.

    Returns:
        (height, width) float32; NaN where the model saw nothing of the image, outside of a centred crop.
    """
    cells = Image.fromarray(np.ascontiguousarray(values, np.float32))
    if spec is not None and spec.crop == "pad":
        return np.asarray(cells.resize(size, Image.Resampling.BILINEAR, box=_padded_box(cells, size, spec)))
    if spec is None or spec.crop == "none":
        return np.asarray(cells.resize(size, Image.Resampling.BILINEAR))
    left, top, right, bottom = centre_box(size, spec.size[::-1])
    # Of extreme proportions the part may be less than a pixel; its values are those of the pixel there.
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    found = np.full(size[::-1], np.nan, np.float32)
    found[top:bottom, left:right] = cells.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    return found


def _padded_box(
    cells: Image.Image, size: tuple[int, int], spec: Preprocessing
) -> tuple[float, float, float, float]:
    """The part of a map, in its cells, that lies over the image and not over what was padded."""
    height, width = spec.size
    inner = fitted(size, spec)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    across, down = cells.width / width, cells.height / height
    return left * across, top * down, (left + inner[0]) * across, (top + inner[1]) * down
