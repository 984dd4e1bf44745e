"""How every picture looks: paper, ink, letters, spaces. In pixels."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

PAPER = (255, 255, 255)
INK = (32, 33, 36)
QUIET = (110, 113, 118)
LINE = (218, 220, 224)

GAP = 6
MARGIN = 16
SMALL, NORMAL, LARGE = 11, 13, 18
"""Sizes of letters."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface, which needs no file."""
    return ImageFont.load_default(size)


def page(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture and its pen."""
    picture = Image.new("RGB", (width, height), PAPER)
    return picture, ImageDraw.Draw(picture)


def text_width(text: str, size: int) -> int:
    """Of one line."""
    return int(font(size).getlength(text) + 0.999)


def line_height(size: int) -> int:
    """From one line to the next."""
    return round(size * 1.35)


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int = NORMAL,
    ink: tuple[int, int, int] = INK,
    *,
    width: int | None = None,
    anchor: str = "la",
) -> None:
    """Write one line; where it is wider than `width`, its middle gives way to an ellipsis."""
    pen.text(place, fitting(text, size, width), ink, font(size), anchor=anchor)


def write_upwards(
    picture: Image.Image,
    place: tuple[int, int],
    text: str,
    size: int,
    ink: tuple[int, int, int] = INK,
    *,
    width: int,
) -> None:
    """Write one line from below upwards; `place` is the middle of its beginning."""
    shown, height = fitting(text, size, width), line_height(size)
    line = Image.new("L", (text_width(shown, size) + 1, height))
    ImageDraw.Draw(line).text((0, height / 2), shown, 255, font(size), anchor="lm")
    turned = line.transpose(Image.Transpose.ROTATE_90)
    picture.paste(ink, (place[0] - turned.width // 2, place[1] - turned.height), turned)


def fitting(text: str, size: int, width: int | None) -> str:
    """A line that is no wider than `width`; what cannot be drawn is shown as in Python."""
    shown = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    if width is None or text_width(shown, size) <= width:
        return shown
    kept = len(shown)
    while kept > 1:
        kept -= 1
        short = shown[: (kept + 1) // 2] + "…" + shown[len(shown) - kept // 2 :]
        if text_width(short, size) <= width:
            return short
    return "…"
