"""Failed rows of a finished output, tried again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_model import (
    BROKEN,
    FORMATS,
    OTHERS,
    MadeUpEngine,
    MadeUpModel,
    contents,
    extract,
    use_made_up_model,
    write_inputs,
)
from PIL import Image

from layerprobe.cli import cli
from layerprobe.errors import AllInputsFailedError, OutputError, ResumeError, StoppedError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.records import TensorSpec
from layerprobe.retrying import retry_failed
from layerprobe.run import loop
from layerprobe.run.recorded import Given, open_recorded
from layerprobe.sources.opening import open_source
from layerprobe.verification import verify

OUTPUTS = FORMATS | {name: OTHERS[name] for name in ("jsonl", "tar")}


@pytest.fixture(autouse=True)
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_model(monkeypatch)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path / "images")


@pytest.fixture(params=sorted(OUTPUTS))
def output(request: pytest.FixtureRequest, tmp_path: Path, inputs: list[str]) -> Path:
    path = tmp_path / OUTPUTS[request.param]
    extract(inputs, path)
    return path


def mend(inputs: list[str], *rows: int) -> None:
    for row in rows:
        Image.new("RGB", (8, 8), (row, 20, 30)).save(inputs[row])


def test_mended_rows_come_in_their_places_and_nothing_else_changes(
    inputs: list[str], output: Path, tmp_path: Path
) -> None:
    mend(inputs, 7, 31)
    os.unlink(inputs[0])  # A row that was right stays so.
    os.unlink(inputs[6])
    with open_output(output) as reader:
        before = {name: np.array(reader[name]) for name in reader}
        run = reader.provenance["run"]
    report = retry_failed(output, errors_to=str(tmp_path / "failed"))
    assert [failure.index for failure in report.failures] == [8]
    with open_output(output) as reader:
        assert [row for row, status in enumerate(reader.status) if status == "failed"] == [8]
        others = sorted(set(range(50)) - {7, 31})
        for name in reader:
            np.testing.assert_array_equal(reader[name][others], before[name][others])
        assert reader["count"][[7, 31]].tolist() == [64 * (7 + 50), 64 * (31 + 50)]
        assert reader.provenance["inputs"]["failed"] == 1
        assert reader.provenance["run"]["id"] == run["id"]
        assert [(told["rows"], told["failed"]) for told in reader.provenance["run"]["retried"]] == [(3, 1)]
    assert verify(output).problems == ()
    assert (tmp_path / "failed").read_text().startswith('{"index": 8, ')
    mend(inputs, 8)
    mend(inputs, 0, 6)
    report = retry_failed(output, "model.h5", inputs, ["vector", "block/map", "count"])
    assert report.failed == 0
    assert sorted(os.listdir(tmp_path)) == sorted([output.name, "failed", "images"])


class Overflowing(MadeUpEngine):
    """One value of each red row is too large for float16."""

    outputs = (TensorSpec("vector", (3,), "float32", layer="vector"),)

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        (x,) = inputs
        return {"vector": np.stack([np.where(x[:, 0, 0, 0] == 255, 1e6, 0), x[:, 0, 0, 1], x[:, 0, 0, 2]], 1)}


def test_what_is_counted_of_mended_rows_is_added_and_no_row_is_counted_twice(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpModel, "engine_class", Overflowing)
    red = Image.new("RGB", (8, 8), (255, 20, 30))

    def moving(row: int) -> None:
        red.save(inputs[row], format="GIF", save_all=True, append_images=[Image.new("RGB", (8, 8))])

    for row in (0, 6, 40):  # 0 and 6 in the batch of the rows that fail, 7 and 8; 40 in another
        moving(row)
    output = tmp_path / "out.h5"
    options: dict[str, Any] = {"layers": ["vector"], "dtype": "float16"}
    extract(inputs, output, **options)
    for row in (7, 31):
        moving(row)
    report = retry_failed(output)
    assert "5 of the images have several frames: the first was taken" in report.notes
    with open_output(output) as reader:
        assert reader.provenance["inputs"]["several_frames"] == 5
        found = reader.provenance["inputs"]["overflows"]
    assert found["vector"] >= 5
    extract(inputs, tmp_path / "fresh.h5", **options)
    with open_output(tmp_path / "fresh.h5") as reader:
        assert reader.provenance["inputs"]["overflows"] == found
        assert reader.provenance["inputs"]["several_frames"] == 5


def test_it_ends_as_a_fresh_run(inputs: list[str], output: Path, tmp_path: Path) -> None:
    mend(inputs, *BROKEN)
    retry_failed(output)
    (tmp_path / "fresh").mkdir()
    extract(inputs, tmp_path / "fresh" / output.name)
    assert contents(output) == contents(tmp_path / "fresh" / output.name)


def test_another_run_is_refused_and_the_output_stays(
    inputs: list[str], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(output)
    mend(inputs, *BROKEN)
    for options in ({"pool": "gap"}, {"dtype": "float16"}, {"layers": ["count"]}, {"inputs": inputs[1:]}):
        with pytest.raises(ResumeError, match="is of another run, for its"):
            retry_failed(output, **options)
    monkeypatch.setattr(MadeUpModel, "sha256", "11" * 32)
    with pytest.raises(ResumeError, match="its model was"):
        retry_failed(output)
    with pytest.raises(UsageError, match="takes no stats"):
        retry_failed(output, stats=True)
    assert contents(output) == before


def recording(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Have outputs say that they were made with such options, whatever they were made with."""
    describe = loop.describe_run

    def described(*given: Any, **more: Any) -> Any:
        found = describe(*given, **more)
        return dataclasses.replace(found, options={**found.options, **options})

    monkeypatch.setattr(loop, "describe_run", described)


