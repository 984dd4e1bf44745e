"""Contact sheets and `layerprobe show`: the colours are those of the values, the channels those asked for."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_samples import PROVENANCE
from PIL import Image

import layerprobe
from layerprobe import registry
from layerprobe.errors import OutputError, UsageError
from layerprobe.records import TensorSpec
from layerprobe.views import style
from layerprobe.views.colours import MISSING
from layerprobe.views.maps import Sheet, choose_channels, draw_sheet
from layerprobe.views.preview import HALF, TILE, preview, shaded
from layerprobe.views.scale import Scale

RANDOM = np.random.default_rng(3)
MAPS = RANDOM.uniform(0, 9, (4, 5, 6)).astype(np.float32)


def colours_of(picture: Image.Image) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(picture).reshape(-1, 3).tolist()))


def tiles_of(picture: Image.Image, maps: Any, factor: int) -> list[Any]:
    """Where the sheet shows each map, found by its colours and not by the layout's own numbers."""
    pixels = np.asarray(picture)
    found = []
    for place in range(maps.shape[-1]):
        tile = np.kron(maps[..., place], np.ones((factor, factor), np.float32))
        wanted = Scale.of(maps).colours(tile)
        high, wide = tile.shape
        starts = np.argwhere((pixels == wanted[0, 0]).all(-1)).tolist()
        same = [at for at in starts if np.array_equal(pixels[at[0] :, at[1] :][:high, :wide], wanted)]
        found.append(same[0] if same else None)
    return found


def test_every_map_is_drawn_in_the_colours_of_its_values_and_in_order() -> None:
    places = tiles_of(draw_sheet(MAPS, -1, Sheet("conv", "a.jpg")), MAPS, 23)
    assert None not in places
    assert places == sorted(places)


def test_channels_first_rows_give_the_same_sheet() -> None:
    last = draw_sheet(MAPS, -1, Sheet("conv", "a.jpg"))
    first = draw_sheet(np.moveaxis(MAPS, -1, 0), 0, Sheet("conv", "a.jpg"))
    assert last.tobytes() == first.tobytes()


