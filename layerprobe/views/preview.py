"""Activations on a terminal: two pixels to a character, the upper one in ink and the lower one in paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from layerprobe.views.scale import OWN_SCALE, Scale
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
SHADES = " ░▒▓█"
"""From black to white, where a terminal has no colours."""


def preview(values: Array, chosen: Sequence[int], columns: int, *, own: bool = False) -> Iterator[Line]:
    """The lines of a preview.

    Args:
        values: (H, W, n), (T, n) or (n,): the chosen channels of one row.
        chosen: Their n numbers.
        columns: Of the terminal, in characters.
        own: Whether each map has its own scale.
    """
    scale = Scale.of(values)
    if values.ndim == 1:
        yield from _bars(values, chosen, scale)
        return
    if values.ndim == 2:
        tile = _resized(scale.colours(values.T), min(columns, max(len(values), TILE)), values.shape[1])
        yield from _cells(tile)
    else:
        yield from _tiles(values, chosen, None if own else scale, columns)
    yield scale.text if not own or values.ndim != 3 else OWN_SCALE


def shaded(cells: Sequence[tuple[Colour, Colour]]) -> str:
    """A line without colours: the lighter a character's two pixels are, the more of it is filled."""
    lightness = np.asarray(cells, float).mean((1, 2)) / 256
    return "".join(SHADES[int(each * len(SHADES))] for each in lightness).rstrip()


def _tiles(maps: Array, chosen: Sequence[int], shared: Scale | None, columns: int) -> Iterator[Line]:
    height, width, count = maps.shape
    across = max(1, (columns + 1) // (TILE + 1))
    rows = max(2, round(TILE * height / width))
    for start in range(0, count, across):
        numbers = range(start, min(start + across, count))
        scales = [shared or Scale.of(maps[..., place]) for place in numbers]
        colours = [scale.colours(maps[..., place]) for scale, place in zip(scales, numbers, strict=True)]
        tiles = [_resized(pixels, TILE, rows) for pixels in colours]
        gap = np.full((tiles[0].shape[0], 1, 3), PAPER, np.uint8)
        beside = [part for tile in tiles for part in (tile, gap)][:-1]
        yield from _cells(np.concatenate(beside, 1))
        yield " ".join(f"{chosen[place]:<{TILE}}" for place in numbers).rstrip()
        if shared is None:
            ends = [f"±{scale.high:.3g}" if scale.has_sign else scale.text for scale in scales]
            yield " ".join(f"{text:<{TILE}}" for text in ends).rstrip()


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
