"""Zarr groups, as zarr-python and xarray read them, and what is left of one that is interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from output_samples import (
    FAILURES,
    LAYERS,
    PATHS,
    PROVENANCE,
    ROWS,
    assert_holds,
    sample_values,
    write_output,
)

from layerprobe.errors import OutputError, OutputFormatError, ResumeError, UsageError, WriteError
from layerprobe.formats import zarr_group
from layerprobe.formats.opening import open_output
from layerprobe.formats.placement import check_target
from layerprobe.formats.places import PlacedRows
from layerprobe.formats.zarr import ZarrWriter
from layerprobe.formats.zarr_group import dimension_names, rows_per_chunk, rows_per_shard
from layerprobe.options import ExtractOptions
from layerprobe.records import TensorSpec
from layerprobe.run.plan import check_pipe, choose_output
from layerprobe.verification import verify

SPEC = TensorSpec("x", (3,), "float32")
LEGIBLE = [path.replace("\udcff\udc80", "\ufffd\ufffd") for path in PATHS]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two rows."""
    monkeypatch.setattr(zarr_group, "MOST_ROWS", 2)


def blocks_of(values: Any, *starts: int, size: int = 3) -> list[tuple[int, dict[str, Any]]]:
    return [(start, {"x": values[start : start + size]}) for start in starts]


@pytest.mark.usefixtures("small_shards")
def test_zarr_reads_every_array(tmp_path: Path) -> None:
    values = write_output(ZarrWriter, tmp_path / "out.zarr")
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    for spec in LAYERS:
        stored = spec.name.replace("/", "%2F") or "%"
        np.testing.assert_array_equal(group[stored][:], values[spec.name])
        assert group[stored].dtype == values[spec.name].dtype
        assert group[stored].shards[0] == 2
        assert json.loads(str(group[stored].attrs["layer"])) == spec.name
    assert group["paths"][:].tolist() == LEGIBLE
    assert group["status"][:].tolist() == ["failed" if row in FAILURES else "ok" for row in range(ROWS)]
    assert group["error"][:].tolist() == [FAILURES.get(row, "") for row in range(ROWS)]
    assert json.loads(str(group.attrs["layerprobe"]))["model"] == PROVENANCE.model
    assert np.isnan(group["conv5_3"].fill_value)


@pytest.mark.usefixtures("small_shards")
def test_xarray_opens_it_with_paths_and_status_as_coordinates(tmp_path: Path) -> None:
    values = write_output(ZarrWriter, tmp_path / "out.zarr")
    with xarray.open_zarr(tmp_path / "out.zarr", chunks=None) as found:
        assert found["conv5_3"].dims == ("row", "y", "x", "channel_8")
        assert found["backbone%2Fconv1"].dims == ("row", "channel_5")
        assert set(found.coords) == {"paths", "status", "error"}
        good = found.where(found.status == "ok", drop=True)["conv5_3"]
        np.testing.assert_array_equal(
            good, values["conv5_3"][[row for row in range(ROWS) if row not in FAILURES]]
        )
        assert found.paths.values.tolist() == LEGIBLE


def test_axes_are_called_alike_only_where_they_are_equally_long() -> None:
    specs = [
        TensorSpec("a", (14, 14, 512), "float32"),
        TensorSpec("b", (512,), "float32"),
        TensorSpec("c", (3, 14, 14), "float32", channel_axis=0),
        TensorSpec("d", (9, 512), "float32"),
        TensorSpec("e", (), "float32"),
        TensorSpec("f", (1, 2, 3, 4, 5), "float32"),
    ]
    assert dimension_names(specs) == [
        ["row", "y", "x", "channel_512"],
        ["row", "channel_512"],
        ["row", "channel_3", "y", "x"],
        ["row", "step", "channel_512"],
        ["row"],
        ["row", "axis0", "axis1", "axis2", "axis3", "axis4"],
    ]
    assert dimension_names(specs[:2]) == [["row", "y", "x", "channel"], ["row", "channel"]]


