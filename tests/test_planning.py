"""The dry run: what it says is what the run then does, and it does nothing itself."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_up_model import ROWS, MadeUpEngine, extract, use_made_up_model, write_inputs

import layerprobe
from layerprobe.cli import cli
from layerprobe.errors import BusyError, OutputError, ResumeError, StoppedError, UsageError, WriteError
from layerprobe.formats import disk
from layerprobe.formats.opening import open_output
from layerprobe.modelfile.weights import Weights
from layerprobe.planning import Plan
from layerprobe.run import journal

SAMPLES = Path(__file__).parent.parent / "sample_models"
MODEL, IMAGES = str(SAMPLES / "vgg_shapes.h5"), str(SAMPLES / "images")


def plan(inputs: list[str], output: Path, **options: Any) -> Plan:
    """The plan for what `made_up_model.extract` does with the same arguments."""
    names = [spec.name for spec in MadeUpEngine.outputs]
    return layerprobe.dry_run(
        "model.h5", inputs, names, str(output), **{"batch_size": 10, "workers": 2} | options
    )


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)
    return write_inputs(tmp_path / "images")


def stop_after(batches: int) -> Any:
    counted = iter(range(1, 100))
    return lambda: next(counted) >= batches


def interrupt(inputs: list[str], output: Path, **options: Any) -> None:
    with pytest.raises(StoppedError):
        extract(inputs, output, stop=stop_after(2), **options)


def everything_in(folder: Path) -> dict[str, Any]:
    """Bytes and times of all that is in a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("options", [{}, {"pool": "gap", "dtype": "float16", "batch_size": 5}, {"limit": 1}])
def test_what_it_says_is_what_the_run_then_does(tmp_path: Path, options: dict[str, Any]) -> None:
    arguments: Any = (MODEL, [IMAGES], ["conv5_*", "output"], str(tmp_path / "out.h5"))
    planned = layerprobe.dry_run(*arguments, **options)
    assert list(tmp_path.iterdir()) == []
    report = layerprobe.extract(*arguments, **options)
    with open_output(tmp_path / "out.h5") as reader:
        assert (planned.first, planned.last) == (reader.paths[0], reader.paths[-1])
        engine = {**planned.engine, "batch_size": planned.batch_size}
        assert engine == {name: reader.provenance["engine"][name] for name in engine}
        assert planned.preprocessing is not None
        how = dataclasses.asdict(planned.preprocessing)
        assert json.loads(json.dumps(how)) == reader.provenance["preprocessing"]
        assert planned.bytes == sum(reader[name].nbytes for name in reader)
        assert planned.row_bytes * len(reader.paths) == planned.bytes
    assert (planned.rows, planned.layers, planned.output) == (report.rows, report.layers, report.output)
    assert (planned.problem, planned.rows_done) == (None, 0)
    assert planned.needed == planned.bytes
    assert planned.memory > 50 << 20


def test_it_reads_no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Weights, "arrays", lambda *_: pytest.fail("weights were read"))
    planned = layerprobe.dry_run(MODEL, [IMAGES], ["conv5_3"], tmp_path / "out.h5")
    assert planned.layers[0].shape == (7, 7, 64)
    assert planned.engine_reason == "it builds the model from its file alone"


