"""Shards: every row in one of them, as many in each as in the others, and no argument between tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_model import BROKEN, ROWS, MadeUpModel, contents, extract, use_made_up_model, write_inputs

from layerprobe.errors import NoInputError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.run.shards import Shard, parse_shard, rows_of


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_made_up_model(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return write_inputs(tmp_path / "images")


@given(st.integers(1, 10_000), st.integers(1, 64), st.data())
def test_shards_are_disjoint_whole_and_balanced(rows: int, batch_size: int, data: st.DataObject) -> None:
    batches = -(-rows // batch_size)
    count = data.draw(st.integers(1, min(batches, 300)))
    places = [rows_of(Shard(number, count), rows, batch_size) for number in range(1, count + 1)]
    assert [row for place in places for row in place] == list(range(rows))
    assert all(place.start % batch_size == 0 for place in places)
    held = [-(-len(place) // batch_size) for place in places]
    assert max(held) - min(held) <= 1
    assert min(held) == batches // count


def test_a_shard_without_a_batch_is_told_how_many_shards_make_sense() -> None:
    with pytest.raises(NoInputError, match=r"shard 1/3 has nothing to do.*2 batches of 6: use at most 2"):
        rows_of(Shard(1, 3), 12, 6)


@pytest.mark.parametrize(
    "text", ["", "0/8", "9/8", "1/0", "1", "1/", "/8", "-1/8", "1/8/8", "½/8", "a/b", "1 /8"]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard must be I/N with I from 1 to N"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"ID": 0, "COUNT": 8, "MIN": 0, "STEP": 1}, "1/8"),
        ({"ID": 7, "COUNT": 8, "MIN": 0, "STEP": 1}, "8/8"),
        ({"ID": 8, "COUNT": 8, "MIN": 1, "STEP": 1}, "8/8"),
        ({"ID": 30, "COUNT": 4, "MIN": 0, "STEP": 10}, "4/4"),
        ({"ID": 14, "COUNT": 3, "MIN": 10, "STEP": 2}, "3/3"),
        ({"ID": 2, "COUNT": 3}, "3/3"),
    ],
    ids=str,
)
def test_a_slurm_task_knows_its_shard(task: dict[str, int], expected: str) -> None:
    environment = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in task.items()}
    assert str(parse_shard("slurm", environment)) == expected


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, "SLURM_ARRAY_TASK_ID is not set"),
        ({"ID": "3"}, "SLURM_ARRAY_TASK_COUNT is not set"),
        ({"ID": "7", "COUNT": "3", "MIN": "1", "STEP": "2"}, "counts evenly.*SLURM_ARRAY_TASK_COUNT=3"),
        ({"ID": "4", "COUNT": "3", "MIN": "1", "STEP": "2"}, "counts evenly"),
        ({"ID": "x", "COUNT": "3"}, "counts evenly"),
        ({"ID": "1", "COUNT": "3", "STEP": "0"}, "counts evenly"),
    ],
    ids=str,
)
def test_outside_an_even_array_slurm_is_refused(task: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard("slurm", {f"SLURM_ARRAY_TASK_{name}": value for name, value in task.items()})


def test_shards_have_the_rows_of_the_whole_in_their_places(inputs: list[str], tmp_path: Path) -> None:
    extract(inputs, tmp_path / "whole.npz", batch_size=4)
    reports = [extract(inputs, tmp_path / f"{i}.h5", batch_size=4, shard=f"{i}/5") for i in range(1, 6)]
    assert [report.rows for report in reports] == [8, 12, 8, 12, 10]
    whole, parts = contents(tmp_path / "whole.npz"), [contents(tmp_path / f"{i}.h5") for i in range(1, 6)]
    for name in ("vector", "block/map", "count"):
        assert b"".join(part[name] for part in parts) == whole[name]
    for name in ("paths", "status", "error"):
        assert b"\n".join(part[name] for part in parts) == whole[name]
    assert [failure.index for failure in reports[0].failures] == [7]
    assert [failure.index for failure in reports[1].failures] == [0]


def test_a_part_says_which_rows_of_which_list_it_has(inputs: list[str], tmp_path: Path) -> None:
    digests = set()
    for number, place in ((1, [0, 20]), (2, [20, 50])):
        extract(inputs, tmp_path / f"{number}.npz", shard=f"{number}/2")
        with open_output(tmp_path / f"{number}.npz") as reader:
            part = reader.provenance["inputs"]["part"]
            assert reader.provenance["options"]["shard"] == f"{number}/2"
        assert (part["shard"], part["rows"], part["listed"]) == (f"{number}/2", place, ROWS)
        digests.add(part["sha256_of_names"])
    assert len(digests) == 1
    extract(inputs[:-1], tmp_path / "other.npz", shard="1/2")
    with open_output(tmp_path / "other.npz") as reader:
        assert reader.provenance["inputs"]["part"]["sha256_of_names"] not in digests


def test_the_default_name_says_the_shard(inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "10")
    from layerprobe import pipeline

    report = pipeline.extract("model.h5", inputs, ["count"], shard="slurm")
    assert report.output == "activations-03-of-10.npz"
    with open_output(report.output) as reader:
        assert reader.provenance["options"]["shard"] == "3/10"
        assert reader.paths == inputs[9:15], "batches 4 and 5 of the 17, of 3 rows each"


@pytest.mark.parametrize("options", [{"shard": "2/2"}, {"shard": "1/3"}, {}], ids=str)
def test_an_unfinished_shard_is_gone_on_with_only_as_that_shard(
    inputs: list[str], tmp_path: Path, options: dict[str, Any]
) -> None:
    from layerprobe.errors import ResumeError, StoppedError

    output = tmp_path / "part.h5"
    with pytest.raises(StoppedError):
        extract(inputs, output, shard="1/2", stop=lambda: True)
    with pytest.raises(ResumeError, match="its rows was 0, 20, now it is"):
        extract(inputs, output, resume=True, **options)
    report = extract(inputs, output, resume=True, shard="1/2")
    assert report.rows == 20


def test_a_shard_of_which_every_row_fails_is_written_for_the_whole_needs_it(
    inputs: list[str], tmp_path: Path
) -> None:
    report = extract(inputs, tmp_path / "part.npz", batch_size=1, shard=f"{BROKEN[0] + 1}/{ROWS}")
    assert (report.rows, report.failed) == (1, 1)
    with open_output(tmp_path / "part.npz") as reader:
        assert reader.status == ["failed"]


def test_small_lists_have_small_batches_so_that_every_shard_has_one(inputs: list[str]) -> None:
    assert MadeUpModel.usual_batch_size == 32
    from layerprobe import pipeline

    rows = [pipeline.extract("model.h5", inputs, ["count"], shard=f"{i}/25").rows for i in range(1, 26)]
    assert rows == [2] * 25
