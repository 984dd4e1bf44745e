"""Outputs in object stores: brought there whole or not at all, never computed twice, read where they are."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
import store_servers
from fsspec.implementations.memory import MemoryFileSystem
from store_servers import Served
from stored_outputs import same, waiting

import layerprobe
from layerprobe.stores import store, upload

pytestmark = pytest.mark.usefixtures("scratch")

Command = Callable[..., Any]
FORMATS = ["x.npz", "x.h5", "x.safetensors", "x.parquet", "x.zarr", "x.jsonl", "x.tar", "folder"]


class Corrupting(MemoryFileSystem):
    """Changes the last byte of what it is given."""

    protocol = "corrupting"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        data = Path(lpath).read_bytes()
        self.pipe_file(rpath, data[:-1] + bytes([data[-1] ^ 1]))


fsspec.register_implementation("corrupting", Corrupting, clobber=True)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_goes_to_a_store_and_is_read_there(
    command: Command, tmp_path: Path, s3: Served, arguments: list[str], name: str
) -> None:
    here, there = tmp_path / name, f"s3://bucket/formats/{name}"
    assert command("extract", *arguments, "-o", here).code == 3
    ended = command("extract", *arguments, "-o", there)
    assert ended.code == 3
    assert f"-> {there}" in ended.err
    same(here, there)
    assert not waiting(tmp_path)
    assert command("verify", there).code == 0
    told = json.loads(command("info", there, "--json").out)
    assert told["path"] == there
    assert command("stats", there, "--json").out == command("stats", here, "--json").out.replace(
        str(here), there
    )


def test_what_is_there_is_replaced_only_when_that_is_asked_for(
    command: Command, tmp_path: Path, s3: Served, arguments: list[str]
) -> None:
    for there in ("s3://bucket/once.npz", "memory://once", "memory://once.zarr"):
        assert command("extract", *arguments, "-o", there).code == 3
        before = layerprobe.open(there).provenance["run"]["id"]
        ended = command("extract", *arguments, "-o", there)
        assert (ended.code, "give --overwrite" in ended.err) == (73, True)
        assert command("extract", *arguments, "-o", there, "--dry-run").code == 73
        assert command("extract", *arguments, "-o", there, "--overwrite").code == 3
        assert layerprobe.open(there).provenance["run"]["id"] != before
        ended = command("extract", *arguments, "-o", there, "--resume")
        assert (ended.code, "nothing to do" in ended.err) == (3, True)
        ended = command("extract", *arguments[:-1], "-o", there, "--resume")
        assert (ended.code, "different run" in ended.err) == (65, True)


@pytest.mark.parametrize("name", ["later.h5", "later.jsonl"])
def test_an_upload_that_fails_is_gone_on_with_and_nothing_is_computed_again(
    command: Command, tmp_path: Path, s3: Served, arguments: list[str], name: str
) -> None:
    there = f"s3://bucket/{name}"
    s3.faults = lambda method, *_: "403" if method in ("PUT", "POST") else None
    try:
        ended = command("extract", *arguments, "-o", there)
        assert ended.code == 77
    finally:
        s3.faults = store_servers.no_faults
    assert "waits there to be uploaded" in ended.err
    assert "to go on: " in ended.err
    assert waiting(tmp_path) == [name]
    before = command("info", next((tmp_path / "scratch").rglob(name)), "--json").out
    ended = command("extract", *arguments, "-o", there)
    assert (ended.code, "waits to be uploaded" in ended.err) == (73, True)
    ended = command("extract", *arguments, "-o", there, "--resume")
    assert (ended.code, "nothing to do" in ended.err) == (3, True)
    assert json.loads(command("info", there, "--json").out)["provenance"] == json.loads(before)["provenance"]
    assert not waiting(tmp_path)


def test_parts_of_an_upload_that_fail_now_and_then_are_sent_again(
    command: Command, tmp_path: Path, s3: Served, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PART", 5 * 2**20)
    values = np.random.default_rng(0).random((3, 16, 112, 112, 3), np.float32).reshape(48, 112, 112, 3)
    np.save(tmp_path / "x.npy", values)
    model = (samples / "vgg_shapes.h5", "-l", "rescaling")
    reading: list[int] = []
    monkeypatch.setattr(store.Store, "read_range", lambda *_: reading.append(1))
    count = itertools.count()
    s3.faults = lambda method, *_: "500" if method == "PUT" and next(count) % 3 == 0 else None
    try:
        ended = command("extract", *model, tmp_path / "x.npy", "-o", "s3://bucket/large.npz")
    finally:
        s3.faults = store_servers.no_faults
    assert ended.code == 0, ended.err
    assert not reading, "the store's checksum told that it is whole"
    monkeypatch.undo()
    with layerprobe.open("s3://bucket/large.npz") as found:
        np.testing.assert_allclose(found["rescaling"][40:42], values[40:42] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("name", ["x.npz", "folder"])
def test_an_object_that_is_not_what_was_sent_is_removed_and_the_output_stays_here(
    command: Command, tmp_path: Path, arguments: list[str], name: str
) -> None:
    ended = command("extract", *arguments, "-o", f"corrupting://{name}")
    assert ended.code == 74
    assert "not what was sent" in ended.err
    assert "x.npz" in waiting(tmp_path) or "provenance.json" in waiting(tmp_path)
    assert not Corrupting().exists("/x.npz")
    assert not Corrupting().exists("/folder/provenance.json")


def test_a_run_to_a_store_that_was_interrupted_goes_on(tmp_path: Path, s3: Served, samples: Path) -> None:
    images = sorted(str(path) for path in (samples / "images").glob("*_*.*g"))
    stops = iter([False, True])
    options: dict[str, Any] = {"layers": ["predictions"], "batch_size": 4, "output": "s3://bucket/on.h5"}
    with pytest.raises(layerprobe.LayerprobeError, match="stopped"):
        layerprobe.extract(samples / "vgg_shapes.h5", images, stop=lambda: next(stops), **options)
    with pytest.raises(layerprobe.LayerprobeError, match=r"no such object"):
        layerprobe.open("s3://bucket/on.h5")
    done: list[int] = []
    report = layerprobe.extract(
        samples / "vgg_shapes.h5", images, resume=True, progress=lambda rows, *_: done.append(rows), **options
    )
    assert done[0] == 8
    assert report.output == "s3://bucket/on.h5"
    layerprobe.extract(samples / "vgg_shapes.h5", images, ["predictions"], tmp_path / "on.h5", batch_size=4)
    same(tmp_path / "on.h5", "s3://bucket/on.h5")


def test_only_what_is_used_of_an_output_is_fetched(tmp_path: Path, samples: Path) -> None:
    values = np.arange(80 * 112 * 112 * 3, dtype=np.float32).reshape(80, 112, 112, 3)
    np.save(tmp_path / "x.npy", values)
    for name in ("x.npz", "x.h5", "x.safetensors", "x.zarr"):
        layerprobe.extract(
            samples / "vgg_shapes.h5", [str(tmp_path / "x.npy")], ["rescaling"], tmp_path / name
        )
    files = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != "x.npy"
    }
    with store_servers.web(files) as served:
        for name in ("x.npz", "x.h5", "x.safetensors", "x.zarr/"):
            served.sent = 0
            with layerprobe.open(f"{served.url}/{name}") as found, layerprobe.open(tmp_path / name) as here:
                np.testing.assert_array_equal(found["rescaling"][40:42], here["rescaling"][40:42])
                np.testing.assert_array_equal(found["rescaling"][[5, 3]], here["rescaling"][[5, 3]])
            size = sum(len(data) for file, data in files.items() if file.startswith(name))
            assert served.sent < 1_500_000 < size, name


def test_parts_in_a_store_are_joined_to_the_whole(
    command: Command, tmp_path: Path, s3: Served, samples: Path
) -> None:
    model = (samples / "vgg_shapes.h5", "-l", "predictions", samples / "images")
    for shard in (1, 2):
        assert (
            command("extract", *model, "--shard", f"{shard}/2", "-o", f"s3://bucket/part{shard}.h5").code == 0
        )
    parts = ["s3://bucket/part1.h5", "s3://bucket/part2.h5"]
    ended = command("merge", "s3://bucket/all.h5", *parts)
    assert (ended.code, ended.err) == (0, "layerprobe: 12 rows of 2 parts -> s3://bucket/all.h5\n")
    command("extract", *model, "-o", tmp_path / "whole.h5")
    same("s3://bucket/all.h5", tmp_path / "whole.h5")
    assert command("merge", "s3://bucket/all.h5", *parts).code == 73
    assert command("merge", "s3://bucket/virtual.h5", *parts, "--virtual").code == 2
    assert command("stats", *parts, "--json").out == command("stats", tmp_path / "whole.h5", "--json").out


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("https://127.0.0.1:1/x.npz", 2),
        ("s3://bucket/x.txt", 2),
        ("s3://me:very-secret@bucket/x.npz", 2),
        ("s3://nobucket/x.npz", 73),
    ],
)
def test_where_nothing_can_be_written_is_said_in_a_sentence(
    command: Command, s3: Served, arguments: list[str], output: str, code: int
) -> None:
    ended = command("extract", *arguments, "-o", output, "-q")
    assert ended.code == code, ended.err
    assert ended.err.startswith("layerprobe: ")
    assert ended.err.count("\n") == 1, "it was told before anything was computed"
    assert "very-secret" not in ended.err


def test_what_is_no_output_in_a_store_is_said(command: Command, s3: Served) -> None:
    fsspec.filesystem("memory").pipe_file("/x.npz", b"nothing")
    for path, code in (("memory://x.npz", 65), ("memory://neither", 66), ("s3://bucket/none.h5", 66)):
        ended = command("info", path)
        # A busy machine's server may have to be asked again, and that is said.
        told = [line for line in ended.err.splitlines() if "again" not in line]
        assert (ended.code, len(told)) == (code, 1), ended.err


def test_a_scratch_place_of_somebody_else_is_refused(
    command: Command, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "scratch" / f"layerprobe-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    ended = command("extract", *arguments, "-o", "memory://x.npz")
    assert (ended.code, "set TMPDIR" in ended.err) == (73, True)
