"""`merge --virtual`: one HDF5 file that refers to its parts, for h5py and for `layerprobe.open`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_model import BROKEN, ROWS, contents, extract, use_made_up_model, write_inputs

import layerprobe
from layerprobe.errors import OutputFormatError, UsageError
from layerprobe.formats.joined import JoinedRows
from layerprobe.formats.opening import open_output
from layerprobe.verification import verify

LAYERS = {"vector": "vector", "block/map": "block%2Fmap", "count": "count"}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_made_up_model(monkeypatch)
    return write_inputs(tmp_path / "images")


@pytest.fixture
def parts(inputs: list[str], tmp_path: Path) -> list[Path]:
    """In another folder, under names that HDF5 and file systems have their own ideas about."""
    folder = tmp_path / "parts %b"
    folder.mkdir()
    paths = [folder / f"p%b{i}%%é.h5" for i in range(1, 5)]
    for number, path in enumerate(paths, 1):
        extract(inputs, path, batch_size=3, shard=f"{number}/4")
    return paths


@pytest.fixture
def merged(parts: list[Path], tmp_path: Path) -> Path:
    report = layerprobe.merge(tmp_path / "merged.h5", parts, virtual=True)
    assert (report.rows, report.failed, report.virtual) == (ROWS, len(BROKEN), True)
    return tmp_path / "merged.h5"


@pytest.fixture
def whole(inputs: list[str], tmp_path: Path) -> Path:
    extract(inputs, tmp_path / "whole.h5", batch_size=3)
    return tmp_path / "whole.h5"


def test_it_holds_what_a_run_without_shards_writes(merged: Path, whole: Path) -> None:
    assert contents(merged) == contents(whole)
    found = verify(merged)
    assert (found.rows, found.failed, found.problems) == (ROWS, len(BROKEN), ())
    assert found.checksums == verify(whole).checksums


def test_parts_may_be_urls_of_files_here_and_of_no_store(
    parts: list[Path], whole: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    layerprobe.merge(tmp_path / "out.h5", [f"file://{part}" for part in parts], virtual=True)
    assert contents(tmp_path / "out.h5") == contents(whole)
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.provenance["run"]["parts"][3]["path"] == "parts %b/p%b4%%é.h5"
    for far in ("https://me:geheim@127.0.0.1:1/p4.h5", "memory://p4.h5"):
        ended = command("merge", tmp_path / "far.h5", "--virtual", *parts[:3], far)
        assert (ended.code, "leave --virtual out" in ended.err, "geheim" in ended.err) == (2, True, False)
        assert not (tmp_path / "far.h5").exists()


def test_h5py_reads_it_from_any_folder(merged: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with h5py.File(merged) as found, h5py.File(whole) as wanted:
        for stored in LAYERS.values():
            assert found[stored].is_virtual
            assert found[stored].attrs["layer"] == wanted[stored].attrs["layer"]
            assert found[stored].dtype == wanted[stored].dtype
            assert found[stored][:].tobytes() == wanted[stored][:].tobytes()
        assert set(found) == set(wanted)


def test_it_is_small_and_moves_with_its_parts(
    merged: Path, parts: list[Path], whole: Path, tmp_path: Path
) -> None:
    assert merged.stat().st_size < 25_000 < whole.stat().st_size
    (tmp_path / "elsewhere").mkdir()
    shutil.move(parts[0].parent, tmp_path / "elsewhere" / parts[0].parent.name)
    shutil.move(merged, tmp_path / "elsewhere" / "renamed.h5")
    assert contents(tmp_path / "elsewhere" / "renamed.h5") == contents(whole)
    (tmp_path / "link.h5").symlink_to(tmp_path / "elsewhere" / "renamed.h5")
    assert contents(tmp_path / "link.h5") == contents(whole)


def test_a_part_that_is_gone_or_another_is_named(merged: Path, parts: list[Path], inputs: list[str]) -> None:
    parts[1].rename(parts[1].with_suffix(".moved"))
    with open_output(merged) as reader:
        assert reader["count"][:9].tolist()
        with pytest.raises(OutputFormatError, match=r"p%b2%%é.h5' cannot be read: it is not there"):
            reader["count"][:]
    with h5py.File(merged) as file:
        assert np.isnan(file["vector"][12:24]).all()
        assert not np.isnan(file["vector"][24:31]).any()
    extract(inputs, parts[1], batch_size=3, shard="2/4")
    with (
        open_output(merged) as reader,
        pytest.raises(OutputFormatError, match="another one is there by now; bring it back, or merge"),
    ):
        np.asarray(reader["vector"])
    parts[1].write_bytes(b"nothing")
    assert any("p%b2" in problem for problem in verify(merged).problems)


def test_only_hdf5_refers_and_only_to_rows_of_its_own(
    merged: Path, parts: list[Path], inputs: list[str], tmp_path: Path
) -> None:
    extract(inputs, tmp_path / "p2.npz", batch_size=3, shard="2/4")
    for output, some in (
        ("out.npz", parts),
        ("out", parts),
        ("out.h5", [parts[0], tmp_path / "p2.npz", *parts[2:]]),
        ("out.h5", [merged]),
    ):
        with pytest.raises(UsageError, match="only HDF5 files can refer to others"):
            layerprobe.merge(tmp_path / output, some, virtual=True)
        assert not (tmp_path / output).exists()


def test_a_virtual_output_can_be_made_a_real_one(merged: Path, whole: Path, tmp_path: Path) -> None:
    layerprobe.merge(tmp_path / "real.npz", [merged])
    assert contents(tmp_path / "real.npz") == contents(whole)


def test_a_file_that_refers_to_itself_is_refused(merged: Path, parts: list[Path]) -> None:
    for part in parts:
        os.replace(shutil.copy(merged, part.with_suffix(".copy")), part)
    with open_output(merged) as reader, pytest.raises(OutputFormatError, match="another one is there by now"):
        reader["vector"][:]


def test_the_command_says_that_the_parts_are_needed(
    parts: list[Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    done = command("merge", "--virtual", tmp_path / "out.h5", *parts)
    assert done.code == 0
    assert done.err.splitlines() == [
        "layerprobe: the rows are in the parts, not in the output: keep the parts where they are",
        f"layerprobe: 50 rows, 3 failed, of 4 parts -> {tmp_path / 'out.h5'}",
    ]
    assert "50 rows (47 ok, 3 failed)" in command("info", tmp_path / "out.h5").out
    stats = command("stats", "--json", tmp_path / "out.h5")
    layerprobe.merge(tmp_path / "real.h5", parts)
    assert stats.out == command("stats", "--json", tmp_path / "real.h5").out


INDICES = st.one_of(
    st.integers(-12, 11),
    st.slices(12),
    st.lists(st.integers(-12, 11), max_size=5),
    st.lists(st.booleans(), min_size=12, max_size=12).map(np.array),
    st.tuples(st.slices(12), st.integers(0, 2)),
    st.tuples(st.integers(0, 11), st.slices(3)),
    st.just(Ellipsis),
    st.just((slice(None), None)),
)


@given(INDICES, st.sets(st.integers(1, 11), max_size=4))
def test_joined_rows_are_indexed_as_numpy_does(index: Any, cuts: set[int]) -> None:
    rows = np.arange(36.0).reshape(12, 3)
    starts = [0, *sorted(cuts)]
    pieces = np.split(rows, starts[1:])
    joined = JoinedRows(rows.shape, rows.dtype, starts, pieces.__getitem__)
    found, wanted = joined[index], rows[index]
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted)


def test_joined_rows_are_an_array_like() -> None:
    rows = np.arange(12, dtype="int32").reshape(6, 2)
    joined = JoinedRows(rows.shape, rows.dtype, [0, 4], [rows[:4], rows[4:]].__getitem__)
    assert (len(joined), joined.ndim, joined.size, joined.nbytes) == (6, 2, 12, 48)
    assert np.array_equal(np.asarray(joined, "float64"), rows.astype("float64"))
    assert np.array_equal(list(joined), rows)
    for beyond in (6, -7):
        with pytest.raises(IndexError):
            joined[beyond]
