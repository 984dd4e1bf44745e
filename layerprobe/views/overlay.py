"""Maps laid over the images that they are about: strong values in colour, the rest as the image is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from layerprobe.views import style
from layerprobe.views.colours import amounts

if TYPE_CHECKING:
    from layerprobe.records import Array

ALONE, IN_SHEET = 420, 236
"""The longer side of an image in a picture, in pixels: of one image, and in a sheet of many."""
COVERED = 0.74
"""How much of the image the strongest colour covers."""
RAMP = 160
LEAST, LEAST_CELL = 420, 150
"""Pixels of the scale's width, and the least widths of a picture and of an image's place in it."""
ACROSS = 6
"""So many maps of an image, and itself, stand beside each other; more are further lines."""
NOWHERE = "no value is above 0: nothing in the image speaks for it"
UNSEEN = 0.3
"""How much of an image is left where the model saw nothing of it."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One map over an image."""

    title: str
    """What the map is for: a class."""
    below: str
    """A line about it."""
    values: Array
    """(height, width) of the image's own size or any other; NaN where the model saw nothing."""
    most: float
    """The value that has the strongest colour."""


@dataclass(frozen=True, slots=True)
class Overlaid:
    """An image and the maps that are laid over it."""

    image: Image.Image
    name: str
    panels: Sequence[Panel]


def overlay(image: Image.Image, values: Array, most: float) -> Image.Image:
    """Lay a map over an image: it turns grey, and the stronger a value the more its colour covers.

    Args:
        image: RGB.
        values: (height, width) of the image; what is below 0 shows nothing, NaN dims the image.
        most: The value of the strongest colour; 0 where there is none.

    Returns:
        RGB, of the image's size. A line runs around what is above half of `most`.
    """
    pixels = np.asarray(image.convert("RGB"), np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    unseen = np.isnan(values)
    strength = np.clip(np.where(unseen, 0, values) / most, 0, 1) if most > 0 else np.zeros(values.shape)
    cover = (COVERED * np.clip(strength * 1.6, 0, 1) ** 0.8)[..., np.newaxis]
    ground = 0.25 * pixels + 0.75 * (0.78 * grey + 30)[..., np.newaxis]
    shown = (1 - cover) * ground + cover * amounts(0.12 + 0.88 * strength)
    shown[unseen] = style.PAPER[0] - UNSEEN * (style.PAPER[0] - grey[unseen, np.newaxis])
    return _outlined(Image.fromarray(shown.round().astype(np.uint8)), strength >= 0.5)


def draw_overlaid(shown: Sequence[Overlaid], title: str, below: str) -> Image.Image:
    """Draw images with their maps, and what the colours mean.

    Args:
        shown: At least one. One image stands beside its maps; of several with one map each the maps make a
            sheet, and of several with more each image is a row.
        title: Above all.
        below: A line under it.
    """
    side = ALONE if len(shown) == 1 else IN_SHEET
    beside = len(shown) == 1 or any(len(each.panels) > 1 for each in shown)
    rows = [_row(each, side, beside) for each in shown]
    step = max(row.width for row in rows) + style.MARGIN * (2 if beside else 1)
    # About 3 wide to 2 high.
    columns = max(1, round((1.5 * sum(row.height for row in rows) / step) ** 0.5))
    lines = [rows[start : start + columns] for start in range(0, len(rows), columns)]
    top = style.MARGIN + style.line_height(style.LARGE) + 2 * style.line_height(style.NORMAL) + style.MARGIN
    width = max(style.MARGIN + min(columns, len(rows)) * step, LEAST)
    picture, pen = style.page(width, top + sum(max(row.height for row in line) for line in lines))
    _head(picture, pen, shown, title, below)
    for line in lines:
        for place, row in enumerate(line):
            picture.paste(row, (style.MARGIN + place * step, top))
        top += max(row.height for row in line)
    return picture


def shrunk(shown: Overlaid, side: int) -> Overlaid:
    """The same with the longer side of the image no longer than this, so that many take little memory."""
    scale = side / max(shown.image.size)
    if scale >= 1:
        return shown
    size = max(1, round(shown.image.width * scale)), max(1, round(shown.image.height * scale))
    panels = [replace(panel, values=_resized(panel.values, size)) for panel in shown.panels]
    return Overlaid(shown.image.resize(size, Image.Resampling.LANCZOS), shown.name, panels)


def _row(shown: Overlaid, side: int, beside: bool) -> Image.Image:
    """One image: itself, where it is to stand beside them, and its maps, each with its caption."""
    scale = side / max(shown.image.size)
    width, height = (max(1, round(length * scale)) for length in shown.image.size)
    image = shown.image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    cell = max(width, LEAST_CELL)
    captions = style.line_height(style.NORMAL) + 2 * style.line_height(style.SMALL)
    step = height + style.GAP + captions + style.MARGIN
    count = len(shown.panels) + beside
    row, pen = style.page(
        min(count, ACROSS) * (cell + style.MARGIN) - style.MARGIN, math.ceil(count / ACROSS) * step
    )
    if beside:
        row.paste(image, (0, 0))
        style.write(pen, (0, height + style.GAP), shown.name, ink=style.QUIET, width=cell)
    for place, panel in enumerate(shown.panels, beside):
        x, y = place % ACROSS * (cell + style.MARGIN), place // ACROSS * step
        row.paste(overlay(image, _resized(panel.values, (width, height)), panel.most), (x, y))
        y += height + style.GAP
        style.write(pen, (x, y), panel.title, width=cell)
        y += style.line_height(style.NORMAL)
        style.write(pen, (x, y), panel.below, style.SMALL, style.QUIET, width=cell)
        if not beside:
            y += style.line_height(style.SMALL)
            style.write(pen, (x, y), shown.name, style.SMALL, style.QUIET, width=cell)
    return row


def _resized(values: Array, size: tuple[int, int]) -> Array:
    """A map at another size; what the model did not see stays so."""
    unseen = np.isnan(values)
    filled = Image.fromarray(np.where(unseen, 0, values).astype(np.float32))
    found = np.array(filled.resize(size, Image.Resampling.BILINEAR))
    if unseen.any():
        found[np.asarray(Image.fromarray(unseen).resize(size, Image.Resampling.NEAREST))] = np.nan
    return found


def _outlined(image: Image.Image, inside: Array) -> Image.Image:
    """The image with a light line, dark at its outer side, around a part of it."""
    mask = Image.fromarray(inside.astype(np.uint8) * 255)
    grown = mask.filter(ImageFilter.MaxFilter(3))
    image.paste(style.INK, mask=ImageChops.subtract(grown, mask))
    image.paste(style.PAPER, mask=ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(3))))
    return image


