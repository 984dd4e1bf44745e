"""A report in a browser, at each of its places: safe, no wider than the window, usable by name, printed."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from chromium import Browser, find_chromium
from report_samples import (
    EVIL_LAYER,
    FAILED,
)

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium to open pages with")

PLACES = ["", "#layer=0", "#layer=1", "#layer=2", "#images", "#images&image=6", "#images&image=3", "#about"]


def test_names_of_files_layers_and_classes_do_nothing_and_are_shown(browser: Browser, page: Path) -> None:
    for place in PLACES:
        browser.open(page, place)
        assert browser.run("window.hacked") is None
        sources = browser.run("[...document.querySelectorAll('img')].map((one) => one.src.slice(0, 16))")
        assert set(sources) <= {"data:image/webp;"}
    browser.open(page, "#images")
    names = browser.run("[...document.querySelectorAll('.card.image .name')].map((one) => one.title)")
    for shown in (
        '<img src=x onerror="window.hacked=1">.png',
        'it\'s a "quote" & &lt;b&gt;.png',
        r"\u202egnp.exe\u200f.png",
        r"line\u2028paragraph\u2029end\n.png",
        r"bytes \udcff\udc80.png",
        "</script><script>window.hacked=1</script><!--.png",
        "שלום.png",
    ):
        assert any(name.endswith(f"/{shown}") for name in names), shown
    browser.open(page)
    assert browser.texts(".card.layer h2")[2] == EVIL_LAYER.replace("\u2028", "\\u2028")


def test_the_policy_of_the_page_stops_what_is_not_its_own(started: Browser, page: Path) -> None:
    started.open(page)
    started.run(
        "const script = document.createElement('script');"
        "try { script.text = 'window.hacked = 1'; } catch { /* trusted types */ }"
        "document.body.append(script);"
        "const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(image); fetch('http://127.0.0.1:9/').catch(() => 0)"
    )
    started.settle()
    assert started.run("window.hacked") is None
    assert len([text for text in started.problems if "Content Security Policy" in text]) >= 2
    started.problems.clear()


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_wider_than_the_window(
    browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.resize(width, 800, dark=dark)
    for number, place in enumerate(PLACES):
        browser.open(page, place)
        browser.screenshot(tmp_path / f"{number}.png")
        assert browser.run("document.documentElement.scrollWidth") <= width, place
        for box in ("dialog", "main"):
            wide = f"document.querySelector('{box}')"
            assert browser.run(f"{wide}.scrollWidth - {wide}.clientWidth") <= 0, (box, place)
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(19, 20, 22)" if dark else "rgb(255, 255, 255)")


def test_the_colours_can_be_chosen(browser: Browser, page: Path) -> None:
    browser.open(page)
    seen = []
    for _ in range(3):
        browser.run("document.getElementById('theme').click()")
        seen.append(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert seen == ["rgb(255, 255, 255)", "rgb(19, 20, 22)", "rgb(255, 255, 255)"]


def test_everything_that_can_be_used_has_a_name(browser: Browser, page: Path) -> None:
    for place in ("", "#layer=0", "#images&image=0", "#about"):
        browser.open(page, place)
        nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
        used = [node for node in nodes if not node["ignored"]]
        usable = {"link", "button", "searchbox", "combobox", "radio", "dialog", "image"}
        named = [node for node in used if node["role"]["value"] in usable]
        assert len(named) >= 5
        assert not [node for node in named if not node.get("name", {}).get("value")], place


def test_it_prints(browser: Browser, page: Path) -> None:
    browser.open(page, "#layer=0")
    printed = base64.b64decode(browser.ask("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF")
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
    browser.ask("Emulation.setEmulatedMedia", media="")


def test_the_page_says_what_made_the_output(browser: Browser, page: Path) -> None:
    browser.open(page, "#about")
    told = dict(zip(browser.texts(".facts.long dt"), browser.texts(".facts.long dd"), strict=True))
    assert told["model"] == "vgg \\udcff.h5"
    assert told["SHA-256 of the model"] == "00" * 32
    assert told["preprocessing"] == "32x32 bilinear, crop none, tf (asked for)"
    assert browser.texts("tbody td:last-child") == list(FAILED.values())
