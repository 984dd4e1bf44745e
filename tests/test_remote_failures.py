"""Stores that fail, stall, refuse or are not there: a sentence, a code, and nothing that was secret."""

from __future__ import annotations

import ftplib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import store_servers
from fsspec.implementations.memory import MemoryFileSystem

import layerprobe
from layerprobe import cli
from layerprobe.errors import SampleError, StoppedError
from layerprobe.sources.listing import image_source
from layerprobe.sources.opening import open_source
from layerprobe.stores import store

pytestmark = pytest.mark.usefixtures("impatient")

Command = Callable[..., Any]
Images = dict[str, bytes]
LAYER = ("-l", "predictions")


@pytest.fixture(scope="module")
def model(samples: Path) -> Path:
    return samples / "vgg_shapes.h5"


def test_a_server_that_stalls_is_asked_again(monkeypatch: pytest.MonkeyPatch, images: Images) -> None:
    monkeypatch.setattr(store, "READ_SECONDS", 0.2)

    def first_stalls(method: str, path: str, number: int) -> str | None:
        return "stall" if number == 1 and method == "GET" else None

    with store_servers.web(dict(images), first_stalls) as served:
        source = image_source([f"{served.url}/star_09.png"])
        assert next(iter(source)).read() == images["star_09.png"]
        assert served.requests["GET"] > 1


@pytest.mark.parametrize(("status", "code"), [("403", 77), ("503", 69), ("404", 66)])
def test_a_listing_that_fails_ends_the_run_with_a_sentence(
    command: Command, tmp_path: Path, model: Path, status: str, code: int
) -> None:
    with store_servers.web({"a/x.png": b""}, lambda *_: status) as served:
        ended = command("extract", model, *LAYER, f"{served.url}/a/", "-o", tmp_path / "out.npz")
    assert ended.code == code
    assert ended.err.startswith("layerprobe: ")
    assert ended.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_answer_ends_the_run(command: Command, model: Path) -> None:
    with store_servers.web({}) as served:
        url = served.url
    ended = command("extract", model, *LAYER, f"{url}/a.png")
    assert (ended.code, "does not answer" in ended.err) == (69, True)


def test_a_store_that_goes_away_ends_the_run_and_what_is_done_is_kept(tmp_path: Path, images: Images) -> None:
    with store_servers.web(dict(images)) as served:
        (tmp_path / "list").write_text("\n".join(f"{served.url}/{name}" for name in images))
        source = open_source([], lists=[str(tmp_path / "list")])
    for sample in source:
        with pytest.raises(layerprobe.LayerprobeError, match="does not answer") as caught:
            sample.read()
        assert not isinstance(caught.value, SampleError), "an outage is no row that fails"
        break


