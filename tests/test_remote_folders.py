"""Zarr groups and folders in object stores: no output before they are whole, nothing of others in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import store_servers
import xarray
import zarr
from store_servers import Served
from stored_outputs import same, waiting
from zarr.core.sync import sync
from zarr.storage import FsspecStore

import layerprobe
from layerprobe.formats import zarr_group

pytestmark = pytest.mark.usefixtures("scratch")

Command = Callable[..., Any]


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


@contextmanager
def of_zarr(url: str) -> Iterator[FsspecStore]:
    """What zarr-python itself makes of a URL. Its connections are closed here: it leaves them to be found."""
    theirs = FsspecStore.from_url(url, read_only=True)
    yield theirs

    async def close() -> None:
        await (await theirs.fs.set_session()).close()

    sync(close())


def test_zarr_and_xarray_open_a_group_in_a_store(
    command: Command, tmp_path: Path, s3: Served, arguments: list[str]
) -> None:
    there = "s3://bucket/theirs/out.zarr"
    assert command("extract", *arguments, "-o", there).code == 3
    with layerprobe.open(there) as found:
        kept = {name: np.asarray(found[name]) for name in found}
    with of_zarr(there) as theirs:
        group = zarr.open_group(theirs, mode="r")
        np.testing.assert_array_equal(group["conv5_3"][:], kept["conv5_3"])
        with xarray.open_zarr(theirs, chunks=None) as seen:
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