@pytest.mark.parametrize(
    "recorded",
    [
        {"cluster": "ray", "workers": "2:4", "cpus_per_worker": 2.0, "gpus_per_worker": 1.0, "device": "gpu"},
        {"processes": 4, "device": "gpu:3"},
    ],
    ids=["cluster", "processes"],
)
def test_where_the_earlier_run_was_computed_is_not_taken_from_it(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: dict[str, Any]
) -> None:
    recording(monkeypatch, **recorded)
    output = tmp_path / "out.h5"
    extract(inputs, output)
    monkeypatch.setattr("layerprobe.registry.find_spec", lambda _: None)  # Ray is not installed.
    mend(inputs, *BROKEN)
    assert verify(output, recompute=50).problems == ()
    with open_output(output) as reader:
        how = open_recorded(reader, Given(), whole=True).request.how
    assert (how.device, how.processes, how.cluster, how.workers) == ("auto", 1, None, None)
    assert retry_failed(output, device="cpu").failed == 0


def test_the_processor_stays_the_device_where_it_was_asked_for(inputs: list[str], tmp_path: Path) -> None:
    extract(inputs, tmp_path / "out.h5", device="cpu")
    with open_output(tmp_path / "out.h5") as reader:
        assert open_recorded(reader, Given(), whole=True).request.how.device == "cpu"
        given = Given(options={"device": "gpu:1"})
        assert open_recorded(reader, given, whole=True).request.how.device == "gpu:1"


@pytest.mark.parametrize("options", [("--cluster", "ray"), ("--processes", "4")])
def test_rows_are_tried_again_in_this_process_alone(
    inputs: list[str], tmp_path: Path, options: tuple[str, str]
) -> None:
    output = tmp_path / "out.h5"
    extract(inputs, output)
    with pytest.raises(UsageError, match=f"takes no {options[0].removeprefix('--')}: leave that out"):
        cli.main(["extract", "--retry-failed", str(output), *options], standalone_mode=False)


@pytest.mark.parametrize("named", [True, False], ids=["by the table", "by their number"])
def test_images_within_a_table_are_asked_for_again(inputs: list[str], tmp_path: Path, named: bool) -> None:
    data = [Path(name).read_bytes() for name in inputs[5:10]]
    images = [{"bytes": one, "path": f"{at}.png" if named else None} for at, one in enumerate(data)]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    listed = open_source([], lists=[str(tmp_path / "x.parquet")])
    output = tmp_path / "out.h5"
    extract(listed, output)
    with open_output(output) as reader:
        errors = reader.error
    with pytest.raises(UsageError, match="is of images within '.*x.parquet': give all its inputs again"):
        retry_failed(output)
    report = retry_failed(output, "model.h5", listed)
    assert report.failed == 2
    with open_output(output) as reader:
        assert reader.error == errors


def test_a_row_of_a_table_that_names_no_image_keeps_its_reason(inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"path,label\n{inputs[0]},a\n,b\n{inputs[7]},c\n")
    output = tmp_path / "out.h5"
    extract(open_source([], lists=[str(tmp_path / "x.csv")]), output)
    mend(inputs, 7)
    report = retry_failed(output)
    assert [(failure.index, failure.reason) for failure in report.failures] == [
        (1, "no path: 'path' is empty")
    ]


def test_an_error_on_the_way_leaves_the_output_as_it_was(
    inputs: list[str], output: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = contents(output)
    mend(inputs, *BROKEN)

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MadeUpModel.engine_class, "run", broken)
        with pytest.raises(KeyboardInterrupt):
            retry_failed(output)
    assert contents(output) == before
    assert sorted(os.listdir(tmp_path)) == sorted([output.name, "images"])


def test_an_unfinished_run_on_the_same_output_is_in_the_way(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    extract(inputs, output)
    with pytest.raises(StoppedError):
        extract(inputs, output, stop=lambda: True, overwrite=True)
    with pytest.raises(OutputError, match="unfinished"):
        retry_failed(output)


def test_where_nothing_can_be_used_still_it_stays(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    extract([inputs[7], inputs[1]], output)
    assert retry_failed(output).failed == 1
    os.unlink(inputs[7])
    assert retry_failed(output).failures[0].reason == "no such file"
    with open_output(output) as reader:
        assert len(reader.provenance["run"]["retried"]) == 2
    with pytest.raises(AllInputsFailedError):
        extract([inputs[8]], tmp_path / "none.h5")


def test_the_command_needs_nothing_but_the_output(
    inputs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.h5"
    extract(inputs, output)
    assert cli.main(["extract", "--retry-failed", str(output)], standalone_mode=False) == 3
    mend(inputs, *BROKEN)
    assert cli.main(["extract", "--retry-failed", str(output)], standalone_mode=False) == 0
    with open_output(output) as reader:
        assert set(reader.status) == {"ok"}
    assert cli.main(["extract", "--retry-failed", str(output)], standalone_mode=False) == 0
    assert "there was nothing to do" in capfd.readouterr().err
    with pytest.raises(UsageError, match="leave -o out"):
        cli.main(["extract", "--retry-failed", str(output), "-o", "x.h5"], standalone_mode=False)
