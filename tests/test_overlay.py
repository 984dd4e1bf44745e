"""Maps over images: strong is light, weak shows the image, and what the model did not see is dimmed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from layerprobe.views import style
from layerprobe.views.colours import amounts
from layerprobe.views.overlay import COVERED, Overlaid, Panel, draw_overlaid, overlay

GREY = Image.new("RGB", (90, 60), (100, 100, 100))


def lightness(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L"), float)


def test_the_stronger_a_value_the_lighter_and_the_more_covered_its_place() -> None:
    values = np.repeat(np.linspace(0, 8, 90, dtype=np.float32)[np.newaxis], 60, 0)
    row = lightness(overlay(GREY, values, 8.0))[30]
    assert row[89] > row[60] > row[50]
    strongest = np.asarray(overlay(GREY, values, 8.0), float)[30, 89]
    ground = 0.25 * 100 + 0.75 * (0.78 * 100 + 30)
    expected = COVERED * amounts(np.array(1.0)).astype(float) + (1 - COVERED) * ground
    np.testing.assert_allclose(strongest, expected, atol=1)


def test_values_below_zero_and_a_map_of_zeros_show_the_image_alone() -> None:
    nothing = np.asarray(overlay(GREY, np.zeros((60, 90)), 0.0))
    np.testing.assert_array_equal(np.asarray(overlay(GREY, np.full((60, 90), -3.0), 2.0)), nothing)
    assert len(np.unique(nothing.reshape(-1, 3), axis=0)) == 1


def test_what_the_model_did_not_see_is_lighter_than_any_image() -> None:
    values = np.zeros((60, 90), np.float32)
    values[:, :20] = np.nan
    row = lightness(overlay(GREY, values, 1.0))[30]
    assert row[5] > 150 > row[40]


def test_the_line_runs_around_half_of_the_strongest() -> None:
    values = np.zeros((60, 90), np.float32)
    values[20:40, 30:50], values[5:10, 5:10] = 4.0, 1.9
    pixels = np.asarray(overlay(GREY, values, 4.0))
    light, dark = (pixels == style.PAPER).all(-1), (pixels == style.INK).all(-1)
    assert light[20, 30:50].all()
    assert light[20:40, 49].all()
    assert dark[19, 30:50].all()
    assert not dark[22:38, 32:48].any()
    assert not light[:15, :15].any(), "less than half of it has no line"


@pytest.mark.parametrize(("images", "panels"), [(1, 1), (1, 3), (7, 1), (3, 2)])
@pytest.mark.parametrize("size", [(90, 60), (30, 400), (400, 30), (2, 2)])
def test_every_map_is_in_the_picture_with_its_strongest_colour(
    images: int, panels: int, size: tuple[int, int]
) -> None:
    values = np.zeros(size[::-1], np.float32)
    values[: size[1] // 2] = 5.0
    image = Image.new("RGB", size, (100, 100, 100))
    shown = [Overlaid(image, f"{i}.jpg", [Panel("star", "", values, 5.0)] * panels) for i in range(images)]
    picture = np.asarray(draw_overlaid(shown, "title", "below"))[72:]
    full = np.asarray(overlay(GREY, np.full((60, 90), 5.0), 5.0))[30, 45]
    covered = (picture == full).all(-1).sum()
    side = 420 if images == 1 else 236
    area = np.prod([round(length * side / max(size)) for length in size]) / 2
    # But for the line around it and the soft edge.
    assert 0.4 * images * panels * area < covered + 4 * side * images * panels
    assert covered <= 1.3 * images * panels * area + 4 * side * images * panels


def test_strange_names_fit() -> None:
    panel = Panel(
        "a class with a name that is far too long for its place " * 3, "x" * 200, np.ones((60, 90)), 1.0
    )
    picture = draw_overlaid([Overlaid(GREY, "\x1b[31m.jpg", [panel])], "t" * 400, "b" * 400)
    assert picture.width < 1000


def test_many_maps_of_an_image_are_several_lines() -> None:
    values = np.full((60, 90), 5.0)
    panels = [Panel(f"class {number}", "", values, 5.0) for number in range(13)]
    few, many = (draw_overlaid([Overlaid(GREY, "a.png", panels[:count])], "x", "y") for count in (5, 13))
    assert many.width == few.width
    full = np.asarray(overlay(GREY, values, 5.0))[30, 45]
    covered = (np.asarray(many) == full).all(-1)
    middles = [style.MARGIN + 210 + place * (420 + style.MARGIN) for place in range(6)]
    lines = [int((np.diff(covered[:, x].astype(int)) == 1).sum()) for x in middles]
    assert lines == [2, 3, 2, 2, 2, 2], "the image itself is the first of 14"


@pytest.mark.parametrize(
    ("tops", "said"),
    [
        (((4.0, 4.0), (2.0, 2.0)), "the highest of an image's maps; the line runs at half of it"),
        (((4.0, 3.0), (2.0, 1.0)), "the highest of the map; the line runs at half of it"),
        (((4.0,), (2.0,)), "the highest of the map; the line runs at half of it"),
        (((4.0,),), "4; the line runs at half of it"),
        (((0.0,),), "no value is above 0: nothing in the image speaks for it"),
    ],
)
def test_it_is_said_which_value_has_the_strongest_colour(
    tops: tuple[tuple[float, ...], ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(style, "write", lambda pen, place, text, *rest, **more: written.append(text))
    values = np.ones((60, 90), np.float32)
    images = [
        Overlaid(GREY, "a.png", [Panel("class", "", values, top) for top in of_image]) for of_image in tops
    ]
    draw_overlaid(images, "title", "below")
    assert said in written
