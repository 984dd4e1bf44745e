"""A report in a browser: what it shows, sorting, searching, keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser, find_chromium
from report_samples import (
    FAILED,
    LABELS,
    page_data,
    sample_layers,
    write_output,
)

import layerprobe
from layerprobe.views.colours import amounts, signed

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium to open pages with")


def shown_channels(browser: Browser) -> list[int]:
    return [int(text.split()[0]) for text in browser.texts(".channel h3 .name")]


def shown_rows(browser: Browser) -> list[int]:
    rows: list[int] = browser.run(
        "[...document.querySelectorAll('.card.image')].map((one) => +one.dataset.row)"
    )
    return rows


def test_all_layers_are_shown_with_their_numbers(browser: Browser, page: Path) -> None:
    browser.open(page)
    data = page_data(page)
    assert browser.run("document.title") == "<b>out.h5 · layerprobe"
    assert browser.texts(".card.layer h2") == [layer["name"] for layer in data["layers"]]
    assert browser.texts(".summary dd") == ["20", "2", "5", "24", "1"]
    assert browser.run("document.querySelectorAll('.card.layer .histogram rect').length") == 5 * 64
    facts = browser.texts(".card.layer:first-child .facts dd")
    relu = sample_layers()["relu"][[row for row in range(20) if row not in FAILED]]
    assert float(facts[0]) == pytest.approx(relu.mean(), rel=5e-3)
    assert facts[2] == f"{100 * (relu == 0).mean():.1f} %"
    assert facts[3] == "1 of 6"


def test_many_layers_are_searched_and_sorted(browser: Browser, tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    layers = {f"conv{number}": random.normal(size=(3, number)).astype("f4") for number in range(12, 2, -1)}
    layers["conv4"][:, :2] = 0
    output = write_output(tmp_path / "a.npz", layers, ["a", "b", "c"], {}, None)
    layerprobe.report(output, tmp_path / "a.html")
    browser.open(tmp_path / "a.html")
    assert browser.texts(".card.layer h2") == list(layers)
    browser.choose("Order of layers", "name")
    assert browser.texts(".card.layer h2") == [f"conv{number}" for number in range(3, 13)]
    browser.choose("Order of layers", "dead")
    assert browser.texts(".card.layer h2")[0] == "conv4"
    browser.press("/")
    browser.type("conv1")
    assert browser.texts(".card.layer h2") == ["conv12", "conv11", "conv10"]
    browser.press("ArrowDown")
    browser.press("Enter")
    assert browser.texts(".head h2") == ["conv12"]
    assert browser.texts(".beside a") == ["conv11→"]


def test_a_sequence_lies_below_its_image(browser: Browser, page: Path) -> None:
    browser.open(page, "#layer=3")
    boxes = browser.run(
        "[...document.querySelectorAll('.tile .box')].map((box) => [box, box.querySelector('canvas')]"
        ".map((one) => one.getBoundingClientRect())"
        ".map(({ bottom, height, width }) => [bottom, height, width]))"
    )
    assert len(boxes) == 12
    for image, strip in boxes:
        assert strip == pytest.approx([image[0], 0.14 * image[1], image[2]], abs=0.5)


def test_where_there_is_no_picture_the_map_stands_alone(browser: Browser, tmp_path: Path) -> None:
    layers = {"conv": sample_layers()["relu"], "lstm": np.ones((20, 7, 3), "f4")}
    output = write_output(tmp_path / "a.h5", layers, [f"a.npy[{row}]" for row in range(20)], {}, None)
    layerprobe.report(output, tmp_path / "a.html")
    for place in ("#layer=0", "#layer=1"):
        browser.open(tmp_path / "a.html", place)
        shown = "(one) => getComputedStyle(document.querySelector(`.tile ${one}`))"
        assert browser.run(f"({shown})('.none').display") == "none"
        assert browser.run(f"({shown})('.map').mixBlendMode") == "normal"
        sides = "['.box', '.map'].map((one) => document.querySelector(`.tile ${one}`).clientHeight)"
        high, covered = browser.run(sides)
        assert high == covered > 50
    browser.press("m")
    browser.press("m")
    assert browser.run(f"({shown})('.none').display") != "none", "of the image alone there is nothing"


def test_channels_are_sorted_searched_and_filtered(browser: Browser, page: Path) -> None:
    browser.open(page, "#layer=0")
    each = page_data(page)["layers"][0]["each"]
    by_strength = np.argsort(-np.array(each["max"]), kind="stable").tolist()
    assert shown_channels(browser) == by_strength
    browser.choose("Order of channels", "number")
    assert shown_channels(browser) == list(range(6))
    browser.choose("Order of channels", "sparse")
    assert shown_channels(browser)[0] == 2, "the dead one is 0 everywhere"
    browser.choose("Which channels", "dead")
    assert browser.texts(".channel h3") == ["2dead"]
    assert browser.texts(".channel .empty") == ["0 in every image"]
    browser.choose("Which channels", "alive")
    browser.press("/")
    browser.type("1, 3-4, 2")
    assert sorted(shown_channels(browser)) == [1, 3, 4]
    assert browser.texts(".found") == ["3 channels"]
    browser.press("Escape")
    assert len(shown_channels(browser)) == 5, "an empty search finds all"


def test_each_channel_has_its_strongest_images(browser: Browser, page: Path) -> None:
    browser.open(page, "#layer=2&channel=5")
    data = page_data(page)
    each = data["layers"][2]["each"]
    assert shown_channels(browser) == [5]
    values = [float(text.replace("\u2212", "-")) for text in browser.texts(".channel .value")]
    assert values == pytest.approx(each["values"][5], rel=5e-3)
    shown = browser.run("[...document.querySelectorAll('.channel img')].map((one) => one.src)")
    images = {image["row"]: image for image in data["images"]}
    assert shown == [images[row]["picture"][0] for row in each["rows"][5]]


@pytest.mark.parametrize(("number", "name", "colours"), [(0, "relu", amounts), (1, "maps", signed)])
def test_maps_have_the_colours_of_the_other_pictures(
    browser: Browser, page: Path, number: int, name: str, colours: Any
) -> None:
    browser.open(page, f"#layer={number}&channel=1")
    each = page_data(page)["layers"][number]["each"]
    values = sample_layers()[name][each["rows"][1][0], ..., 1].astype(float)
    drawn = browser.run(
        "(() => { const map = document.querySelector('.channel canvas.map');"
        "return [...map.getContext('2d').getImageData(0, 0, map.width, map.height).data]; })()"
    )
    seen = np.array(drawn).reshape(*values.shape, 4)
    most = max(abs(each["min"][1]), abs(each["max"][1])) if name == "maps" else each["max"][1]
    wanted = colours(np.where(np.isfinite(values), values, np.nan) / most).astype(int)
    assert np.abs(seen[..., :3] - wanted).max() <= 6, "a step of 254 is a step or two of a colour"
    assert (seen[..., 3] == 255).all()


def test_images_are_sorted_searched_and_filtered(browser: Browser, page: Path) -> None:
    browser.open(page, "#images")
    images = page_data(page)["images"]
    assert shown_rows(browser) == list(range(20))
    browser.choose("Which images", "failed")
    assert shown_rows(browser) == [3, 11]
    assert browser.texts(".card.image .reason") == ["truncated JPEG", "<b>no such</b> file"]
    browser.choose("Which images", "all")
    good = [image for image in images if "classes" in image]
    browser.choose("Order of images", "unsure")
    wanted = sorted(good, key=lambda image: image["classes"][1])
    assert shown_rows(browser)[:18] == [image["row"] for image in wanted]
    browser.choose("Order of images", "name")
    plain = [row for row in shown_rows(browser) if not 5 <= row < 12]
    assert plain == sorted(plain), "their names are their numbers"
    assert shown_rows(browser) != list(range(20))
    browser.choose("Class", "0")
    assert set(shown_rows(browser)) == {image["row"] for image in good if image["classes"][0] == 0}
    browser.choose("Class", "all")
    browser.press("/")
    browser.type("COW")
    assert set(shown_rows(browser)) == {image["row"] for image in good if image["classes"][0] == 2}
    browser.press("Escape")
    browser.type("00.png")
    assert shown_rows(browser) == [0]
    browser.type("no such image")
    assert browser.texts(".grid .empty") == ["No image fits."]


def test_an_image_shows_its_classes_and_channels(browser: Browser, page: Path) -> None:
    browser.open(page, "#images&image=4")
    image = page_data(page)["images"][4]
    assert browser.texts("#image-name") == [image["name"]]
    assert browser.texts("dialog .bars .name") == [LABELS[number] for number in image["classes"][::2]]
    assert browser.texts("dialog .tiles:first-of-type .value b")[: len(image["strong"][0]) // 2] == [
        str(channel) for channel in image["strong"][0][::2]
    ]
    shown = (
        "[...document.querySelectorAll('dialog .tiles')].map((one) => one.querySelectorAll('canvas').length)"
    )
    assert browser.run(shown) == [5, 4, 0, 3], "vectors have no maps, and classes are told above"
    browser.run("document.querySelector('dialog .tile').click()")
    browser.settle()
    assert not browser.run("document.querySelector('dialog').open")
    assert shown_channels(browser) == [image["strong"][0][0]]


def test_everything_can_be_reached_with_keys(browser: Browser, page: Path) -> None:
    focused = "document.activeElement.dataset.row ?? document.activeElement.className"
    browser.open(page, "#images")
    browser.press("/")
    assert browser.run(focused) == "search"
    browser.press("ArrowDown")
    assert browser.run(focused) == "0"
    browser.press("ArrowRight")
    assert browser.run(focused) == "1"
    across = browser.run(
        "getComputedStyle(document.querySelector('.grid')).gridTemplateColumns.split(' ').length"
    )
    browser.press("ArrowDown")
    assert browser.run(focused) == str(1 + across)
    browser.press("ArrowUp")
    browser.press("ArrowLeft")
    assert browser.run(focused) == "0"
    browser.press("End")
    assert browser.run(focused) == "19"
    assert browser.run("document.querySelectorAll('.grid a[tabindex=\"0\"]').length") == 1
    outline = browser.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    browser.press("Home")
    browser.press("Enter")
    assert browser.run("document.querySelector('dialog').open")
    browser.press("ArrowRight")
    assert browser.run("location.hash") == "#images&image=1"
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.run("location.hash") == "#images&image=0", "before the first there is none"
    browser.press("Escape")
    assert not browser.run("document.querySelector('dialog').open")
    assert browser.run(focused) == "0", "the focus is where it was"


def test_escape_leads_back_to_all_layers_and_m_changes_what_is_shown(browser: Browser, page: Path) -> None:
    browser.open(page, "#layer=0")
    visible = "getComputedStyle(document.querySelector('canvas.map')).display"
    modes = []
    for _ in range(3):
        modes.append((browser.run("document.body.dataset.maps"), browser.run(visible)))
        browser.press("m")
    assert modes == [("over", "block"), ("map", "block"), ("image", "none")]
    browser.press("Escape")
    assert browser.run("document.getElementById('main').className") == "layers"


def test_long_lists_are_made_as_they_are_scrolled_to(browser: Browser, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    layers = {"wide": random.normal(size=(1000, 512)).astype("f4")}
    output = write_output(tmp_path / "a.npz", layers, [f"{row}.npy[0]" for row in range(1000)], {}, None)
    layerprobe.report(output, tmp_path / "a.html")
    for place, one, all_of in (("#layer=0", ".channel", 512), ("#images", ".card.image", 1000)):
        browser.open(tmp_path / "a.html", place)
        counted = f"document.querySelectorAll('{one}').length"
        assert browser.run(counted) < all_of / 2
        browser.wait(f"(scrollTo(0, document.body.scrollHeight), {counted} === {all_of})")
        assert browser.run("document.documentElement.scrollHeight") > 5000
