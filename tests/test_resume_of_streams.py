"""Interrupted runs whose rows have no places: streams, rows one after the other, what waits in a spool."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_up_model import (
    OTHERS,
    ROWS,
    extract,
)
from PIL import Image
from stopped_runs import after, stopped

from layerprobe.errors import (
    ResumeError,
    StoppedError,
)
from layerprobe.run import feed, journal, loop

pytestmark = pytest.mark.usefixtures("made_up_model")


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