def test_a_store_that_is_connected_to_at_once_and_refuses_that_is_a_sentence(
    command: Command, tmp_path: Path, model: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_servers.web({}) as served:
        there = served.url.replace("http:", "ftp:")
    image = samples / "images" / "star_09.png"
    (tmp_path / "urls").write_text(f"{image}\n{there}/a.png\n")
    lines: list[tuple[object, ...]] = [
        ("extract", model, *LAYER, f"{there}/a.png"),
        ("extract", model, *LAYER, "--from-file", tmp_path / "urls", "-o", tmp_path / "x.npz", "-q"),
        ("extract", model, *LAYER, image, "-o", f"{there}/x.h5"),
        ("layers", f"{there}/model.h5"),
    ]
    for line in lines:
        ended = command(*line)
        assert (ended.code, "does not answer (Connection refused)" in ended.err) == (69, True), ended.err
        assert ended.err.startswith(f"layerprobe: '{there}/")

    def denied(*_: object, **__: object) -> None:
        raise ftplib.error_perm("530 Login incorrect.")

    monkeypatch.setattr(ftplib.FTP, "connect", lambda *_: None)
    monkeypatch.setattr(ftplib.FTP, "login", denied)
    ended = command("info", f"{there}/x.h5")
    assert (ended.code, "access is denied (530 Login incorrect.)" in ended.err) == (77, True), ended.err


@pytest.mark.parametrize("protocol", ["s3", "gs", "az"])
def test_a_package_that_is_missing_is_named(
    command: Command, model: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    from fsspec.registry import _registry

    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, protocol, raising=False)
    ended = command("extract", model, *LAYER, f"{protocol}://bucket/x.png")
    assert ended.code == 69
    assert f"pip install 'layerprobe[{store.EXTRAS[protocol]}]'" in ended.err


def test_passwords_and_signatures_are_neither_shown_nor_stored(
    command: Command, tmp_path: Path, model: Path, images: Images
) -> None:
    with store_servers.web({"a.png": images["star_09.png"]}) as served:
        host = served.url.removeprefix("http://")
        urls = [f"http://{host}/a.png?X-Amz-Signature=s3cr3t&v=1", f"http://me:s3cr3t@{host}/none.png"]
        (tmp_path / "list").write_text("\n".join(urls))
        ended = command("extract", model, *LAYER, "--from-file", tmp_path / "list", "-o", tmp_path / "o.h5")
        assert ended.code == 3
        assert "s3cr3t" not in ended.err
        ended = command("extract", model, *LAYER, urls[1])
        assert (ended.code, "s3cr3t" in ended.err) == (66, False)
    assert b"s3cr3t" not in (tmp_path / "o.h5").read_bytes()
    with layerprobe.open(tmp_path / "o.h5") as found:
        assert found.paths[0] == f"http://{host}/a.png?X-Amz-Signature=***&v=1"
        assert found.paths[1] == f"http://***@{host}/none.png"


class ClientAuthenticationError(Exception):
    """As Azure calls it."""


class WithoutCredentials(MemoryFileSystem):
    """Does not let us in, one way or the other; its package would rather tell all than one line."""

    protocol = "locked"

    def __init__(self, *, account: str = "", **options: Any) -> None:
        super().__init__(**options)
        if not account:
            raise ValueError(
                "unable to connect: give either a connection_string\nor an account with credentials!!"
            )

    @classmethod
    def _get_kwargs_from_urls(cls, url: str) -> dict[str, str]:
        return {"account": "me"} if "@" in url else {}

    def info(self, path: str, **options: Any) -> Any:
        logging.getLogger("azure.identity").warning("no token:\nhere are eight ways to get one")
        raise ClientAuthenticationError("no token.\nTried:\n  this\n  and that")


fsspec.register_implementation("locked", WithoutCredentials, clobber=True)


def test_the_command_that_goes_on_is_not_told_with_a_password_in_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> None:
        error = StoppedError("stopped after 2 of 3 rows.")
        error.add_note("2 of 3 rows are kept in an unfinished output")
        raise error

    monkeypatch.setattr(cli, "_called", stopped)
    for host, told in (
        ("host", "to go on: layerprobe"),
        ("me:geheim@host", "the same command with --resume"),
    ):
        monkeypatch.setattr(sys, "argv", ["layerprobe", "extract", f"--input=a=https://{host}/a"])
        cli.run()
        err = capfd.readouterr().err
        assert (told in err, "geheim" in err) == (True, False), err


@pytest.mark.parametrize("url", ["locked://box/x.h5", "locked://box@me/x.h5"])
def test_without_credentials_one_line_says_so(command: Command, model: Path, samples: Path, url: str) -> None:
    for line in (
        ("info", url),
        ("extract", model, *LAYER, samples / "images" / "star_09.png", "-o", url, "-q"),
        ("extract", model, *LAYER, f"{url[:-4]}images/"),
    ):
        ended = command(*line)
        assert (ended.code, ended.err.count("\n"), ended.err.count("layerprobe: ")) == (77, 1, 1), ended.err
        assert "credentials" in ended.err or "no token" in ended.err
