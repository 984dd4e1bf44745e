"""Outputs in object stores: brought there whole or not at all, never computed twice, read where they are."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import store_servers
import xarray
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from store_servers import Served

import layerprobe
from layerprobe.formats import zarr_group
from layerprobe.stores import attempts, store, upload

Command = Callable[..., Any]
FORMATS = ["x.npz", "x.h5", "x.safetensors", "x.parquet", "x.zarr", "x.jsonl", "x.tar", "folder"]


class Corrupting(MemoryFileSystem):
    """Changes the last byte of what it is given."""

    protocol = "corrupting"

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        data = Path(lpath).read_bytes()
        self.pipe_file(rpath, data[:-1] + bytes([data[-1] ^ 1]))


fsspec.register_implementation("corrupting", Corrupting, clobber=True)


@pytest.fixture(scope="module")
def s3() -> Iterator[Served]:
    import boto3
    from s3fs import S3FileSystem

    with store_servers.s3() as served, pytest.MonkeyPatch.context() as patch:
        for name, value in store_servers.s3_environment(served).items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        store._store.cache_clear()
        boto3.client("s3", endpoint_url=served.url).create_bucket(Bucket="bucket")
        yield served


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE", 0.005)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    attempts.repeated_requests()


@pytest.fixture
def arguments(samples: Path, tmp_path: Path) -> list[str]:
    """A run of a few rows, one of them broken."""
    (tmp_path / "broken.png").write_text("no image")
    images = [samples / "images" / name for name in ("star_09.png", "ring_05.png", "cross_03.png")]
    images.insert(1, tmp_path / "broken.png")
    return [str(samples / "vgg_shapes.h5"), "-l", "conv5_3", "-l", "predictions", *map(str, images)]


def waiting(tmp_path: Path) -> list[str]:
    """What is in the scratch place."""
    return sorted(path.name for path in (tmp_path / "scratch").rglob("*") if path.is_file())


def same(one: str | Path, other: str | Path) -> None:
    with layerprobe.open(one) as first, layerprobe.open(other) as second:
        assert list(first) == list(second)
        assert (first.paths, first.status, first.error) == (second.paths, second.status, second.error)
        for name in first:
            np.testing.assert_array_equal(np.asarray(first[name]), np.asarray(second[name]))
            np.testing.assert_array_equal(first[name][1:3], second[name][1:3])
            np.testing.assert_array_equal(first[name][-1], second[name][-1])


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


@pytest.mark.parametrize("name", ["later.zarr", "later"])
def test_a_folder_of_which_a_part_came_to_the_store_is_no_output_and_is_gone_on_with(
    command: Command, tmp_path: Path, s3: Served, arguments: list[str], name: str
) -> None:
    there, here = f"s3://bucket/{name}", tmp_path / name
    command("extract", *arguments, "-o", here)
    last = "zarr.json" if name.endswith(".zarr") else "provenance.json"
    s3.faults = lambda method, path, _: "403" if method == "PUT" and path.endswith(f"{name}/{last}") else None
    try:
        assert command("extract", *arguments, "-o", there).code == 77
    finally:
        s3.faults = store_servers.no_faults
    with pytest.raises(layerprobe.LayerprobeError, match="is not complete"):
        layerprobe.open(there)
    before = s3.requests["PUT"]
    ended = command("extract", *arguments, "-o", there, "--resume")
    assert (ended.code, "nothing to do" in ended.err) == (3, True)
    assert s3.requests["PUT"] == before + 2, "what was there already is not sent again"
    same(here, there)
    assert command("verify", there).code == 0
    assert not waiting(tmp_path)


def test_a_part_of_a_folder_whose_run_is_lost_is_replaced_without_being_asked(
    command: Command, arguments: list[str]
) -> None:
    there = "memory://lost.zarr"
    fsspec.filesystem("memory").pipe({"/lost.zarr/.unfinished": b"", "/lost.zarr/conv5_3/c.7.0.0.0": b"old"})
    assert command("extract", *arguments, "-o", there, "--resume").code == 3
    assert command("verify", there).code == 0


@pytest.mark.parametrize(
    "theirs", ["zarr.json", "mine/zarr.json", "conv5_3/mine.txt", "notes.txt", "folder.zarr/zarr.json"]
)
def test_a_group_with_what_is_not_layerprobes_is_not_replaced_and_nothing_is_computed_for_it(
    command: Command, arguments: list[str], theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, memory = "memory://theirs.zarr", fsspec.filesystem("memory")
    assert command("extract", *arguments, "-o", there, "--overwrite").code == 3
    memory.pipe_file(f"/theirs.zarr/{theirs}", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    before = {name: memory.cat_file(name) for name in memory.find("/theirs.zarr")}
    monkeypatch.setattr("layerprobe.run.loop.Run.blocks", lambda *_: pytest.fail("it was computed"))
    ended = command("extract", *arguments, "-o", there, "--overwrite")
    assert (ended.code, "not replaced" in ended.err) == (73, True)
    assert {name: memory.cat_file(name) for name in memory.find("/theirs.zarr")} == before
    memory.rm("/theirs.zarr", recursive=True)


def test_a_group_that_is_replaced_by_a_smaller_one_leaves_nothing(
    command: Command, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = "memory://smaller.zarr"
    monkeypatch.setattr(zarr_group, "MOST_ROWS", 1)
    assert command("extract", *arguments, "-o", there).code == 3
    assert (
        command("extract", *arguments[:1], *arguments[3:-1], "-o", there, "--overwrite", "--restart").code
        == 3
    )
    assert command("verify", there).code == 0
    with layerprobe.open(there) as found:
        assert (list(found), len(found.paths)) == (["predictions"], 3)


def test_zarr_and_xarray_open_a_group_in_a_store(
    command: Command, tmp_path: Path, s3: Served, arguments: list[str]
) -> None:
    there = "s3://bucket/theirs/out.zarr"
    assert command("extract", *arguments, "-o", there).code == 3
    with layerprobe.open(there) as found:
        kept = {name: np.asarray(found[name]) for name in found}
    group = zarr.open_group(there, mode="r")
    np.testing.assert_array_equal(group["conv5_3"][:], kept["conv5_3"])
    with xarray.open_zarr(there, chunks=None) as seen:
        np.testing.assert_array_equal(seen["predictions"].values, kept["predictions"])
        assert seen.status.values.tolist() == ["ok", "failed", "ok", "ok"]


def test_a_shard_that_is_missing_in_a_store_is_not_taken_for_fill_values(
    command: Command, arguments: list[str]
) -> None:
    assert command("extract", *arguments, "-o", "memory://lacking.zarr").code == 3
    memory = fsspec.filesystem("memory")
    with layerprobe.open("memory://lacking.zarr") as opened:
        memory.rm("/lacking.zarr/conv5_3/c.0.0.0.0")
        with pytest.raises(layerprobe.LayerprobeError, match=r"conv5_3/c.0.0.0.0' cannot be read"):
            np.asarray(opened["conv5_3"])
    with (
        layerprobe.open("memory://lacking.zarr") as found,
        pytest.raises(layerprobe.LayerprobeError, match="'conv5_3/c.0.0.0.0' is not there"),
    ):
        np.asarray(found["conv5_3"])
    assert command("verify", "memory://lacking.zarr").code != 0


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
