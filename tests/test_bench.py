"""`layerprobe bench`: rates of every stage, what bounds them, and what to change."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerprobe.bench.advice import advise
from layerprobe.bench.measure import bench
from layerprobe.bench.photos import make_photos
from layerprobe.errors import AllInputsFailedError, OutputError, UnknownLayerError
from layerprobe.options import ExtractOptions
from layerprobe.records import TensorSpec

STAGES = {"read", "decode", "preprocess", "input", "compute", "reduce", "write", "end to end"}
MAP = TensorSpec("conv", (7, 7, 64), "float32", layer="conv")


def test_every_stage_is_measured_and_nothing_is_left(samples: Path, tmp_path: Path) -> None:
    report = bench(samples / "vgg_shapes.h5", (), ["conv5_3", "output"], tmp_path, limit=20, rounds=2)
    assert set(report.rates) == STAGES
    assert all(rate > 0 for rate in report.rates.values())
    assert (report.rows, report.engine["name"], report.engine["batch_size"]) == (20, "graph", 8)
    assert report.row_bytes == (7 * 7 * 64 + 6) * 4
    seconds = sum(1 / report.rates[stage] for stage in ("input", "compute", "reduce", "write"))
    assert report.limit == pytest.approx(1 / seconds)
    assert report.bound_by in STAGES
    assert report.advice
    assert not list(tmp_path.iterdir())


def test_the_users_images_and_options_are_measured(samples: Path, tmp_path: Path) -> None:
    images = [str(samples / "images")]
    report = bench(
        samples / "vgg_shapes.h5",
        images,
        ["conv5_3"],
        tmp_path,
        rounds=1,
        pool="gap",
        dtype="float16",
        batch_size=5,
    )
    assert (report.rows, report.row_bytes, report.engine["batch_size"]) == (12, 64 * 2, 5)


def test_broken_images_are_left_out_of_what_is_measured(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    good = sorted(map(str, (samples / "images").glob("*.png")))[:3]
    arguments = (samples / "vgg_shapes.h5", [str(tmp_path / "broken.jpg"), *good], ["output"], tmp_path)
    assert bench(*arguments, rounds=1, batch_size=1).rows == 4
    assert bench(*arguments, rounds=1, batch_size=4).rows == 4
    with pytest.raises(AllInputsFailedError, match="no input can be used: give others"):
        bench(samples / "vgg_shapes.h5", [str(tmp_path / "broken.jpg")], ["output"], tmp_path)


def test_errors_come_before_anything_is_written(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        bench(samples / "vgg_shapes.h5", (), ["output"], tmp_path / "nowhere")
    with pytest.raises(UnknownLayerError):
        bench(samples / "vgg_shapes.h5", (), ["conv9"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_made_up_photographs_are_always_the_same_and_as_large_as_photographs(tmp_path: Path) -> None:
    first = {path: Path(path).read_bytes() for path in make_photos(str(tmp_path))}
    assert {path: Path(path).read_bytes() for path in make_photos(str(tmp_path))} == first
    for data in first.values():
        assert Image.open(io.BytesIO(data)).size == (500, 375)
        assert 40_000 < len(data) < 55_000
    assert len(set(first.values())) == len(first)


def test_advice_is_about_the_stage_that_bounds() -> None:
    how = ExtractOptions()
    write = advise("write", how, [MAP], 12_544, None)
    assert write[:2] == ("--pool gap: 256 bytes a row instead of 12,544", "--dtype float16: half the bytes")
    pooled = advise("write", ExtractOptions(pool="gap", dtype="float16"), [MAP], 128, None)
    assert [sentence for sentence in pooled if sentence.startswith("--")] == []
    assert advise("decode", how, [MAP], 1, (100.0, 800.0))[0] == (
        "--fast-decode: reading and decoding 100 -> 800 rows/s"
    )
    assert not any("fast-decode" in said for said in advise("decode", how, [MAP], 1, (100.0, 110.0)))
    assert "--workers" in advise("read", how, [MAP], 1, None)[0]
    assert "--device" in advise("compute", how, [MAP], 1, None)[0]
    assert advise("compute", how, [MAP], 1, (30.0, 57.0))[0] == (
        "--precision bfloat16, which is less exact: computing 30 -> 57 rows/s"
    )


def test_fast_decode_is_measured_where_decoding_bounds(samples: Path, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 255, (100, 130, 3), dtype=np.uint8)
    Image.fromarray(large).resize((3900, 3000)).save(tmp_path / "large.jpg")
    report = bench(
        samples / "vgg_shapes.h5",
        [str(tmp_path / "large.jpg")] * 4,
        ["conv1_1"],
        tmp_path,
        rounds=1,
        pool="gap",
    )
    assert report.bound_by in ("decode", "preprocess")
    assert report.advice[0].startswith("--fast-decode: reading and decoding")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "layerprobe", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_prints_a_table_or_json(samples: Path, tmp_path: Path) -> None:
    arguments = (samples / "vgg_shapes.h5", "-o", tmp_path, "--limit", 4, "--rounds", 1)
    shown = run(*arguments)
    assert shown.returncode == 0, shown.stderr
    stages = [line.split("  ")[0] for line in shown.stdout.splitlines()]
    assert [stage for stage in stages if stage in STAGES] == [
        "read", "decode", "preprocess", "input", "compute", "reduce", "write", "end to end"
    ]  # fmt: skip
    (report,) = json.loads(run(*arguments, "--json").stdout)
    assert set(report["rates"]) == STAGES
    refused = run(samples / "vgg_shapes.h5", "-o", tmp_path / "nowhere")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (73, 1)


@pytest.mark.slow
def test_engines_are_measured_side_by_side(samples: Path, tmp_path: Path) -> None:
    shown = run(samples / "vgg_shapes.h5", "-o", tmp_path, "--limit", 4, "--rounds", 1, "--engines", "--json")
    assert shown.returncode == 0, shown.stderr
    assert [report["engine"]["name"] for report in json.loads(shown.stdout)] == [
        "graph",
        "converted",
        "keras",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_after_a_signal(samples: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "layerprobe", "bench", samples / "vgg_shapes.h5", "-o", tmp_path]
    started = subprocess.Popen([*map(str, command), "--rounds", "1000"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".layerprobe-bench-*/.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(number)
    try:
        started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 128 + number
    assert not os.listdir(tmp_path)