def test_shards_and_chunks_are_chosen_by_bytes() -> None:
    def sizes(*shapes: tuple[int, ...], rows: int = 10**6) -> list[int]:
        from layerprobe.formats.rows import stored_layers
        from layerprobe.formats.schema import ZARR_NAMES

        specs = [TensorSpec(str(place), shape, "float32") for place, shape in enumerate(shapes)]
        layers = stored_layers(specs, rows, ZARR_NAMES)
        shard = rows_per_shard(layers)
        assert shard * sum(layer.row_bytes for layer in layers) <= 2**25 or shard == 1
        return [shard, *(rows_per_chunk(layer, shard) for layer in layers)]

    assert sizes((14, 14, 512)) == [64, 2]
    assert sizes((512,)) == [1024, 512]
    assert sizes((16,)) == [16384, 16384]
    assert sizes((14, 14, 512), (512,)) == [64, 2, 64]
    assert sizes((224, 224, 64)) == [2, 1]
    assert sizes((4096, 4096)) == [1, 1]
    assert sizes((512,), rows=12) == [16, 16]
    assert sizes((0,)) == [16384, 16384]


@pytest.mark.usefixtures("small_shards")
def test_rows_wait_only_until_their_shard_is_complete(tmp_path: Path) -> None:
    values = np.arange(30, dtype="f4").reshape(10, 3)
    writer = ZarrWriter(str(tmp_path / "out.zarr"), [SPEC], list("abcdefghij"))
    unfinished = tmp_path / ".out.zarr.unfinished"
    for start, block in blocks_of(values, 0, 3, 6):
        writer.write(start, block)
    assert sorted(os.listdir(unfinished)) == [".rows-4", "x"]
    assert sorted(os.listdir(unfinished / "x")) == ["c.0.0", "c.1.0", "c.2.0", "c.3.0"]
    with pytest.raises(OutputFormatError):
        open_output(unfinished)
    writer.write(9, {"x": values[9:]})
    writer.commit({}, PROVENANCE)
    assert_holds(tmp_path / "out.zarr", {"x": values})


@pytest.mark.usefixtures("small_shards")
def test_rows_of_a_complete_shard_can_be_written_anew_by_a_later_run(tmp_path: Path) -> None:
    values = np.arange(30, dtype="f4").reshape(10, 3)
    path, keys = str(tmp_path / "out.zarr"), list("abcdefghij")
    writer = ZarrWriter(path, [SPEC], keys)
    blocks = [writer.write(start, block) for start, block in blocks_of(values, 0, 3, 6)]
    writer.sync()
    writer.suspend()
    # An image of rows 3 to 5 was changed: they share shards with rows that were not.
    again = ZarrWriter(path, [SPEC], keys, writer.layout)
    again.adopt(blocks[0])
    again.adopt(blocks[2])
    values[3:6] += 100
    placed = PlacedRows(again.places)  # as another process does
    again.adopt(placed.write(3, {"x": values[3:6]}))
    again.write(9, {"x": values[9:]})
    again.commit({}, PROVENANCE)
    assert_holds(tmp_path / "out.zarr", {"x": values})


@pytest.mark.usefixtures("small_shards")
def test_a_process_that_was_given_up_cannot_bring_back_the_file_of_a_complete_shard(tmp_path: Path) -> None:
    values = np.arange(12, dtype="f4").reshape(4, 3) + 1
    writer = ZarrWriter(str(tmp_path / "out.zarr"), [SPEC], list("abcd"))
    late, other = PlacedRows(writer.places), PlacedRows(writer.places)
    block = other.write(0, {"x": values[:2]})
    writer.adopt(block)
    # With the shard's last row the file would be as long as one with all rows.
    with pytest.raises(WriteError, match="No such file"):
        late.write(1, {"x": values[1:2]})
    writer.sync()
    writer.suspend()
    again = ZarrWriter(str(tmp_path / "out.zarr"), [SPEC], list("abcd"), writer.layout)
    again.adopt(block)
    again.adopt(PlacedRows(again.places).write(2, {"x": values[2:]}))
    again.commit({}, PROVENANCE)
    assert_holds(tmp_path / "out.zarr", {"x": values})


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("lost", [".rows-4", "x/c.1.0"])
def test_rows_that_are_gone_are_noticed_when_a_run_goes_on(tmp_path: Path, lost: str) -> None:
    values = np.arange(30, dtype="f4").reshape(10, 3)
    writer = ZarrWriter(str(tmp_path / "out.zarr"), [SPEC], list("abcdefghij"))
    blocks = [writer.write(start, block) for start, block in blocks_of(values, 0, 3, 6)]
    writer.suspend()
    (tmp_path / ".out.zarr.unfinished" / lost).unlink()
    again = ZarrWriter(str(tmp_path / "out.zarr"), [SPEC], list("abcdefghij"), writer.layout)
    with pytest.raises(ResumeError, match="is damaged, rows of it are gone"):  # noqa: PT012
        for block in blocks:
            again.adopt(block)
        again.write(9, {"x": values[9:]})
    again.suspend()


