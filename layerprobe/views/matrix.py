"""A table of numbers as colours, each with its number in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.views import style
from layerprobe.views.colours import amounts

if TYPE_CHECKING:
    from PIL import Image

    from layerprobe.records import Array

NAMES = 220
"""Most pixels that the names beside the rows take."""


def draw_matrix(
    values: Array, rows: Sequence[str], columns: Sequence[str], title: str, below: str
) -> Image.Image:
    """Draw numbers from 0 to 1.

    Args:
        values: (len(rows), len(columns)); NaN is grey.
        rows: A name for each row; written beside it.
        columns: A name for each column; written above it, from below upwards.
        title: Above all.
        below: A line under it.
    """
    cell = 44 if max(values.shape) <= 24 else max(6, 1056 // max(values.shape))
    beside = min(NAMES, max(style.text_width(name, style.SMALL) for name in rows))
    above = min(NAMES, max(style.text_width(name, style.SMALL) for name in columns))
    left = style.MARGIN + beside + style.GAP
    head = style.MARGIN + style.line_height(style.LARGE) + style.line_height(style.NORMAL) + style.MARGIN
    top = head + above + style.GAP
    width = max(left + cell * len(columns) + style.MARGIN, 420)
    picture, pen = style.page(width, top + cell * len(rows) + style.MARGIN)
    style.write(pen, (style.MARGIN, style.MARGIN), title, style.LARGE, width=width - 2 * style.MARGIN)
    under = (style.MARGIN, style.MARGIN + style.line_height(style.LARGE))
    style.write(pen, under, below, ink=style.QUIET, width=width - 2 * style.MARGIN)
    every = -(-style.line_height(style.SMALL) // cell)
    for place in range(0, len(rows), every):
        middle = (left - style.GAP, top + (place + 0.5) * cell)
        style.write(pen, middle, rows[place], style.SMALL, width=beside, anchor="rm")
    for place in range(0, len(columns), every):
        x = round(left + (place + 0.5) * cell)
        style.write_upwards(picture, (x, top - style.GAP), columns[place], style.SMALL, width=above)
    colours = amounts(values)
    for (row, column), value in np.ndenumerate(values):
        x, y = left + column * cell, top + row * cell
        colour = tuple(colours[row, column].tolist())
        pen.rectangle((x, y, x + cell - 1, y + cell - 1), colour)
        if cell >= 30 and np.isfinite(value):
            ink = style.PAPER if sum(colour) < 380 else style.INK
            style.write(pen, (x + cell / 2, y + cell / 2), f"{value:.2f}", style.SMALL, ink, anchor="mm")
    return picture
