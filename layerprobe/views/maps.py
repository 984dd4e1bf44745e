"""Contact sheets: what one layer gives for one image, channel by channel."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw

from layerprobe.errors import UsageError
from layerprobe.views import style
from layerprobe.views.scale import Scale

if TYPE_CHECKING:
    from layerprobe.records import Array

TILE = 112
"""Least width of a map in a sheet, in pixels; maps are enlarged by whole factors."""
MOST = 1024
"""So many maps a sheet holds; beyond that the strongest are taken unless channels are named."""
STRONGEST = re.compile(r"strongest:(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a sheet shows."""

    layer: str
    image: str
    """What the row is called."""
    channels: str = "all"
    """ "all", "strongest:K", or numbers and ranges as in "0,5,12-15"."""
    scale: Literal["shared", "channel"] = "shared"
    """Whether equal colours mean equal values in the whole sheet, or in one map only."""


def draw_sheet(activations: Array, channel_axis: int, sheet: Sheet) -> Image.Image:
    """Draw one row of a layer: maps as tiles, a sequence as a heat map, a vector as bars.

    Args:
        activations: One row: (H, W, C), (T, C), (C,) or (), or with the channels first.
        channel_axis: -1, or 0.
        sheet: What to show and how.

    Raises:
        UsageError: A channel is not there, or the row has more than two axes beside the channels.
    """
    values = channels_last(activations, channel_axis, sheet.layer)
    chosen = choose_channels(values, sheet.channels)
    shown = values[..., chosen]
    if values.ndim == 3:
        return _tiles(shown, chosen, values.shape, sheet)
    return (_heat_map if values.ndim == 2 else _bars)(shown, chosen, values.shape, sheet)


def channels_last(activations: Array, channel_axis: int, layer: str) -> Array:
    """One row as float32 (H, W, C), (T, C) or (C,).

    Raises:
        UsageError: It has more axes, or no values.
    """
    values = np.asarray(activations, np.float32)
    if channel_axis == 0 and values.ndim > 1:
        values = np.moveaxis(values, 0, -1)
    if values.ndim > 3 or not values.size:
        raise UsageError(
            f"layer {layer!r} has rows of shape {activations.shape}: expected (H, W, C), (T, C) or (C,)."
        )
    return values.reshape(1) if values.ndim == 0 else values


