"""Activations on a terminal: two pixels to a character, the upper one in ink and the lower one in paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from layerprobe.views.scale import Scale
from layerprobe.views.style import PAPER

if TYPE_CHECKING:
    from layerprobe.records import Array

Colour = tuple[int, int, int]
Line = str | list[tuple[Colour, Colour]]
"""Text, or the colours of an upper and of a lower pixel for each character."""

HALF = "▀"
TILE = 14
"""Characters across one map."""
BAR = 40


def preview(values: Array, chosen: Sequence[int], columns: int) -> Iterator[Line]:
    """The lines of a preview.

    Args:
        values: (H, W, n), (T, n) or (n,): the chosen channels of one row.
        chosen: Their n numbers.
        columns: Of the terminal, in characters.
    """
    scale = Scale.of(values)
    if values.ndim == 1:
        yield from _bars(values, chosen, scale)
        return
    if values.ndim == 2:
        tile = _resized(scale.colours(values.T), min(columns, max(len(values), TILE)), values.shape[1])
        yield from _cells(tile)
    else:
        yield from _tiles(values, chosen, scale, columns)
    yield scale.text


def _tiles(maps: Array, chosen: Sequence[int], scale: Scale, columns: int) -> Iterator[Line]:
    height, width, count = maps.shape
    across = max(1, (columns + 1) // (TILE + 1))
    rows = max(2, round(TILE * height / width))
    for start in range(0, count, across):
        numbers = range(start, min(start + across, count))
        tiles = [_resized(scale.colours(maps[..., place]), TILE, rows) for place in numbers]
        gap = np.full((tiles[0].shape[0], 1, 3), PAPER, np.uint8)
        beside = [part for tile in tiles for part in (tile, gap)][:-1]
        yield from _cells(np.concatenate(beside, 1))
        yield " ".join(f"{chosen[place]:<{TILE}}" for place in numbers).rstrip()


def _bars(numbers: Array, chosen: Sequence[int], scale: Scale) -> Iterator[str]:
    most = max(abs(scale.low), abs(scale.high)) or 1.0
    wide = len(str(max(chosen)))
    for channel, number in zip(chosen, numbers.tolist(), strict=True):
        length = round(abs(number) / most * BAR) if np.isfinite(number) else 0
        yield f"{channel:>{wide}} {'█' * length:<{BAR}} {number:.4g}"


def _resized(pixels: Array, width: int, height: int) -> Array:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    larger = width >= picture.width and height >= picture.height
    how = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    return np.asarray(picture.resize((width, height + height % 2), how))


def _cells(pixels: Array) -> Iterator[Line]:
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        yield [(tuple(above), tuple(below)) for above, below in zip(upper, lower, strict=True)]
