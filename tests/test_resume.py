"""Interrupted runs, and what they become: the output of an uninterrupted run, or a clear refusal."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_model import (
    BROKEN,
    FORMATS,
    OTHERS,
    ROWS,
    MadeUpModel,
    contents,
    extract,
)
from PIL import Image
from stopped_runs import after, is_stream, kept, left_over, stopped

from layerprobe.errors import (
    AllInputsFailedError,
    BusyError,
    OutputError,
    OutputFormatError,
    ResumeError,
    StoppedError,
    UsageError,
    WriteError,
)
from layerprobe.formats import pending
from layerprobe.formats.opening import open_output
from layerprobe.run import journal
from layerprobe.run.journal import Journal

pytestmark = pytest.mark.usefixtures("made_up_model")


@pytest.fixture(params=sorted(FORMATS | OTHERS))
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / (FORMATS | OTHERS)[request.param]


@pytest.fixture
def reference(inputs: list[str], output: Path) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    folder = output.parent / "reference"
    folder.mkdir()
    extract(inputs, folder / output.name)
    return contents(folder / output.name)


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_a_stopped_run_goes_on_and_ends_as_an_uninterrupted_one(
    inputs: list[str], output: Path, reference: dict[str, bytes], batches: int
) -> None:
    stopped(inputs, output, batches)
    assert not output.exists()
    seen: list[int] = []
    report = extract(inputs, output, resume=True, progress=lambda done, *_: seen.append(done))
    assert seen == list(range(10 * batches, ROWS + 1, 10))
    assert contents(output) == reference
    assert left_over(output) == []
    assert [failure.index for failure in report.failures] == list(BROKEN)
    assert all(failure.stage == "decode" for failure in report.failures)
    if output.suffix == ".npz":
        with zipfile.ZipFile(output) as archive:
            assert archive.testzip() is None


def test_a_run_may_be_stopped_as_often_as_there_are_batches(
    inputs: list[str], output: Path, reference: dict[str, bytes]
) -> None:
    # That a stream has ended is seen when nothing comes any more.
    for _ in range(5 if is_stream(output) else 4):
        with pytest.raises(StoppedError):
            extract(inputs, output, resume=True, stop=after(1))
    extract(inputs, output, resume=True, stop=after(1))
    assert contents(output) == reference


def test_an_unfinished_output_is_in_the_way_until_someone_says_what_to_do(
    inputs: list[str], output: Path, reference: dict[str, bytes]
) -> None:
    stopped(inputs, output)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(
            OutputError, match="unfinished, with 20 rows on disk: give --resume .* or --restart"
        ):
            extract(inputs, output, **options)
    assert len(left_over(output)) == 2
    seen: list[int] = []
    extract(inputs, output, restart=True, progress=lambda done, *_: seen.append(done))
    assert seen[0] == 0
    assert contents(output) == reference
    assert left_over(output) == []


def test_resume_begins_where_nothing_is_unfinished_and_does_nothing_where_all_is_done(
    inputs: list[str], output: Path, reference: dict[str, bytes]
) -> None:
    extract(inputs, output, resume=True)
    assert contents(output) == reference
    before = os.stat(output).st_mtime_ns, os.stat(output).st_ino
    report = extract(inputs, output, resume=True)
    assert report.notes == ("it was finished already: there was nothing to do",)
    assert (report.rows, report.failed) == (ROWS, len(BROKEN))
    assert report.failures[0].key == inputs[BROKEN[0]]
    assert (os.stat(output).st_mtime_ns, os.stat(output).st_ino) == before
    with pytest.raises(OutputError, match="exists: give --overwrite"):
        extract(inputs, output)
    assert left_over(output) == []


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "layers": (
        {"layers": ["count", "vector"]},
        "its layers was vector, block/map, count, now it is count, vector",
    ),
    "order": ({"layers": ["count", "vector", "block/map"]}, "its layers was"),
    "dtype": ({"dtype": "float16"}, "its shapes was"),
    "pool": ({"pool": "gap"}, "its (pool|shapes) was"),
    "batch size": ({"batch_size": 5}, "its batch size was 10, now it is 5"),
    "preset": ({"preprocess": "tf"}, "its preprocessing (preset|scale) was"),
    "filter": ({"resize": "nearest"}, "its preprocessing resize was bilinear, now it is nearest"),
    "limit": ({"limit": 49}, "its number of inputs was 50, now it is 49"),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
@pytest.mark.parametrize("finished", [False, True])
def test_a_different_run_is_refused_and_the_difference_named(
    inputs: list[str], tmp_path: Path, change: str, finished: bool
) -> None:
    options, words = CHANGES[change]
    output = tmp_path / "out.h5"
    extract(inputs, output) if finished else stopped(inputs, output)
    before = {name: (tmp_path / name).read_bytes() for name in ["out.h5"] if finished}
    with pytest.raises(ResumeError, match=f"belongs to a different run, for {words}") as caught:
        extract(inputs, output, resume=True, **options)
    assert ("--overwrite" if finished else "--restart") in str(caught.value)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    if not finished:
        extract(inputs, output, resume=True)


def test_another_model_or_list_of_inputs_is_refused(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.npz"
    stopped(inputs, output)
    with pytest.raises(ResumeError, match="its list of inputs was"):
        extract([*inputs[1:], inputs[0]], output, resume=True)
    monkeypatch.setattr(MadeUpModel, "sha256", "11" * 32)
    with pytest.raises(ResumeError, match=r"its model was 0+\.\.\., now it is 1+\.\.\."):
        extract(inputs, output, resume=True)


def test_a_changed_image_is_computed_anew_with_its_batch(inputs: list[str], output: Path) -> None:
    stopped(inputs, output, batches=3)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(inputs[12])
    Image.new("RGB", (8, 8), (4, 5, 6)).save(inputs[BROKEN[0]])
    if is_stream(output):  # which cannot be gone back to
        with pytest.raises(ResumeError, match="for what rows 0 to 9 are made of was changed"):
            extract(inputs, output, resume=True)
        return
    extract(inputs, output, resume=True)
    fresh = output.parent / "fresh"
    fresh.mkdir()
    extract(inputs, fresh / output.name)
    assert contents(output) == contents(fresh / output.name)
    with open_output(output) as reader:
        assert reader["count"][12] == 64 * 6
        assert reader.status[BROKEN[0]] == "ok"


def test_an_old_output_stays_until_the_resumed_one_is_complete(inputs: list[str], output: Path) -> None:
    extract(inputs[:5], output)
    old = contents(output)
    stopped(inputs, output, overwrite=True)
    assert contents(output) == old
    with pytest.raises(OutputError, match="exists: give --overwrite"):
        extract(inputs, output, resume=True)
    with pytest.raises(StoppedError):
        extract(inputs, output, resume=True, overwrite=True, stop=after(1))
    assert contents(output) == old
    extract(inputs, output, resume=True, overwrite=True)
    with open_output(output) as reader:
        assert len(reader.paths) == ROWS
    assert left_over(output) == []
    # Finished, and another run's: replaced only when that is said.
    with pytest.raises(ResumeError):
        extract(inputs[:5], output, resume=True)
    if is_stream(output):  # which is seen only when it is gone
        with pytest.raises(ResumeError, match="it ends before row 5.*--overwrite without --resume"):
            extract(inputs[:5], output, resume=True, overwrite=True)
        return
    extract(inputs[:5], output, resume=True, overwrite=True)
    assert contents(output) == old


def test_a_file_of_someone_else_is_not_resumed(inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "out.npz").write_text("precious")
    with pytest.raises(OutputFormatError):
        extract(inputs, tmp_path / "out.npz", resume=True)
    assert (tmp_path / "out.npz").read_text() == "precious"
    assert left_over(tmp_path / "out.npz") == []


def test_a_second_run_is_refused_and_the_first_is_unharmed(
    inputs: list[str], output: Path, reference: dict[str, bytes]
) -> None:
    def second(*_: int) -> None:
        for options in ({}, {"resume": True}, {"restart": True}, {"overwrite": True}):
            with pytest.raises(BusyError, match=rf"another run \(pid {os.getpid()} on "):
                extract(inputs, output, **options)

    extract(inputs, output, progress=second)
    assert contents(output) == reference


@pytest.mark.parametrize("moment", ["before its journal is gone", "before the old folder is gone"])
def test_a_run_that_was_killed_when_its_output_had_its_name_has_nothing_left_to_do(
    inputs: list[str], output: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    extract(inputs[:ROWS], output, preprocess="tf")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: None)
        if moment == "before the old folder is gone":
            patch.setattr(pending.PendingFolder, "abort", lambda self: None)
        extract(inputs, output, overwrite=True)
    assert contents(output) == reference
    assert f".{output.name}.journal" in left_over(output)
    report = extract(inputs, output, resume=True)
    assert report.notes == ("it was finished already: there was nothing to do",)
    assert contents(output) == reference
    assert left_over(output) == []


def test_a_journal_whose_rows_are_gone_is_forgotten(inputs: list[str], tmp_path: Path) -> None:
    stopped(inputs, tmp_path / "out.h5")
    (tmp_path / ".out.h5.unfinished").unlink()
    seen: list[int] = []
    extract(inputs, tmp_path / "out.h5", progress=lambda done, *_: seen.append(done))
    assert seen[0] == 0
    assert left_over(tmp_path / "out.h5") == []


def test_what_was_killed_before_its_first_row_was_on_disk_is_in_nobodys_way(
    inputs: list[str], output: Path, reference: dict[str, bytes]
) -> None:
    (output.parent / f".{output.name}.unfinished").write_bytes(b"anything")
    (output.parent / f".{output.name}.journal").write_bytes(b'{"pid": 1, "host": "x"}\n{"layerprobe_jou')
    extract(inputs, output)
    assert contents(output) == reference
    assert left_over(output) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError, WriteError])
def test_whatever_ends_a_run_what_is_done_is_kept(
    inputs: list[str], output: Path, reference: dict[str, bytes], error: type[BaseException]
) -> None:
    def fail(done: int, *_: int) -> None:
        if done == 30:
            raise error("for some reason")

    with pytest.raises(error) as caught:
        extract(inputs, output, progress=fail)
    assert caught.value.__notes__ == [kept(30, output)]
    extract(inputs, output, resume=True)
    assert contents(output) == reference


def test_a_run_that_ends_before_its_first_batch_leaves_nothing(inputs: list[str], output: Path) -> None:
    def fail(*_: int) -> None:
        raise WriteError("the disk is full.")

    with pytest.raises(WriteError):
        extract(inputs, output, progress=fail)
    assert left_over(output) == []
    with pytest.raises(AllInputsFailedError):
        extract([inputs[row] for row in BROKEN] * 10, output)
    assert left_over(output) == []
    assert not output.exists()


def test_a_run_of_one_batch_touches_no_journal(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 1.0)
    monkeypatch.setattr(Journal, "flush", lambda self: pytest.fail("nothing is worth keeping yet"))
    extract(inputs[:5], tmp_path / "out.npz")
    assert left_over(tmp_path / "out.npz") == []


def test_what_cannot_be_done_again_exactly_cannot_be_resumed(inputs: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resume needs a model from a file, without training"):
        extract(inputs, tmp_path / "out.h5", resume=True, training=True)
    with pytest.raises(StoppedError) as caught:
        extract(inputs, tmp_path / "out.h5", training=True, stop=after(2))
    assert not hasattr(caught.value, "__notes__")
    assert left_over(tmp_path / "out.h5") == []


def test_the_output_says_of_which_run_it_is(inputs: list[str], tmp_path: Path) -> None:
    stopped(inputs, tmp_path / "out.npz")
    head = json.loads((tmp_path / ".out.npz.journal").read_text().splitlines()[1])
    extract(inputs, tmp_path / "out.npz", resume=True)
    with open_output(tmp_path / "out.npz") as reader:
        assert reader.provenance["run"] == {"id": head["run"], "signature": head["signature"]}
        assert reader.provenance["started"] == head["started"]
        assert reader.provenance["inputs"]["failed"] == len(BROKEN)
        assert np.isnan(reader["vector"][BROKEN[1]]).all()