def test_on_its_own_scale_every_channel_uses_all_colours() -> None:
    maps = np.stack([MAPS[..., 0], MAPS[..., 0] * 1000], -1)
    own = draw_sheet(maps, -1, Sheet("conv", "a.jpg", scale="channel"))
    brightest = tuple(Scale.of(maps).colours(maps.max(keepdims=True)).reshape(3).tolist())
    pixels = np.asarray(own)
    assert len(np.unique(np.argwhere((pixels == brightest).all(-1))[:, 1] // (own.width // 2))) == 2


def test_channels_are_chosen_by_number_by_strength_or_all() -> None:
    values = np.array([0.5, -9.0, np.nan, 3.0, 0.0], np.float32)
    assert choose_channels(values, "all") == [0, 1, 2, 3, 4]
    assert choose_channels(values, "strongest:2") == [1, 3]
    assert choose_channels(values, "strongest:99")[:2] == [1, 3]
    assert choose_channels(values, "4,0-2") == [4, 0, 1, 2]
    many = np.arange(3 * 2000, dtype=np.float32).reshape(1, 3, 2000)
    assert choose_channels(many, "all")[0] == 1999
    for wrong in ("", "5", "3-1", "-1", "strongest", "strongest:x", "strongest:0", "1,,2"):
        with pytest.raises(UsageError, match="channels"):
            choose_channels(values, wrong)


def test_vectors_are_bars_as_high_as_their_values() -> None:
    numbers = np.array([1.0, 2.0, 4.0, 0.0, np.nan, np.inf], np.float32)
    picture = np.asarray(draw_sheet(numbers, -1, Sheet("dense", "a.jpg")))[80:]
    middles = [style.MARGIN + 28 * place + 14 for place in range(6)]
    heights = (picture[:, middles] == Scale(0.0, 4.0).ink(1.0)).all(-1).sum(0).tolist()
    grey = (picture[:, middles] == MISSING).all(-1).sum(0).tolist()
    assert heights == pytest.approx([55, 110, 220, 0, 0, 220], abs=2)
    assert grey == pytest.approx([0, 0, 0, 0, 220, 0], abs=2)


def test_bars_below_zero_have_another_colour_and_hang_down() -> None:
    picture = np.asarray(draw_sheet(np.array([3.0, -3.0], np.float32), -1, Sheet("dense", "a.jpg")))[80:]
    scale = Scale(-3.0, 3.0)
    rows = [
        np.flatnonzero((picture[:, x] == scale.ink(value)).all(-1)) for x, value in ((30, 3.0), (58, -3.0))
    ]
    assert [len(each) for each in rows] == pytest.approx([110, 110], abs=2)
    assert rows[0].max() < rows[1].min()


def test_many_bars_and_long_sequences_do_not_make_endless_pictures() -> None:
    bars = np.zeros(4096, np.float32)
    bars[[0, 1200, 4095]] = 1
    picture = draw_sheet(bars, -1, Sheet("dense", "a.jpg"))
    assert picture.width < 1300
    inked = np.argwhere((np.asarray(picture)[80:] == Scale(0.0, 1.0).ink(1.0)).all(-1))
    columns, lines = np.unique(inked[:, 1] - style.MARGIN).tolist(), len(np.unique(inked[:, 0] // 151))
    assert (columns, lines) == ([0, 4095 % 1200], 3), "in the first, the second and the last line"
    steps = np.repeat(np.arange(2500, dtype=np.float32)[:, np.newaxis], 2, 1)
    means = np.asarray(draw_sheet(steps, -1, Sheet("lstm", "a.jpg")))[100]
    scale = Scale.of(np.array([2498.0]))
    assert means[58] == pytest.approx(scale.colours(np.array(1.0))), "of 0, 1 and 2"
    assert means[58 + 400] == pytest.approx(scale.colours(np.array(1201.0)))


def test_sequences_are_heat_maps_with_time_to_the_right() -> None:
    steps = np.zeros((7, 3), np.float32)
    steps[6, 0], steps[0, 2] = 1, -1
    pixels = np.asarray(draw_sheet(steps, -1, Sheet("lstm", "a.jpg")))[90:]
    scale = Scale(-1.0, 1.0)
    up = np.argwhere((pixels == scale.colours(np.array([1.0]))[0]).all(-1)).mean(0)
    down = np.argwhere((pixels == scale.colours(np.array([-1.0]))[0]).all(-1)).mean(0)
    assert up[0] < down[0]
    assert up[1] > down[1]


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (0, 3), (2, 0, 4)])
def test_what_has_no_picture_is_said_so(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="has rows of shape"):
        draw_sheet(np.zeros(shape), -1, Sheet("conv", "a.jpg"))


def test_nan_is_grey_and_infinities_are_the_ends() -> None:
    maps = MAPS.copy()
    maps[0, 0, 0], maps[1, 1, 1] = np.nan, np.inf
    found = colours_of(draw_sheet(maps, -1, Sheet("conv", "a.jpg")))
    assert (128, 128, 128) in found


def test_long_and_strange_names_fit_the_picture() -> None:
    assert style.fitting("short", style.NORMAL, 500) == "short"
    long = style.fitting("/folder/" * 60 + "x\x1b[31m.jpg", style.NORMAL, 200)
    assert style.text_width(long, style.NORMAL) <= 200
    assert long.isprintable()
    assert long.startswith("/folder/")
    assert long.endswith("m.jpg")


def test_a_preview_shows_the_chosen_channels_in_their_colours() -> None:
    lines = list(preview(MAPS[..., :2], [4, 7], 40))
    cells = [line for line in lines if not isinstance(line, str)]
    texts = [line for line in lines if isinstance(line, str)]
    scale = Scale.of(MAPS[..., :2])
    assert cells[0][0][0] == tuple(scale.colours(MAPS[0, 0, :1])[0].tolist())
    assert texts[0].split() == ["4", "7"]
    assert HALF == "\u2580"
    bars = list(preview(np.array([1.0, 0.5], np.float32), [0, 1], 80))
    assert [line.count("█") for line in bars] == [40, 20]
    assert len(list(preview(RANDOM.normal(size=(9, 4)).astype(np.float32), range(4), 80))) == 3


def test_a_preview_has_a_scale_for_each_channel_where_that_is_asked_for() -> None:
    maps = np.stack([MAPS[..., 0], MAPS[..., 0] * 1000], -1)
    shared, own = (list(preview(maps, [0, 1], 80, own=own)) for own in (False, True))
    tiles = [
        [(line[:TILE], line[TILE + 1 :]) for line in lines if isinstance(line, list)]
        for lines in (shared, own)
    ]
    assert all(first == second for first, second in tiles[1])
    assert not all(first == second for first, second in tiles[0])
    assert own[-2].split("  ")[0] == Scale.of(maps[..., 0]).text
    assert own[-1] == "each channel on its own scale"


def test_without_colours_lighter_places_of_a_preview_are_filled_more() -> None:
    black, grey, white = (0, 0, 0), (128, 128, 128), (255, 255, 255)
    assert shaded([(black, black), (grey, grey), (black, white), (white, white), (black, black)]) == " ▒▒█"


LAYERS = (TensorSpec("conv/a", (4, 5, 6), "float32"), TensorSpec("conv_a", (3,), "float32"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "x.h5"
    writer = registry.find(registry.WRITERS, "hdf5", "format")(str(path), LAYERS, ["a.jpg", "b.jpg"])
    writer.write(0, {"conv/a": np.stack([MAPS, MAPS]), "conv_a": np.ones((2, 3), np.float32)})
    layers = [{"name": spec.name, "shape": list(spec.shape), "channel_axis": -1} for spec in LAYERS]
    writer.commit({1: "truncated JPEG"}, dataclasses.replace(PROVENANCE, layers=layers))
    return path


def test_show_draws_a_row_of_an_output(output: Path, command: Any, tmp_path: Path) -> None:
    ended = command("show", output, "-l", "conv/a", "-o", tmp_path / "m.png")
    assert (ended.code, ended.out) == (0, "")
    wanted = draw_sheet(MAPS, -1, Sheet("conv/a", "a.jpg"))
    assert Image.open(tmp_path / "m.png").tobytes() == wanted.tobytes()


def test_several_layers_go_into_a_folder_each_under_its_own_name(
    output: Path, command: Any, tmp_path: Path
) -> None:
    many = ("show", output, "-l", "conv/a", "-l", "conv_a")
    assert command(*many, "-o", tmp_path / "sheets").code == 0
    assert len(list((tmp_path / "sheets").iterdir())) == 2
    again = command(*many, "-o", tmp_path / "sheets")
    assert (again.code, "--overwrite" in again.err) == (73, True)
    assert command(*many, "-o", tmp_path / "sheets", "--overwrite").code == 0
    assert "need a folder" in command(*many, "-o", tmp_path / "m.png").err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("-o", "m.png"), 2, "holds several layers"),
        (("-l", "conv", "-o", "m.png"), 2, "holds no layer 'conv'"),
        (("-l", "conv/a", "--row", "1", "-o", "m.png"), 2, "failed \\(truncated JPEG\\)"),
        (("-l", "conv/a", "--row", "2", "-o", "m.png"), 2, "rows 0 to 1"),
        (("-l", "conv/a"), 2, "say where the picture goes"),
        (("-l", "conv/a", "-o", "m.jpg"), 2, "written as PNG"),
        (("-l", "conv/a", "--channels", "6", "-o", "m.png"), 2, "channels 0 to 5"),
        (("-l", "conv/a", "-o", "no/m.png"), 73, "there is no folder"),
        (("-l", "conv/a", "-o", "-"), 2, "do not go to standard output"),
        (("-l", "conv/a", "-o", "m.png", "--size", "8"), 2, "--size says how a model is run"),
        (("-l", "conv/a", "-o", "m.png", "--custom", "x.py"), 2, "--custom says how a model is run"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence_and_no_picture(
    output: Path, command: Any, tmp_path: Path, monkeypatch: Any, arguments: Any, code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    ended = command("show", output, *arguments)
    assert ended.code == code
    assert len(ended.err.splitlines()) == 1
    assert re.search(sentence, ended.err), ended.err
    assert set(tmp_path.rglob("*")) == before


def test_a_model_without_images_is_told_to_need_some(command: Any, samples: Path, tmp_path: Path) -> None:
    ended = command("show", samples / "vgg_shapes.h5", "-l", "conv5_3", "-o", tmp_path / "m.png")
    assert ended.code == 65
    assert "give images too" in ended.err


def test_show_runs_a_model_and_draws_what_extract_gives(command: Any, samples: Path, tmp_path: Path) -> None:
    image = samples / "images" / "star_09.png"
    command("extract", samples / "vgg_shapes.h5", "-l", "conv5_3", image, "-o", tmp_path / "x.npz", "-q")
    command("show", tmp_path / "x.npz", "-o", tmp_path / "one.png")
    ended = command("show", samples / "vgg_shapes.h5", image, "-l", "conv5_3", "-o", tmp_path / "two.png")
    assert ended.code == 0, ended.err
    assert "layerprobe: preprocess raw: the model has a Rescaling layer `rescaling`\n" in ended.err
    assert Image.open(tmp_path / "one.png").tobytes() == Image.open(tmp_path / "two.png").tobytes()


def test_what_channels_cannot_be_is_said_before_a_model_is_read(command: Any, samples: Path) -> None:
    ended = command(
        "show", "no-model.h5", samples / "images", "-l", "conv", "--channels", "few", "-o", "x.png"
    )
    assert (ended.code, ended.err.count("\n"), "'few'" in ended.err) == (2, 1, True)


def test_of_a_show_that_was_ended_nothing_is_kept_and_nothing_goes_on(
    command: Any, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*arguments: Any, **options: Any) -> Any:
        error = OutputError("the disk is full")
        error.add_note("8 rows are kept")
        raise error

    monkeypatch.setattr("layerprobe.looking.extract", ended)
    told = command(
        "show", samples / "vgg_shapes.h5", samples / "images", "-l", "conv5_3", "-o", tmp_path / "x"
    )
    assert (told.code, told.err) == (73, "layerprobe: the disk is full\n")


def test_show_replaces_none_of_the_files_that_it_reads(command: Any, samples: Path, tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes((samples / "images" / "star_09.png").read_bytes())
    before = photo.read_bytes()
    ended = command("show", samples / "vgg_shapes.h5", photo, "-l", "conv5_3", "-o", photo, "--overwrite")
    assert ended.code == 73
    assert ended.err.splitlines()[-1].endswith("is one of the inputs: give another name with -o.")
    assert photo.read_bytes() == before


def test_complex_numbers_have_no_colours() -> None:
    with pytest.raises(UsageError, match="layer 'waves' holds complex numbers, which have no order"):
        draw_sheet(MAPS.astype(np.complex64), -1, Sheet("waves", "a.jpg"))


def test_show_skips_a_broken_image_and_draws_the_others(command: Any, samples: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    whole = (samples / "images" / "star_09.png").read_bytes()
    (photos / "a.png").write_bytes(whole[:1000])
    (photos / "b.png").write_bytes(whole)
    model = samples / "vgg_shapes.h5"
    ended = command("show", model, photos, "-l", "predictions", "-o", tmp_path / "sheets", "-q")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == f"layerprobe: skipped {photos / 'a.png'}: truncated PNG\n"
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["predictions.1.png"]


@pytest.mark.parametrize("name", ["vgg_shapes.h5", "vgg_shapes.keras", "images"])
@pytest.mark.parametrize("asked", ["info", "stats", "show"])
def test_what_is_no_output_is_said_to_be_none(command: Any, samples: Path, name: str, asked: str) -> None:
    rest = ("-o", "never.png") if asked == "show" else ()
    ended = command(asked, samples / name, *rest)
    assert (ended.code, ended.out) == (65, "")
    assert ended.err.startswith(
        f"layerprobe: {str(samples / name)!r} is no output of layerprobe: it holds no"
    )
    assert len(ended.err.splitlines()) == 1


def test_one_name_is_not_taken_for_a_list_of_letters(output: Path, tmp_path: Path) -> None:
    for wrong in (
        lambda: layerprobe.compare(output, output, "conv_a"),  # type: ignore[arg-type]
        lambda: layerprobe.report(output, tmp_path / "x.html", layers="conv_a"),
        lambda: layerprobe.output_statistics([output], "conv_a"),
    ):
        with pytest.raises(UsageError, match=r"must be a list of names, such as \['conv_a'\]"):
            wrong()
    assert list(layerprobe.output_statistics(output, ["conv_a"])) == ["conv_a"]
