"""`layerprobe info`: what an output holds, in a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_samples import PROVENANCE

from layerprobe import registry
from layerprobe.records import Provenance, TensorSpec

LAYERS = (TensorSpec("conv5_3", (2, 2, 3), "float32"), TensorSpec("output", (4,), "float32"))
COMPLETE = dataclasses.replace(
    PROVENANCE,
    layers=[
        {"name": "conv5_3", "layer": "conv5_3", "class_name": "Conv2D"},
        {"name": "output", "layer": "predictions", "class_name": "Dense"},
    ],
    preprocessing={"size": [24, 32], "resize": "box", "crop": "pad", "preset": "tf", "reason": "asked for"},
    engine={"name": "graph", "device": "CPU", "precision": "float32", "batch_size": 8},
)
Command = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Provenance], Path]:
    """An output of three rows, the second of which failed."""

    def write_output(name: str, provenance: Provenance) -> Path:
        path = tmp_path / name
        file_format = registry.SUFFIXES[path.suffix]
        paths = ["a.jpg", "b\x1b[31m.jpg", "c.jpg"]
        writer = registry.find(registry.WRITERS, file_format, "format")(str(path), LAYERS, paths)
        writer.write(0, {spec.name: np.zeros((3, *spec.shape), spec.dtype) for spec in LAYERS})
        writer.commit({1: "truncated JPEG"}, provenance)
        return path

    return write_output


@pytest.mark.parametrize("name", ["x.npz", "x.h5", "folder", "x.safetensors", "x.parquet", "x.zarr"])
def test_rows_layers_and_where_they_come_from_are_told(write: Any, command: Command, name: str) -> None:
    path = write(name, COMPLETE)
    ended = command("info", path)
    assert ended.code == 0
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0].split(None, 1) == [str(path), "3 rows (2 ok, 1 failed)"]
    assert " ".join(lines[1].split()) == "layer conv5_3 (3, 2, 2, 3) float32 Conv2D"
    assert " ".join(lines[2].split()) == "layer output (3, 4) float32 Dense predictions"
    assert "24x32 box, crop pad, tf (asked for)" in ended.out
    assert "graph on CPU, float32, batch 8" in ended.out
    assert "\x1b" not in ended.out
    assert lines[-1].split(None, 2)[:2] == ["row", "1"]
    assert lines[-1].endswith("truncated JPEG")


def test_json_has_the_names_as_they_are_and_every_failure(write: Any, command: Command) -> None:
    told = json.loads(command("info", write("x.h5", COMPLETE), "--json").out)
    assert told["rows"] == 3
    assert told["status"] == {"ok": 2, "failed": 1}
    assert told["layers"][0] == {"name": "conv5_3", "shape": [3, 2, 2, 3], "dtype": "float32"}
    assert told["errors"] == [{"row": 1, "path": "b\x1b[31m.jpg", "error": "truncated JPEG"}]
    assert told["provenance"]["engine"]["batch_size"] == 8


def test_a_provenance_without_its_keys_is_one_sentence_and_still_shown_as_json(
    write: Any, command: Command
) -> None:
    path = write("x.npz", PROVENANCE)
    ended = command("info", path)
    assert (ended.code, ended.out) == (65, "")
    assert "its provenance is not what extract writes" in ended.err
    assert json.loads(command("info", path, "--json").out)["rows"] == 3
