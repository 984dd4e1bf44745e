"""Models by URL, from a hub, and by the name of an architecture: fetched or made once, then as any file."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import store_servers
from store_servers import Served, at_random

import layerprobe
from layerprobe.errors import UsageError
from layerprobe.loading import applications
from layerprobe.loading.applications import NAMES, made
from layerprobe.stores import attempts, notes
from layerprobe.stores.cache_place import model_folder

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def a_cache_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(attempts, "FIRST_PAUSE", 0.005)
    notes.taken()


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "models").rglob("*") if path.is_file())


def test_a_model_at_a_url_is_fetched_once_and_again_when_it_changed(
    command: Command, tmp_path: Path, samples: Path
) -> None:
    files = {"m/vgg.h5": (samples / "vgg_shapes.h5").read_bytes()}
    image = samples / "images" / "star_09.png"
    with store_servers.web(files, at_random(4)) as served:
        url = f"{served.url}/m/vgg.h5"
        ended = command("extract", url, "-l", "predictions", image, "-o", tmp_path / "there.npz")
        assert ended.code == 0, ended.err
        before = served.requests["GET"]
        expected = command("layers", samples / "vgg_shapes.h5", "--json").out
        assert command("layers", url, "--json").out == expected
        assert served.requests["GET"] == before, "it is in the cache"
        files["m/vgg.h5"] = (samples / "nested_shapes.keras").read_bytes()
        assert "backbone" in command("layers", url).out
    command("extract", samples / "vgg_shapes.h5", "-l", "predictions", image, "-o", tmp_path / "here.npz")
    with layerprobe.open(tmp_path / "there.npz") as there, layerprobe.open(tmp_path / "here.npz") as here:
        np.testing.assert_array_equal(there["predictions"], here["predictions"])
        told = there.provenance["model"]
        assert told["path"] == url
        assert told["sha256"] == hashlib.sha256((samples / "vgg_shapes.h5").read_bytes()).hexdigest()
    assert kept(tmp_path) == ["vgg.h5", "vgg.h5"]
    assert command("cache", "--clear").code == 0
    assert kept(tmp_path) == []


def test_passwords_of_a_model_are_not_stored(command: Command, tmp_path: Path, samples: Path) -> None:
    with store_servers.web({"vgg.h5": (samples / "vgg_shapes.h5").read_bytes()}) as served:
        url = f"{served.url}/vgg.h5?token=s3cr3t"
        image = samples / "images" / "star_09.png"
        assert command("extract", url, "-l", "predictions", image, "-o", tmp_path / "o.jsonl").code == 0
    assert "s3cr3t" not in (tmp_path / "o.jsonl").read_text()


def test_a_folder_in_a_store_is_a_model_or_holds_one(command: Command, samples: Path) -> None:
    system = fsspec.filesystem("memory")
    with zipfile.ZipFile(samples / "vgg_shapes.keras") as archive:
        for name in archive.namelist():
            system.pipe_file(f"/unpacked/{name}", archive.read(name))
    system.pipe_file("/one/README.md", b"")
    system.pipe_file("/one/vgg.h5", (samples / "vgg_shapes.h5").read_bytes())
    system.pipe_file("/two/a.keras", b"")
    system.pipe_file("/two/b.h5", b"")
    system.pipe_file("/none/x.txt", b"")
    expected = command("layers", samples / "vgg_shapes.keras").out
    assert command("layers", "memory://unpacked").out == expected
    ended = command("layers", "memory://one")
    assert (ended.out, "the model is vgg.h5 of memory://one" in ended.err) == (expected, True)
    ended = command("layers", "memory://two")
    assert (ended.code, "say which" in ended.err) == (2, True)
    assert command("layers", "memory://none").code == 2
    assert command("layers", "memory://nothing").code == 66


@pytest.mark.parametrize("url", ["https://nowhere.invalid/x.h5", "hf://org/name", "s3://bucket/x.h5"])
def test_without_a_network_a_model_is_one_sentence_within_seconds(
    command: Command, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    if url.startswith("s3"):
        from s3fs import S3FileSystem

        S3FileSystem.clear_instance_cache()
    ended = command("check", url)
    assert (ended.code, ended.err.count("\n")) == (69, 1), ended.err
    assert ended.err.startswith("layerprobe: ")


def hub(model: bytes) -> Callable[..., Iterable[bytes]]:
    """A Hugging Face hub with one repository, org/name."""

    def answer(start: Any, body: bytes, *headers: tuple[str, str], status: str = "200 OK") -> list[bytes]:
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def application(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/api/models/org/name/tree/"):
            found: Any = [{"type": "file", "path": "model.h5", "size": len(model), "oid": "1" * 40}]
        elif path.startswith("/api/models/org/name"):
            found = {"id": "org/name", "sha": "a" * 40, "siblings": [], "private": False, "tags": []}
        elif path.startswith("/org/name/resolve/"):
            first, last = map(int, environ["HTTP_RANGE"].removeprefix("bytes=").split("-"))
            told = ("Content-Range", f"bytes {first}-{last}/{len(model)}")
            return answer(start, model[first : last + 1], told, status="206 Partial Content")
        else:
            return answer(start, b"{}", status="404 Not Found")
        return answer(start, json.dumps(found).encode(), ("Content-Type", "application/json"))

    return application


def test_a_repository_of_the_hub_is_a_model(tmp_path: Path, samples: Path) -> None:
    """In a process of its own: the hub's package reads HF_ENDPOINT when it is imported."""
    model = (samples / "vgg_shapes.h5").read_bytes()
    served = Served(hub(model))
    try:
        where = {"HF_ENDPOINT": served.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(tmp_path / "hf")}
        for name, code in (("hf://org/name", 0), ("hf://org/name@v1/model.h5", 0), ("hf://org/none", 66)):
            done = subprocess.run(
                [sys.executable, "-m", "layerprobe", "check", name],
                env={**os.environ, **where},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == code, done.stderr
            if not code:
                assert hashlib.sha256(model).hexdigest() in done.stdout
            assert done.stderr.count("\n") == (name != "hf://org/name@v1/model.h5")
    finally:
        served.close()


def test_an_architecture_that_keras_has_not_is_said_with_those_it_has(command: Command) -> None:
    ended = command("layers", "app:ResNet5")
    assert (ended.code, "ResNet50" in ended.err) == (2, True)
    with pytest.raises(UsageError, match=r"weights=none"):
        made("VGG16?weight=none")


def test_weights_that_cannot_be_fetched_are_said_before_keras_is_imported(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ended = command("extract", "app:ResNet50", "-l", "conv1_conv", "x.jpg")
    assert (ended.code, ended.err.count("\n")) == (69, 1)
    assert "app:ResNet50?weights=none" in ended.err


def test_an_architecture_is_made_once_however_many_ask_for_it_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once, saved = threading.Barrier(4), []

    def save(name: str, weights: str | None, path: str) -> None:
        saved.append(name)
        Path(path).write_bytes(b"a model")

    def place(key: str) -> str:
        folder = model_folder(key)
        at_once.wait()
        return folder

    monkeypatch.setattr(applications, "_save", save)
    monkeypatch.setattr(applications, "model_folder", place)
    monkeypatch.setattr(applications, "_downloaded", lambda _: False)
    monkeypatch.setattr(applications, "_check_reachable", lambda _: None)
    with ThreadPoolExecutor(4) as pool:
        (path,) = set(pool.map(made, ["ResNet50"] * 4))
    assert (saved, Path(path).read_bytes()) == (["ResNet50"], b"a model")
    assert len(notes.taken()) == 1


def test_where_nothing_can_be_locked_it_is_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(applications, "_save", lambda name, weights, path: Path(path).write_bytes(b"a model"))
    assert Path(made("ResNet50?weights=none")).read_bytes() == b"a model"


@pytest.mark.slow
def test_weights_that_came_in_part_are_one_sentence(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def corrupted(**_: object) -> None:
        raise ValueError("Incomplete or corrupted file detected. The md5 file hash does not match x.")

    monkeypatch.setattr(keras.applications, "ResNet50", corrupted)
    monkeypatch.setattr(applications, "_downloaded", lambda _: True)
    ended = command("layers", "app:ResNet50")
    assert (ended.code, ended.err.count("\n")) == (69, 1), ended.err
    assert "did not come whole" in ended.err


def test_a_file_that_is_called_like_an_architecture_goes_first(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app:VGG16").write_bytes((samples / "vgg_shapes.h5").read_bytes())
    assert "conv5_3" in command("layers", "app:VGG16").out


@pytest.mark.slow
def test_the_architectures_are_those_of_keras() -> None:
    import keras

    known = {name for name in dir(keras.applications) if name[0].isupper()}
    assert known == set(NAMES)


@pytest.mark.slow
def test_an_architecture_by_name_gives_what_keras_computes_with_its_own_preparation(
    command: Command, tmp_path: Path, samples: Path
) -> None:
    import keras

    image = samples / "images" / "star_09.png"
    model = "app:mobilenetv2?weights=none"
    ended = command("extract", model, "-l", "out_relu", "-l", "output", image, "-o", tmp_path / "o.npz")
    assert ended.code == 0, ended.err
    assert "app:MobileNetV2 was made by Keras" in ended.err
    keras.utils.set_random_seed(0)
    live = keras.applications.MobileNetV2(weights=None)
    picture = keras.utils.load_img(image, target_size=(224, 224), interpolation="bilinear")
    pixels = keras.utils.img_to_array(picture)[None]
    prepared = keras.applications.mobilenet_v2.preprocess_input(pixels)
    both = keras.Model(live.inputs, [live.get_layer("out_relu").output, live.outputs[0]])
    with layerprobe.open(tmp_path / "o.npz") as found:
        assert found.provenance["model"]["path"] == model
        assert found.provenance["preprocessing"]["size"] == [224, 224]
        for name, wanted in zip(("out_relu", "output"), both.predict(prepared, verbose=0), strict=True):
            assert np.abs(found[name] - wanted).max() < 1e-4 * np.abs(wanted).max()
    ended = command("layers", model)
    assert "was made" not in ended.err