def test_a_shard_that_is_missing_or_empty_is_not_taken_for_fill_values(tmp_path: Path) -> None:
    values = write_output(ZarrWriter, tmp_path / "out.zarr")
    shard = tmp_path / "out.zarr" / "conv5_3" / "c.0.0.0.0"
    content = shard.read_bytes()
    for damage in (shard.unlink, lambda: shard.write_bytes(b"")):
        damage()
        with open_output(tmp_path / "out.zarr") as reader:
            np.testing.assert_array_equal(reader["count"], values["count"])
            with pytest.raises(OutputFormatError, match="'conv5_3/c.0.0.0.0' is not there"):
                np.asarray(reader["conv5_3"])
        assert any("conv5_3/c.0.0.0.0" in problem for problem in verify(tmp_path / "out.zarr").problems)
        shard.write_bytes(content)


def test_values_that_are_all_fill_values_are_stored_all_the_same(tmp_path: Path) -> None:
    specs = [TensorSpec("zeros", (2,), "int32"), TensorSpec("nan", (2,), "float32")]
    writer = ZarrWriter(str(tmp_path / "out.zarr"), specs, ["a", "b"])
    writer.write(0, {"zeros": np.zeros((2, 2), "i4"), "nan": np.full((2, 2), np.nan, "f4")})
    writer.commit({}, PROVENANCE)
    assert (tmp_path / "out.zarr" / "zeros" / "c.0.0").stat().st_size
    assert (tmp_path / "out.zarr" / "nan" / "c.0.0").stat().st_size


def test_only_a_group_that_layerprobe_wrote_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write_output(ZarrWriter, out)
    check_target(str(out), "zarr", overwrite=True)
    for name in ("notes.txt", "conv5_3/mine.txt", "mine/c.0"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("precious")
        with pytest.raises(OutputError, match=f"'{name}' in it is not layerprobe's"):
            check_target(str(out), "zarr", overwrite=True)
        (out / name).unlink()
    zarr.create_group(tmp_path / "theirs.zarr")
    for name in ("theirs.zarr", "here.zarr"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "x").write_text("precious")
        with pytest.raises(OutputError, match="was not written by layerprobe"):
            check_target(str(tmp_path / name), "zarr", overwrite=True)


def test_a_group_of_another_program_is_refused(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "out.zarr")
    group.create_array("x", data=np.zeros(3))
    with pytest.raises(OutputFormatError, match="was not written by layerprobe, or is damaged"):
        open_output(tmp_path / "out.zarr")


def test_the_suffix_says_it_with_a_slash_behind_it_too_and_no_pipe_takes_it() -> None:
    assert choose_output("a/out.zarr/", ["x.png"]) == ("a/out.zarr", "zarr")
    assert choose_output("a/out.v1/", ["x.png"]) == ("a/out.v1", "npy")
    with pytest.raises(UsageError, match="zarr is a folder, which a pipe is not"):
        check_pipe("zarr", ExtractOptions())


def test_values_may_be_complex_and_rows_empty(tmp_path: Path) -> None:
    specs = [TensorSpec("fft", (2,), "complex64"), TensorSpec("none", (0,), "float32")]
    writer = ZarrWriter(str(tmp_path / "out.zarr"), specs, ["a", "b"])
    values = {
        "fft": sample_values()["conv5_3"][:2, 0, 0, :4].copy().view("c8"),
        "none": np.zeros((2, 0), "f4"),
    }
    writer.write(0, values)
    writer.commit({}, PROVENANCE)
    assert_holds(tmp_path / "out.zarr", values)