def _head(
    picture: Image.Image, pen: ImageDraw.ImageDraw, shown: Sequence[Overlaid], title: str, below: str
) -> None:
    """Title, what it is about, and what the colours mean."""
    width, y = picture.width - 2 * style.MARGIN, style.MARGIN
    style.write(pen, (style.MARGIN, y), title, style.LARGE, width=width)
    y += style.line_height(style.LARGE)
    style.write(pen, (style.MARGIN, y), below, ink=style.QUIET, width=width)
    y += style.line_height(style.NORMAL) + 2
    most = {panel.most for each in shown for panel in each.panels}
    shared = all(len({panel.most for panel in each.panels}) == 1 for each in shown)
    several = shared and any(len(each.panels) > 1 for each in shown)
    which = "the highest of an image's maps" if several else "the highest of the map"
    if most == {0.0}:
        style.write(pen, (style.MARGIN, y), NOWHERE, ink=style.QUIET)
        return
    highest = f"{most.pop():.3g}" if len(most) == 1 else which
    style.write(pen, (style.MARGIN, y), "0", ink=style.QUIET)
    x = style.MARGIN + style.text_width("0", style.NORMAL) + style.GAP
    ramp = np.repeat(np.linspace(0, 1, RAMP, dtype=np.float32)[np.newaxis], 12, 0)
    ground = Image.new("RGB", (RAMP, 12), (128, 128, 128))
    picture.paste(overlay(ground, ramp, 1.0).crop((0, 0, RAMP, 12)), (x, y + 2))
    text = f"{highest}; the line runs at half of it"
    style.write(pen, (x + RAMP + style.GAP, y), text, ink=style.QUIET, width=width - x - RAMP)
