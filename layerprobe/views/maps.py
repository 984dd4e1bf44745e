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
from layerprobe.views.colours import MISSING
from layerprobe.views.scale import OWN_SCALE, Scale

if TYPE_CHECKING:
    from layerprobe.records import Array

TILE = 112
"""Least width of a map in a sheet, in pixels; maps are enlarged by whole factors."""
MOST = 1024
"""So many maps a sheet holds; beyond that the strongest are taken unless channels are named."""
LEAST, WIDE = 420, 1200
"""The least width of a picture, and the most that bars and steps of a sequence take, in pixels."""
STRONGEST = re.compile(r"strongest:0*([1-9]\d{0,8})", re.ASCII)
NUMBERS = re.compile(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", re.ASCII)


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
        UsageError: It has more axes, no values, or complex ones.
    """
    if np.iscomplexobj(activations):
        raise UsageError(f"layer {layer!r} holds complex numbers, which have no order: name another.")
    values = np.asarray(activations, np.float32)
    if channel_axis == 0 and values.ndim > 1:
        values = np.moveaxis(values, 0, -1)
    if values.ndim > 3 or not values.size:
        raise UsageError(
            f"layer {layer!r} has rows of shape {activations.shape}: expected (H, W, C), (T, C) or (C,)."
        )
    return values.reshape(1) if values.ndim == 0 else values


def check_channels(channels: str) -> None:
    """Raise UsageError unless this names channels, whether they are there or not."""
    numbers = all(NUMBERS.fullmatch(part) for part in channels.split(","))
    if channels != "all" and not STRONGEST.fullmatch(channels) and not numbers:
        raise UsageError(
            f"channels must be all, strongest:K, or numbers such as 0,5,12-15. Received: {channels!r}"
        )


def choose_channels(values: Array, channels: str) -> list[int]:
    """Channel numbers in the order in which they are shown.

    Args:
        values: (..., C).
        channels: As `Sheet.channels`.

    Raises:
        UsageError: It is none of these, or there is no such channel.
    """
    check_channels(channels)
    count = values.shape[-1]
    if channels == "all" and (count <= MOST or values.ndim < 3):
        return list(range(count))
    strongest = STRONGEST.fullmatch(channels)
    if strongest or channels == "all":
        wanted = min(int(strongest[1]) if strongest else MOST, count)
        strength = np.nan_to_num(np.abs(values)).reshape(-1, count).max(0)
        order: list[int] = np.argsort(-strength, kind="stable").tolist()
        return order[:wanted]
    found: list[int] = []
    for part in channels.split(","):
        match = NUMBERS.fullmatch(part)
        assert match is not None  # `check_channels` has seen it
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= count:
            raise UsageError(f"channels {part.strip()!r}: there are channels 0 to {count - 1}.")
        found += range(first, last + 1)
    return found


def _tiles(maps: Array, chosen: Sequence[int], shape: Sequence[int], sheet: Sheet) -> Image.Image:
    """(H, W, n) as n tiles."""
    height, width, count = maps.shape
    factor = max(1, math.ceil(TILE / max(height, width)))
    shared = Scale.of(maps)
    scales = [shared if sheet.scale == "shared" else Scale.of(maps[..., place]) for place in range(count)]
    labels = [str(channel) for channel in chosen]
    if sheet.scale == "channel":
        labels = [f"{label}: {scale.text}" for label, scale in zip(labels, scales, strict=True)]
    cell = max(width * factor, *(style.text_width(label, style.SMALL) for label in labels))
    columns = _columns(count, cell, height * factor)
    step_x = cell + style.GAP
    step_y = height * factor + style.GAP + style.line_height(style.SMALL)
    top = _head_height()
    picture, pen = style.page(
        max(2 * style.MARGIN + columns * step_x - style.GAP, LEAST),
        top + math.ceil(count / columns) * step_y + style.MARGIN,
    )
    _head(picture, pen, shape, count, sheet, shared)
    for place, (label, scale) in enumerate(zip(labels, scales, strict=True)):
        x, y = style.MARGIN + place % columns * step_x, top + place // columns * step_y
        tile = Image.fromarray(scale.colours(maps[..., place]))
        picture.paste(tile.resize((width * factor, height * factor), Image.Resampling.NEAREST), (x, y))
        style.write(pen, (x, y + height * factor + 1), label, style.SMALL, style.QUIET)
    return picture


def _columns(count: int, width: int, height: int) -> int:
    """So many that the sheet is about 3 wide to 2 high."""
    return max(1, min(count, round(math.sqrt(1.5 * count * height / width))))


def _heat_map(steps: Array, chosen: Sequence[int], shape: Sequence[int], sheet: Sheet) -> Image.Image:
    """(T, n): time to the right, channels downwards; many steps are averaged."""
    said, together = f"steps 0 to {len(steps) - 1}", math.ceil(len(steps) / WIDE)
    if together > 1:
        starts = np.arange(0, len(steps), together)
        sizes = np.diff([*starts, len(steps)])[:, np.newaxis]
        steps = np.add.reduceat(steps, starts, 0) / sizes
        said += f", the mean of every {together}"
    time, count = steps.shape
    factor_x, factor_y = max(1, min(24, 900 // time)), max(1, min(24, 600 // count))
    scale = Scale.of(steps)
    left, top = style.MARGIN + 42, _head_height()
    width, height = time * factor_x, count * factor_y
    picture, pen = style.page(
        max(left + width + style.MARGIN, LEAST),
        top + height + 2 * style.MARGIN + style.line_height(style.SMALL),
    )
    _head(picture, pen, shape, count, sheet, scale)
    tile = Image.fromarray(np.ascontiguousarray(scale.colours(steps.T)))
    picture.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left, top))
    every = math.ceil(style.line_height(style.SMALL) / factor_y)
    for place in range(0, count, every):
        middle = top + (place + 0.5) * factor_y
        style.write(
            pen, (left - style.GAP, middle), str(chosen[place]), style.SMALL, style.QUIET, anchor="rm"
        )
    style.write(pen, (left, top + height + style.GAP), said, style.SMALL, style.QUIET)
    return picture


def _bars(numbers: Array, chosen: Sequence[int], shape: Sequence[int], sheet: Sheet) -> Image.Image:
    """(n,) as one bar each, from 0; many are several lines of bars."""
    step = max(1, min(28, WIDE // len(numbers)))
    lines = [slice(start, start + WIDE // step) for start in range(0, len(numbers), WIDE // step)]
    high = 220 if len(lines) == 1 else 120
    top, below = _head_height(), style.line_height(style.SMALL) + style.MARGIN
    width = 2 * style.MARGIN + step * len(numbers[lines[0]])
    picture, pen = style.page(max(width, LEAST), top + len(lines) * (high + below))
    scale = Scale.of(numbers)
    _head(picture, pen, shape, len(chosen), sheet, scale)
    for line in lines:
        _line_of_bars(pen, (top, high, step), numbers[line], chosen[line], scale)
        top += high + below
    return picture


def _line_of_bars(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int, int],
    numbers: Array,
    chosen: Sequence[int],
    scale: Scale,
) -> None:
    """Bars beside each other, `place` (top, height, width of each), with numbers of channels below them."""
    top, high, step = place
    bottom, unit = top + high, high / ((scale.high - scale.low) or 1.0)
    zero = bottom + scale.low * unit
    ends = zero - np.clip(numbers, scale.low, scale.high) * unit
    for number, (value, end) in enumerate(zip(numbers.tolist(), ends.tolist(), strict=True)):
        x = style.MARGIN + number * step
        ends_at = x + max(step - 1 - (step > 4), 0)
        if math.isnan(value):
            pen.rectangle((x, top, ends_at, bottom), MISSING)
        elif value:
            pen.rectangle((x, min(zero, end), ends_at, max(zero, end)), scale.ink(value))
    pen.line([style.MARGIN, zero, style.MARGIN + len(numbers) * step, zero], style.QUIET)
    every = math.ceil((style.text_width(str(max(chosen)), style.SMALL) + style.GAP) / step)
    for number in range(0, len(chosen), every):
        middle = (style.MARGIN + (number + 0.5) * step, bottom + 2)
        style.write(pen, middle, str(chosen[number]), style.SMALL, style.QUIET, anchor="ma")


def _head_height() -> int:
    return style.MARGIN + style.line_height(style.LARGE) + 2 * style.line_height(style.NORMAL) + style.MARGIN


def _head(
    picture: Image.Image,
    pen: ImageDraw.ImageDraw,
    shape: Sequence[int],
    count: int,
    sheet: Sheet,
    scale: Scale,
) -> None:
    """Layer, image, shape, how many of its channels are shown, and what the colours mean."""
    width = picture.width - 2 * style.MARGIN
    y = style.MARGIN
    style.write(pen, (style.MARGIN, y), sheet.layer, style.LARGE, width=width)
    y += style.line_height(style.LARGE)
    size = " x ".join(map(str, shape))
    if count < shape[-1]:
        size += f"   {count:,} of {shape[-1]:,} channels"
    style.write(pen, (style.MARGIN, y), f"{size}   {sheet.image}", ink=style.QUIET, width=width)
    y += style.line_height(style.NORMAL) + 2
    if len(shape) == 1 or (sheet.scale == "channel" and len(shape) == 3):
        text = scale.text if len(shape) == 1 else OWN_SCALE + ", blue below 0" * scale.has_sign
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