@pytest.mark.parametrize("name", ["out.h5", "out.npz", "out"])
def test_an_unfinished_output_is_told_and_left_as_it_is(inputs: list[str], tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    interrupt(inputs, output)
    before = everything_in(tmp_path)
    refused = plan(inputs, output)
    assert isinstance(refused.problem, OutputError)
    assert "is unfinished, with 20 rows on disk: give --resume" in str(refused.problem)
    resumed = plan(inputs, output, resume=True)
    assert (resumed.problem, resumed.rows_done, resumed.rows) == (None, 20, ROWS)
    assert resumed.needed == 0, "its space is reserved"
    restarted = plan(inputs, output, restart=True)
    assert (restarted.problem, restarted.rows_done) == (None, 0)
    assert everything_in(tmp_path) == before
    assert extract(inputs, output, resume=True).rows == ROWS


def test_the_difference_to_another_run_is_named(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    interrupt(inputs, output)
    problem = plan(inputs, output, resume=True, preprocess="tf").problem
    assert isinstance(problem, ResumeError)
    with pytest.raises(ResumeError) as caught:
        extract(inputs, output, resume=True, preprocess="tf")
    assert str(problem) == str(caught.value)
    assert "its preprocessing preset was raw, now it is tf" in str(problem)


def test_a_finished_output_leaves_nothing_to_do_or_is_in_the_way(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    extract(inputs, output)
    before = everything_in(tmp_path)
    resumed = plan(inputs, output, resume=True)
    assert (resumed.problem, resumed.rows_done, resumed.needed) == (None, ROWS, 0)
    assert isinstance(plan(inputs, output).problem, OutputError)
    assert isinstance(plan(inputs, output, resume=True, pool="gap").problem, ResumeError)
    assert plan(inputs, output, overwrite=True).problem is None
    assert everything_in(tmp_path) == before


def test_a_run_that_has_the_output_is_told(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    interrupt(inputs, output)
    with open(tmp_path / ".out.h5.journal", "rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert isinstance(plan(inputs, output, resume=True).problem, BusyError)
        assert plan(inputs, output, resume=True, lock=False).problem is None
    assert plan(inputs, output, resume=True).problem is None


def test_a_disk_that_is_too_small_is_told_with_the_sum(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_space", lambda _: 10_240)
    problem = plan(inputs, tmp_path / "out.h5").problem
    # 50 rows of (3 + 8 * 8 * 3) float32 and an int32
    assert isinstance(problem, WriteError)
    assert "it needs 38.3 KiB and 10 KiB are free, so free 28.3 KiB or" in str(problem)


def test_a_limit_on_the_size_of_files_is_told(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "largest_file", lambda: 39_000)
    problem = plan(inputs, tmp_path / "out.h5").problem
    assert isinstance(problem, WriteError)
    assert "larger than a file may be" in str(problem)
    assert plan(inputs, tmp_path / "out").problem is None, "each layer is a file"


def test_a_shard_plans_its_own_rows(inputs: list[str], tmp_path: Path) -> None:
    planned = plan(inputs, tmp_path / "out.h5", shard="2/2")
    assert extract(inputs, tmp_path / "out.h5", shard="2/2").rows == planned.rows == 30
    assert (planned.first, planned.last) == (inputs[20], inputs[49])


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(cli, ["extract", *arguments, "--dry-run"])
    assert result.exit_code == code, result.output
    return result


def test_the_command_prints_the_plan(tmp_path: Path) -> None:
    output = str(tmp_path / "out.npz")
    told = run(MODEL, IMAGES, "-l", "conv5_3", "-o", output).stdout
    for expected in (
        f"output         {output} (npz); until it is complete {tmp_path}/.out.npz.unfinished\n",
        f"inputs         12 rows, {IMAGES}/circle_01.png to {IMAGES}/triangle_12.jpg\n",
        "layer          conv5_3  (7, 7, 64)  float32  12.2 KiB a row, 147 KiB in all\n",
        "disk           147 KiB needed, ",
        "batches        6 rows: half of the rows, for two batches are computed at a time\n",
        "engine         graph on CPU, float32: it builds the model from its file alone\n",
        "preprocessing  112x112 bilinear, crop none, raw (the model has a Rescaling layer `rescaling`)\n",
    ):
        assert expected in told
    found = json.loads(run(MODEL, IMAGES, "-l", "conv5_3", "-o", output, "--json").stdout)
    assert (found["rows"], found["bytes"], found["problem"]) == (12, 12 * 7 * 7 * 64 * 4, None)
    assert found["layers"][0]["shape"] == [7, 7, 64]
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_the_code_that_the_run_would_end_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.npz"
    output.write_bytes(b"mine")
    found = run(MODEL, IMAGES, "-l", "conv5_3", "-o", str(output), "--json", code=73)
    assert json.loads(found.stdout)["problem"]["exit_code"] == 73
    assert "layerprobe: " in found.stderr
    assert "exists" in found.stderr
    monkeypatch.setattr(disk, "free_space", lambda _: 0)
    run(MODEL, IMAGES, "-l", "conv5_3", "-o", str(tmp_path / "other.npz"), code=74)
    to_stdout = CliRunner().invoke(cli, ["extract", MODEL, IMAGES, "-l", "x", "-o", "-", "--dry-run"])
    assert isinstance(to_stdout.exception, UsageError)
    assert os.listdir(tmp_path) == ["out.npz"]
    assert output.read_bytes() == b"mine"


def test_of_a_stream_and_of_rows_without_places_the_size_is_not_known(tmp_path: Path) -> None:
    told = run(MODEL, IMAGES, "-l", "conv5_3", "-o", str(tmp_path / "out.jsonl")).stdout
    assert "what it takes is not known before" in told


@pytest.mark.slow
def test_a_model_that_needs_keras_is_planned_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path / "cache"))
    model, code = str(SAMPLES / "subclassed_shapes.keras"), str(SAMPLES / "subclassed_shapes.py")
    from layerprobe.cli.model_options import read_custom

    arguments: Any = (model, [IMAGES], ["output"], str(tmp_path / "out.h5"))
    custom = read_custom([code])
    for engine in ("auto", "keras"):
        planned = layerprobe.dry_run(*arguments, custom_objects=custom, engine=engine)
        assert list(tmp_path.iterdir()) == []
        report = layerprobe.extract(*arguments, custom_objects=custom, engine=engine, overwrite=True)
        assert planned.layers == report.layers
        with open_output(tmp_path / "out.h5") as reader:
            assert reader.provenance["engine"]["name"] == planned.engine["name"]
            assert reader.provenance["engine"]["batch_size"] == planned.batch_size
        for path in tmp_path.rglob("*"):
            path.is_file() and path.unlink()
        (tmp_path / "cache").is_dir() and (tmp_path / "cache").rmdir()
