"""Rows that fail: kept, counted, written down; runs that stop because of them, and go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_model import BROKEN, ROWS, contents, extract
from PIL import Image

from layerprobe.errors import FailedRowsError, OutputError, StoppedError, UsageError
from layerprobe.formats.opening import open_output

pytestmark = pytest.mark.usefixtures("made_up_model")


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mend(path: str) -> None:
    Image.new("RGB", (8, 8), (10, 20, 30)).save(path)


def expected(inputs: list[str], output: Path) -> list[dict[str, Any]]:
    with open_output(output) as reader:
        return [
            {"index": row, "path": inputs[row], "stage": "decode", "reason": reader.error[row]}
            for row in BROKEN
        ]


def test_fail_stops_at_the_first_failed_row_and_the_resume_tries_it_again(
    inputs: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out.h5"
    options: dict[str, Any] = {"on_error": "fail", "batch_size": 5}
    with pytest.raises(FailedRowsError, match=rf"first failed row: row {BROKEN[0]}, '.*007.png'") as caught:
        extract(inputs, output, **options)
    assert caught.value.exit_code == 65
    assert caught.value.__notes__ == [f"5 of {ROWS} rows are kept in an unfinished output"]
    assert not output.exists()
    with pytest.raises(FailedRowsError, match="row 7"):
        extract(inputs, output, resume=True, **options)
    for row in BROKEN:
        mend(inputs[row])
    seen: list[int] = []
    report = extract(inputs, output, resume=True, progress=lambda done, *_: seen.append(done), **options)
    assert (seen[0], report.failed) == (5, 0)
    extract(inputs, tmp_path / "fresh.h5", batch_size=5)
    assert contents(output) == contents(tmp_path / "fresh.h5")


def test_a_run_that_skipped_rows_goes_on_as_one_that_may_not(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    stops: Iterator[bool] = iter([False, True])
    with pytest.raises(StoppedError):
        extract(inputs, output, stop=lambda: next(stops))
    with pytest.raises(FailedRowsError, match="row 7"):
        extract(inputs, output, resume=True, on_error="fail")
    mend(inputs[7])
    with pytest.raises(FailedRowsError, match="row 8"):
        extract(inputs, output, resume=True, on_error="fail")
    assert extract(inputs, output, resume=True).failed == 2


def test_max_errors_stops_once_so_many_rows_failed_and_can_be_raised(
    inputs: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(FailedRowsError, match=r"3 rows failed, last row 31, .* --max-errors") as caught:
        extract(inputs, output, max_errors=3)
    assert caught.value.__notes__ == [f"30 of {ROWS} rows are kept in an unfinished output"]
    report = extract(inputs, output, resume=True, max_errors=4)
    assert [failure.index for failure in report.failures] == list(BROKEN)
    extract(inputs, tmp_path / "fresh")
    assert contents(output) == contents(tmp_path / "fresh")


def test_failed_rows_are_written_down_as_they_happen(inputs: list[str], tmp_path: Path) -> None:
    output, log = tmp_path / "out.h5", tmp_path / "failed.jsonl"
    counts: list[tuple[int, int]] = []
    extract(
        inputs,
        output,
        errors_to=str(log),
        progress=lambda done, *_: counts.append((done, len(logged(log)))),
    )
    assert counts == [(0, 0), (10, 2), (20, 2), (30, 2), (40, 3), (50, 3)]
    assert logged(log) == expected(inputs, output)
    assert sorted(os.listdir(tmp_path)) == ["failed.jsonl", "images", "out.h5"]


def test_after_a_resume_the_list_is_complete_and_in_order(inputs: list[str], tmp_path: Path) -> None:
    output, log = tmp_path / "out.h5", tmp_path / "failed.jsonl"
    stops: Iterator[bool] = iter([False, False, False, True])
    with pytest.raises(StoppedError):
        extract(inputs, output, stop=lambda: next(stops), errors_to=str(log))
    os.utime(inputs[9])  # A file that seems changed: its batch comes after what is there already.
    log.unlink()
    extract(inputs, output, resume=True, errors_to=str(log))
    assert logged(log) == expected(inputs, output)
    log.unlink()
    extract(inputs, output, resume=True, errors_to=str(log))
    assert logged(log) == [line | {"stage": "unknown"} for line in expected(inputs, output)]


def test_the_list_of_a_run_that_stops_has_the_row_that_stopped_it(inputs: list[str], tmp_path: Path) -> None:
    log = tmp_path / "failed.jsonl"
    with pytest.raises(FailedRowsError):
        extract(inputs, tmp_path / "out.h5", on_error="fail", errors_to=str(log))
    assert [line["index"] for line in logged(log)] == [BROKEN[0]]


def test_nothing_but_an_earlier_list_is_replaced(inputs: list[str], tmp_path: Path) -> None:
    output, log = tmp_path / "out.h5", tmp_path / "notes.txt"
    for text in ("my notes", '{"index": 1}', "[1]", '"index"'):
        log.write_text(text)
        with pytest.raises(OutputError, match=r"something else .* give another --errors-to"):
            extract(inputs, output, errors_to=str(log))
        assert log.read_text() == text
    assert not output.exists()
    log.write_text("")
    extract(inputs, output, errors_to=str(log))
    extract(inputs, output, overwrite=True, errors_to=str(log))
    assert logged(log) == expected(inputs, output)
    with pytest.raises(UsageError, match="to the output itself"):
        extract(inputs, tmp_path / "x.h5", errors_to=str(tmp_path / "x.h5"))
    with pytest.raises(OutputError, match="cannot be created"):
        extract(inputs, tmp_path / "x.h5", errors_to=str(tmp_path / "nowhere" / "x"))


def test_failed_rows_go_through_a_pipe_too(inputs: list[str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with open(reading, encoding="ascii") as reader:
        extract(inputs, tmp_path / "out.h5", errors_to=str(pipe))
        assert [json.loads(line)["index"] for line in reader] == list(BROKEN)


@pytest.mark.parametrize(
    "options", [{"on_error": "stop"}, {"max_errors": 0}, {"on_error": "fail", "max_errors": 2}], ids=str
)
def test_policies_that_cannot_be_meant_are_refused(inputs: list[str], tmp_path: Path, options: Any) -> None:
    with pytest.raises(UsageError):
        extract(inputs, tmp_path / "out.h5", **options)
