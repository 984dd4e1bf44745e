"""Interrupted runs, and what they become: the output of an uninterrupted run, or a clear refusal."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
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
    use_made_up_model,
    write_inputs,
)
from PIL import Image

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
from layerprobe.run import feed, journal, loop
from layerprobe.run.journal import Journal


@pytest.fixture(autouse=True)
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path / "images")


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


def after(batches: int) -> Callable[[], bool]:
    """What stops a run after so many batches."""
    left = iter([False] * (batches - 1))
    return lambda: next(left, True)


def left_over(output: Path) -> list[str]:
    """Names of what stands beside the output."""
    return sorted(name for name in os.listdir(output.parent) if name.startswith("."))


def stopped(inputs: list[str], output: Path, batches: int = 2, **options: Any) -> None:
    """Leave an unfinished output."""
    rows = "an unknown number of" if is_stream(output) else ROWS
    with pytest.raises(StoppedError, match=f"stopped after {10 * batches} of {rows} rows") as caught:
        extract(inputs, output, stop=after(batches), **options)
    assert caught.value.__notes__ == [kept(10 * batches, output)]
    waiting = "blocks" if is_spooled(output) else "unfinished"
    assert left_over(output) == sorted([f".{output.name}.journal", f".{output.name}.{waiting}"])


def is_stream(output: Path) -> bool:
    """Whether nobody knows how many rows come."""
    return ".stream" in output.name


def is_spooled(output: Path) -> bool:
    """Whether rows wait for the end of the run."""
    return any(part in output.name for part in (".gzip", ".zstd")) or (
        is_stream(output) and output.suffix != ".jsonl"
    )


def kept(rows: int, output: Path) -> str:
    """What is said of rows that are kept."""
    if is_stream(output):
        return f"{rows} rows are kept in an unfinished output, for when the same stream is given again"
    return f"{rows} of {ROWS} rows are kept in an unfinished output"


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


def test_a_spool_that_nobody_goes_on_with_is_discarded(tmp_path: Path, inputs: list[str]) -> None:
    spool = tmp_path / ".out.npz.blocks"
    spool.write_bytes(b"left by a run that was killed before its first rows were safe")
    extract(inputs, tmp_path / "out.npz")
    assert not spool.exists()


@pytest.mark.parametrize("name", [name for name in OTHERS if "of a stream" in name])
@pytest.mark.parametrize("finished", [False, True])
def test_a_stream_is_the_same_or_refused_and_the_first_row_that_differs_named(
    inputs: list[str], tmp_path: Path, name: str, finished: bool
) -> None:
    output = tmp_path / OTHERS[name]
    extract(inputs, output) if finished else stopped(inputs, output)
    before = {file: os.stat(tmp_path / file).st_mtime_ns for file in os.listdir(tmp_path)}
    swapped = [*inputs[:3], inputs[4], inputs[3], *inputs[5:]]
    for other, told in [
        (swapped, f"row 3 is {inputs[4]!r} and was {inputs[3]!r}"),
        (inputs[:12], f"it ends before row 12, {inputs[12]!r}"),
    ]:
        with pytest.raises(ResumeError, match=re.escape(told)) as caught:
            extract(other, output, resume=True)
        assert caught.value.exit_code == 65
        assert ("--overwrite" if finished else "--restart") in str(caught.value)
    if finished:
        with pytest.raises(ResumeError, match=f"it ended before row {ROWS}"):
            extract([*inputs, inputs[0]], output, resume=True)
        assert {file: os.stat(tmp_path / file).st_mtime_ns for file in os.listdir(tmp_path)} == before
    else:
        report = extract([*inputs, inputs[0]], output, resume=True)  # it only goes on
        assert report.rows == ROWS + 1


def test_rows_of_a_stream_that_are_done_are_not_decoded(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / OTHERS["hdf5 of a stream"]
    stopped(inputs, output, batches=3)
    decoded: list[int] = []
    original = feed.decode
    monkeypatch.setattr(feed, "decode", lambda *args, **how: (decoded.append(1), original(*args, **how))[1])
    extract(inputs, output, resume=True)
    assert len(decoded) == ROWS - 30


@pytest.mark.parametrize("name", ["jsonl", "tar"])
def test_a_resumed_file_of_rows_one_after_the_other_is_the_same_byte_for_byte(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(loop.secrets, "token_hex", lambda _: "00" * 8)
    monkeypatch.setattr(loop, "datetime", SimpleNamespace(datetime=_Noon, UTC=None))
    # A name that comes twice gets a number, which a resumed run has to know.
    inputs = [*inputs[:15], inputs[3], *inputs[15:40], inputs[3], *inputs[40:-2]]
    output, reference = tmp_path / OTHERS[name], tmp_path / f"reference.{name}"
    extract(inputs, reference)
    for _ in range(2):
        with pytest.raises(StoppedError):
            extract(inputs, output, resume=True, stop=after(2))
        with open(tmp_path / f".{output.name}.unfinished", "ab") as file:
            file.write(b"what a killed run wrote last, in part" * 1000)
    extract(inputs, output, resume=True)
    assert output.read_bytes() == reference.read_bytes()


class _Noon:
    @staticmethod
    def now(_: object) -> Any:
        return SimpleNamespace(isoformat=lambda timespec: "2026-11-29T12:00:00+00:00")


def test_rows_behind_a_changed_image_are_written_again_where_they_have_no_places(
    inputs: list[str], tmp_path: Path
) -> None:
    output = tmp_path / OTHERS["jsonl"]
    stopped(inputs, output, batches=3)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(inputs[12])
    seen: list[int] = []
    with pytest.raises(StoppedError):
        extract(inputs, output, resume=True, stop=after(1), progress=lambda done, *_: seen.append(done))
    assert seen == [10, 20]
    found = journal.written_rows(str(tmp_path / ".out.jsonl.journal"))
    assert found is not None
    assert found[1] == [(0, 20)]  # the journal does not know any more what was written over


@pytest.mark.parametrize("name", ["gzip", "jsonl", "tar", "npy of a stream"])
def test_an_unfinished_output_of_which_a_part_is_gone_is_refused(
    inputs: list[str], tmp_path: Path, name: str
) -> None:
    output = tmp_path / OTHERS[name]
    stopped(inputs, output)
    waiting = next(path for path in tmp_path.iterdir() if path.suffix in (".blocks", ".unfinished"))
    os.truncate(waiting, 100)
    with pytest.raises(ResumeError, match="is damaged.*--restart"):
        extract(inputs, output, resume=True)
    extract(inputs, output, restart=True)


def test_a_different_compression_is_another_run(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / OTHERS["gzip"]
    stopped(inputs, output)
    for compress, told in [("zstd", "zstd"), (None, "None")]:
        with pytest.raises(ResumeError, match=f"its compress was gzip, now it is {told}"):
            extract(inputs, output, resume=True, compress=compress)
    extract(inputs, output, resume=True)
    with pytest.raises(ResumeError, match="its compress was gzip, now it is lz4"):
        extract(inputs, output, resume=True, compress="lz4")