def choose_channels(values: Array, channels: str) -> list[int]:
    """Channel numbers in the order in which they are shown.

    Args:
        values: (..., C).
        channels: As `Sheet.channels`.

    Raises:
        UsageError: It is none of these, or there is no such channel.
    """
    count = values.shape[-1]
    if channels == "all" and (count <= MOST or values.ndim < 3):
        return list(range(count))
    strongest = STRONGEST.fullmatch(channels)
    if strongest or channels == "all":
        wanted = min(int(strongest[1]) if strongest else MOST, count)
        strength = np.nan_to_num(np.abs(values)).reshape(-1, count).max(0)
        order: list[int] = np.argsort(-strength, kind="stable").tolist()
        return order[: max(wanted, 1)]
    found: list[int] = []
    for part in channels.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        if match is None:
            raise UsageError(
                f"channels must be all, strongest:K, or numbers such as 0,5,12-15. Received: {channels!r}"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= count:
            raise UsageError(f"channels {part.strip()!r}: there are channels 0 to {count - 1}.")
        found += range(first, last + 1)
    return found


def _tiles(maps: Array, chosen: Sequence[int], shape: Sequence[int], sheet: Sheet) -> Image.Image:
    """(H, W, n) as n tiles."""
    height, width, count = maps.shape
    factor = max(1, math.ceil(TILE / max(height, width)))
    columns = _columns(count, width * factor, height * factor)
    step_x = width * factor + style.GAP
    step_y = height * factor + style.GAP + style.line_height(style.SMALL)
    shared = Scale.of(maps)
    top = _head_height()
    picture, pen = style.page(
        max(2 * style.MARGIN + columns * step_x - style.GAP, 420),
        top + math.ceil(count / columns) * step_y + style.MARGIN,
    )
    _head(picture, pen, shape, sheet, shared)
    for place, channel in enumerate(chosen):
        x, y = style.MARGIN + place % columns * step_x, top + place // columns * step_y
        scale = shared if sheet.scale == "shared" else Scale.of(maps[..., place])
        tile = Image.fromarray(scale.colours(maps[..., place]))
        picture.paste(tile.resize((width * factor, height * factor), Image.Resampling.NEAREST), (x, y))
        label = f"{channel}" if sheet.scale == "shared" else f"{channel}  {scale.text}"
        below = (x, y + height * factor + 1)
        style.write(pen, below, label, style.SMALL, style.QUIET, width=width * factor)
    return picture


def _columns(count: int, width: int, height: int) -> int:
    """So many that the sheet is about 3 wide to 2 high."""
    return max(1, min(count, round(math.sqrt(1.5 * count * height / width))))


def _heat_map(steps: Array, chosen: Sequence[int], shape: Sequence[int], sheet: Sheet) -> Image.Image:
    """(T, n): time to the right, channels downwards."""
    time, count = steps.shape
    factor_x, factor_y = max(1, min(24, 900 // time)), max(1, min(24, 600 // count))
    scale = Scale.of(steps)
    left, top = style.MARGIN + 42, _head_height()
    width, height = time * factor_x, count * factor_y
    picture, pen = style.page(
        max(left + width + style.MARGIN, 420),
        top + height + 2 * style.MARGIN + style.line_height(style.SMALL),
    )
    _head(picture, pen, shape, sheet, scale)
    tile = Image.fromarray(np.ascontiguousarray(scale.colours(steps.T)))
    picture.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left, top))
    every = math.ceil(style.line_height(style.SMALL) / factor_y)
    for place in range(0, count, every):
        middle = top + (place + 0.5) * factor_y
        style.write(
            pen, (left - style.GAP, middle), str(chosen[place]), style.SMALL, style.QUIET, anchor="rm"
        )
    style.write(pen, (left, top + height + style.GAP), f"steps 0 to {time - 1}", style.SMALL, style.QUIET)
    return picture


def _bars(numbers: Array, chosen: Sequence[int], shape: Sequence[int], sheet: Sheet) -> Image.Image:
    """(n,) as one bar each, from 0."""
    count, step, high = len(numbers), max(1, min(28, 1200 // len(numbers))), 220
    scale = Scale.of(numbers)
    low = min(0.0, scale.low)
    unit = high / ((scale.high - low) or 1.0)
    left, top = style.MARGIN, _head_height()
    below = style.line_height(style.SMALL) + style.MARGIN
    picture, pen = style.page(max(left + count * step + style.MARGIN, 420), top + high + below)
    _head(picture, pen, shape, sheet, scale)
    zero = top + high + low * unit
    colours = scale.colours(numbers)
    for place, number in enumerate(numbers.tolist()):
        if math.isfinite(number):
            x, end = left + place * step, zero - number * unit
            box = (x, min(zero, end), x + max(step - 1 - (step > 4), 0), max(zero, end))
            pen.rectangle(box, tuple(colours[place].tolist()), style.LINE if step > 4 else None)
    pen.line([left, zero, left + count * step, zero], style.QUIET)
    every = math.ceil((style.text_width(str(max(chosen)), style.SMALL) + style.GAP) / step)
    for place in range(0, count, every):
        middle = (left + (place + 0.5) * step, top + high + 2)
        style.write(pen, middle, str(chosen[place]), style.SMALL, style.QUIET, anchor="ma")
    return picture


def _head_height() -> int:
    return style.MARGIN + style.line_height(style.LARGE) + 2 * style.line_height(style.NORMAL) + style.MARGIN


def _head(
    picture: Image.Image, pen: ImageDraw.ImageDraw, shape: Sequence[int], sheet: Sheet, scale: Scale
) -> None:
    """Layer, image, shape, and what the colours mean."""
    width = picture.width - 2 * style.MARGIN
    y = style.MARGIN
    style.write(pen, (style.MARGIN, y), sheet.layer, style.LARGE, width=width)
    y += style.line_height(style.LARGE)
    size = " x ".join(map(str, shape))
    style.write(pen, (style.MARGIN, y), f"{size}   {sheet.image}", ink=style.QUIET, width=width)
    y += style.line_height(style.NORMAL) + 2
    if sheet.scale == "channel" and len(shape) == 3:
        text = "each channel on its own scale" + ", blue below 0" * scale.has_sign
        style.write(pen, (style.MARGIN, y), text, ink=style.QUIET, width=width)
        return
    bar = 160
    ramp = np.linspace(scale.low, scale.high, bar, dtype=np.float32)
    strip = Image.fromarray(np.repeat(scale.colours(ramp)[np.newaxis], 12, 0))
    start = style.MARGIN + style.text_width(f"{scale.low:.3g}", style.NORMAL) + style.GAP
    style.write(pen, (style.MARGIN, y), f"{scale.low:.3g}", ink=style.QUIET)
    picture.paste(strip, (start, y + 2))
    said = f"{scale.high:.3g}" + "   in all maps" * (len(shape) == 3)
    style.write(pen, (start + bar + style.GAP, y), said, ink=style.QUIET)
