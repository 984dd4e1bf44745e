"""`merge`: the whole is what one run writes, or every part at fault is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_servers
from fsspec.implementations.memory import MemoryFileSystem
from made_up_model import (
    BROKEN,
    FORMATS,
    ROWS,
    MadeUpModel,
    contents,
    extract,
    use_made_up_model,
    write_inputs,
)
from stored_outputs import same, waiting

import layerprobe
from layerprobe.errors import MergeError, NoInputError, OutputError, StoppedError, UsageError, WriteError
from layerprobe.formats import pending
from layerprobe.formats.opening import open_output
from layerprobe.sources.opening import open_source
from layerprobe.verification import verify

SHARDS = 8


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_made_up_model(monkeypatch)
    return write_inputs(tmp_path / "images")


@pytest.fixture
def parts(inputs: list[str], tmp_path: Path) -> list[Path]:
    """Eight of them, in every format."""
    (tmp_path / "parts").mkdir()
    suffixes = [Path(name).suffix for name in FORMATS.values()]
    paths = [tmp_path / "parts" / f"p{i}{suffixes[i % len(suffixes)]}" for i in range(1, SHARDS + 1)]
    for number, path in enumerate(paths, 1):
        extract(inputs, path, batch_size=3, shard=f"{number}/{SHARDS}")
    return paths


@pytest.fixture
def whole(inputs: list[str], tmp_path: Path) -> Path:
    extract(inputs, tmp_path / "whole.h5", batch_size=3)
    return tmp_path / "whole.h5"


@pytest.mark.parametrize("name", FORMATS.values())
def test_the_whole_is_bit_for_bit_what_a_run_without_shards_writes(
    parts: list[Path], whole: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerprobe.merging import merge

    monkeypatch.setattr(merge, "BLOCK_BYTES", 3000)
    seen: list[tuple[int, int, int]] = []
    order = [parts[i] for i in (3, 0, 7, 1, 2, 6, 5, 4)]
    report = layerprobe.merge(tmp_path / name, order, progress=lambda *numbers: seen.append(numbers))
    assert contents(tmp_path / name) == contents(whole)
    assert (report.rows, report.failed, report.parts) == (ROWS, len(BROKEN), tuple(map(str, parts)))
    assert seen[-1] == (ROWS, ROWS, len(BROKEN))
    assert len(seen) > SHARDS
    assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]


def test_the_whole_knows_what_it_is_and_of_what(parts: list[Path], whole: Path, tmp_path: Path) -> None:
    layerprobe.merge(tmp_path / "out.npz", parts)
    with open_output(tmp_path / "out.npz") as merged, open_output(whole) as single:
        found, wanted = merged.provenance, single.provenance
        assert found["run"]["signature"] == wanted["run"]["signature"]
        assert found["inputs"] == wanted["inputs"]
        assert found["layers"] == wanted["layers"]
        assert found["options"] == wanted["options"]
        assert [Path(part["path"]) for part in found["run"]["parts"]] == parts
    for part in found["run"]["parts"]:
        with open_output(part["path"]) as reader:
            assert reader.provenance["run"]["id"] == part["id"]
            assert len(reader.paths) == part["rows"][1] - part["rows"][0]


@pytest.mark.parametrize("suffix", [".h5", ".npz", "", ".jsonl", ".tar", ".safetensors", ".parquet", ".zarr"])
def test_every_format_can_be_a_part_and_the_whole_and_fields_are_kept(
    inputs: list[str], tmp_path: Path, suffix: str
) -> None:
    lines = [json.dumps({"path": path, "label": row, "ü": [row / 7]}) for row, path in enumerate(inputs)]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join(lines))

    def run(output: Path, **options: Any) -> Path:
        extract(open_source([], lists=[str(listed)]), output, batch_size=3, **options)
        return output

    whole = run(tmp_path / "whole.h5")
    endings = [".jsonl", ".tar", ".h5", "", ".npz", ".safetensors", ".parquet", ".zarr"]
    given = [run(tmp_path / f"p{i}{endings[i - 1]}", shard=f"{i}/8") for i in range(1, 9)]
    output = tmp_path / f"out{suffix}"
    report = layerprobe.merge(output, given)
    assert (report.rows, report.failed) == (ROWS, len(BROKEN))
    assert contents(output) == contents(whole)
    with open_output(output) as found, open_output(whole) as wanted:
        assert found.fields == wanted.fields
        assert found.fields is not None
        assert found.fields[3] == {"label": 3, "ü": [3 / 7]}
        assert found.provenance["run"]["signature"] == wanted.provenance["run"]["signature"]


def test_parts_of_a_web_server_are_told_and_stored_without_their_signatures(
    inputs: list[str], whole: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    names = ["p1.h5", "p2.h5"]
    for number, name in enumerate(names, 1):
        extract(inputs, tmp_path / name, batch_size=3, shard=f"{number}/2")
    with store_servers.web({name: (tmp_path / name).read_bytes() for name in names}) as served:
        given = [f"{served.url}/{name}?X-Amz-Signature=geheim" for name in names]
        told = [f"{served.url}/{name}?X-Amz-Signature=***" for name in names]
        report = layerprobe.merge(tmp_path / "out.npz", given)
        assert report.parts == tuple(told)
        with pytest.raises(MergeError, match="both in") as caught:
            layerprobe.merge(tmp_path / "twice.npz", [*given, given[0]])
        assert "geheim" not in str(caught.value)
        for arguments in (("info", given[0]), ("info", given[0], "--json"), ("verify", given[0], "--json")):
            ended = command(*arguments)
            assert (ended.code, told[0] in ended.out, "geheim" in ended.out) == (0, True, False)
    assert contents(tmp_path / "out.npz") == contents(whole)
    with open_output(tmp_path / "out.npz") as reader:
        assert [part["path"] for part in reader.provenance["run"]["parts"]] == told


def test_the_whole_of_an_upload_that_failed_is_merged_again_with_overwrite(
    parts: list[Path],
    whole: Path,
    tmp_path: Path,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    scratch: None,
) -> None:
    there = "memory://merged/again.h5"

    def broken(*_: object, **__: object) -> None:
        raise PermissionError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", broken)
        ended = command("merge", there, *parts)
    assert (ended.code, "waits there to be uploaded" in ended.err) == (77, True)
    ended = command("merge", there, *parts)
    assert (ended.code, "--resume" in ended.err, "--restart" in ended.err) == (73, False, False)
    assert "waits to be uploaded: give --overwrite to merge again" in ended.err
    assert command("merge", there, *parts, "--overwrite").code == 0
    assert not waiting(tmp_path)
    same(there, whole)
    assert command("merge", there, *parts).code == 73


def test_a_finished_whole_has_nothing_left_to_resume(
    inputs: list[str], parts: list[Path], tmp_path: Path
) -> None:
    layerprobe.merge(tmp_path / "out.h5", parts)
    report = extract(inputs, tmp_path / "out.h5", batch_size=3, resume=True)
    assert report.notes == ("it was finished already: there was nothing to do",)


def test_what_is_missing_twice_there_or_of_another_model_is_named(
    inputs: list[str], parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double, other = tmp_path / "double.h5", tmp_path / "other.npz"
    extract(inputs, double, batch_size=3, shard=f"3/{SHARDS}")
    monkeypatch.setattr(MadeUpModel, "sha256", "ab" * 32)
    extract(inputs, other, batch_size=3, shard=f"6/{SHARDS}")
    with pytest.raises(MergeError) as caught:
        # The stranger comes first: that does not make strangers of the others.
        layerprobe.merge(tmp_path / "out.h5", [other, *parts[:4], *parts[6:], double])
    said = str(caught.value)
    assert f"{str(other)!r} is of another run than {str(parts[0])!r}, for its model is {'ab' * 20}..." in said
    assert f"rows 12 to 17 of 50 (shard 3/8) are both in {str(parts[2])!r} and in {str(double)!r}" in said
    assert "rows 24 to 35 of 50 (shard 5/8, 6/8) are missing" in said
    assert said.count(";") == 2
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ([1], r"rows 0 to 5 of 50 \(shard 1/8\) are missing"),
        ([8], r"rows 42 to 49 of 50 \(shard 8/8\) are missing"),
        ([2, 3, 4], r"rows 6 to 23 of 50 \(shard 2/8, 3/8, 4/8\) are missing"),
        ([2, 4], r"rows 6 to 11 .*; rows 18 to 23 of 50 \(shard 4/8\) are missing"),
    ],
    ids=str,
)
def test_missing_shards_are_named(
    parts: list[Path], tmp_path: Path, left_out: list[int], message: str
) -> None:
    given = [path for number, path in enumerate(parts, 1) if number not in left_out]
    with pytest.raises(MergeError, match=message):
        layerprobe.merge(tmp_path / "out.h5", given)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dtype": "float16"}, "shapes is float16"),
        ({"layers": ["vector"]}, "layers is vector"),
        ({"pool": "gap"}, "shapes is"),
        ({"preprocess": "unit"}, "preprocessing preset is unit"),
        ({"batch_size": 6}, "batch size is 6"),
        ({"limit": ROWS - 1}, "number of inputs is 49"),
    ],
    ids=str,
)
def test_parts_of_other_runs_are_named(
    inputs: list[str], parts: list[Path], tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    extract(inputs, tmp_path / "other.npz", **{"batch_size": 3, "shard": "2/8"} | change)
    with pytest.raises(MergeError, match=f"other.npz' is of another run than .*, for its {named}"):
        layerprobe.merge(tmp_path / "out.h5", [parts[0], tmp_path / "other.npz", *parts[2:]])


def test_parts_of_different_splits_can_be_one_whole(inputs: list[str], whole: Path, tmp_path: Path) -> None:
    given = []
    for shard in ("1/2", "3/4", "4/4"):
        given.append(tmp_path / f"{shard.replace('/', '-')}.npz")
        extract(inputs, given[-1], batch_size=3, shard=shard)
    layerprobe.merge(tmp_path / "out.h5", given)
    assert contents(tmp_path / "out.h5") == contents(whole)


def test_a_part_that_is_unfinished_says_how_to_finish_it(
    inputs: list[str], parts: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        extract(inputs, parts[4], batch_size=3, shard="5/8", overwrite=True, restart=True, stop=lambda: True)
    shutil.rmtree(parts[4]) if parts[4].is_dir() else parts[4].unlink()
    with pytest.raises(MergeError, match=r"p5.* is unfinished: run its command again with --resume"):
        layerprobe.merge(tmp_path / "out.h5", parts)


@pytest.mark.parametrize("name", FORMATS.values())
def test_a_failed_merge_leaves_what_was_there(
    parts: list[Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layerprobe.merge(tmp_path / name, parts)
    before = contents(tmp_path / name)
    with pytest.raises(OutputError, match="exists: give --overwrite"):
        layerprobe.merge(tmp_path / name, parts)
    calls = iter(range(12))

    def full(descriptor: int, offset: int, data: bytes) -> None:
        if next(calls, None) is None:
            raise OSError(28, "No space left on device")
        os.pwrite(descriptor, data, offset)

    monkeypatch.setattr(pending, "write_all", full)
    with pytest.raises(WriteError, match="no space is left"):
        layerprobe.merge(tmp_path / name, parts, overwrite=True)
    assert contents(tmp_path / name) == before
    assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]


@pytest.mark.parametrize("damaged", [0, 1, 2], ids=["hdf5", "npy", "npz"])
def test_a_part_that_is_no_longer_what_was_written_is_named(
    parts: list[Path], tmp_path: Path, damaged: int
) -> None:
    part = parts[damaged]
    with open_output(part) as reader:
        value = np.asarray(reader["block/map"])[4].tobytes()
    file = part / "block%2Fmap.npy" if part.is_dir() else part
    data = file.read_bytes()
    assert data.count(value) == 1
    file.write_bytes(data.replace(value, value[::-1]))
    message = rf"part {str(part)!r} is damaged, its rows 3 to 5 are not what was written"
    with pytest.raises(MergeError, match=message):
        layerprobe.merge(tmp_path / "out.h5", parts)
    assert not (tmp_path / "out.h5").exists()


def test_the_whole_can_be_verified(parts: list[Path], tmp_path: Path) -> None:
    layerprobe.merge(tmp_path / "out.h5", parts)
    found = verify(tmp_path / "out.h5")
    assert (found.rows, found.failed, found.problems) == (ROWS, len(BROKEN), ())
    assert found.checksums > SHARDS


def test_parts_are_no_output(parts: list[Path]) -> None:
    with pytest.raises(OutputError, match="is one of the inputs"):
        layerprobe.merge(parts[0], parts, overwrite=True)


def test_an_unfinished_run_of_that_name_is_left_alone(
    inputs: list[str], parts: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        extract(inputs, tmp_path / "out.h5", batch_size=3, stop=lambda: True)
    left = sorted(os.listdir(tmp_path))
    with pytest.raises(OutputError, match="unfinished run"):
        layerprobe.merge(tmp_path / "out.h5", parts)
    assert sorted(os.listdir(tmp_path)) == left


def test_what_is_no_part_is_refused(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one part"):
        layerprobe.merge(tmp_path / "out.h5", [])
    with pytest.raises(NoInputError, match=r"no file or folder .*gone.h5"):
        layerprobe.merge(tmp_path / "out.h5", [*parts, tmp_path / "gone.h5"])


def test_the_command_merges_and_tells_faults_with_exit_code_65(
    parts: list[Path], whole: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    done = command("merge", tmp_path / "out.npz", *parts)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"layerprobe: 50 rows, 3 failed, of 8 parts -> {tmp_path / 'out.npz'}\n"
    with np.load(tmp_path / "out.npz") as found, open_output(whole) as reader:
        assert np.array_equal(found["count"], reader["count"])
    failed = command("merge", tmp_path / "out2.npz", *parts[1:])
    assert failed.code == 65
    assert failed.err.endswith("do not make one whole: rows 0 to 5 of 50 (shard 1/8) are missing.\n")
    assert command("info", parts[1]).out.splitlines()[1] == "shard          2/8, rows 6 to 11 of 50"
