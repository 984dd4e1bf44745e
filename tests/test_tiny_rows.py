"""Rows so small that a batch costs more than its rows: there are more of them in it, and they are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import layerprobe
from layerprobe.errors import StoppedError
from layerprobe.formats.opening import open_output

ROWS, CHANNELS = 300, 16
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(0, 0.1, (3, 3, 3, CHANNELS)).astype("float32")


def model_file(path: Path, side: int | None, batch: int | None = None) -> Path:
    """A convolution with ReLU, in the layout of Keras 2."""
    start = {"name": "image", "batch_input_shape": [batch, side, side, 3], "dtype": "float32"}
    conv = {
        "name": "conv",
        "filters": CHANNELS,
        "kernel_size": [3, 3],
        "padding": "same",
        "activation": "relu",
    }
    layers = [{"class_name": "InputLayer", "config": start}, {"class_name": "Conv2D", "config": conv}]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.11.0", "tensorflow"
        config = {"class_name": "Sequential", "config": {"name": "tiny", "layers": layers}}
        file.attrs["model_config"] = json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"conv"]
        group = weights.create_group("conv")
        group.attrs["weight_names"] = [b"conv/kernel:0", b"conv/bias:0"]
        group["conv/kernel:0"], group["conv/bias:0"] = KERNEL, np.full(CHANNELS, 0.1, "float32")
    return path


def pooled(images: np.ndarray) -> np.ndarray:
    """What that model gives, averaged over all positions, by NumPy alone."""
    padded = np.pad(images.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    found = np.einsum("nhwcij,ijck->nhwk", windows, KERNEL.astype("float64"))
    return np.maximum(found + np.float32(0.1), 0).mean((1, 2))


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    values = RANDOM.integers(0, 256, (ROWS, 8, 8, 3), "uint8")
    np.save(tmp_path / "x.npy", values)
    return values


def run(tmp_path: Path, **options: Any) -> Any:
    return layerprobe.extract(
        *(tmp_path / "tiny.h5", [str(tmp_path / "x.npy")], ["conv"], tmp_path / "out.h5"),
        pool="gap",
        **options,
    )


def test_tiny_rows_are_computed_64_at_a_time_and_are_those_of_numpy(
    tmp_path: Path, images: np.ndarray
) -> None:
    model_file(tmp_path / "tiny.h5", 8)
    run(tmp_path)
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.provenance["engine"]["batch_size"] == 64
        np.testing.assert_allclose(reader["conv"], pooled(images), rtol=1e-5, atol=1e-5)
        assert reader.paths[299] == f"{tmp_path}/x.npy[299]"


@pytest.mark.parametrize(("side", "rows", "size"), [(8, 300, 64), (8, 21, 11), (32, 300, 8), (128, 300, 8)])
def test_how_many_rows_are_computed_at_once_their_size_decides(
    tmp_path: Path, side: int, rows: int, size: int
) -> None:
    model_file(tmp_path / "m.h5", side)
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "uint8", (rows, side, side, 3))
    plan = layerprobe.dry_run(tmp_path / "m.h5", [str(tmp_path / "x.npy")], ["conv"], tmp_path / "out.h5")
    assert plan.batch_size == size


@pytest.mark.parametrize("batch", [10, None])
def test_a_run_goes_on_in_the_batches_it_began_with(
    tmp_path: Path, images: np.ndarray, batch: int | None
) -> None:
    model_file(tmp_path / "tiny.h5", 8)
    with pytest.raises(StoppedError):
        run(tmp_path, batch_size=batch, stop=lambda: True)
    plan = layerprobe.dry_run(
        *(tmp_path / "tiny.h5", [str(tmp_path / "x.npy")], ["conv"], tmp_path / "out.h5"),
        pool="gap",
        resume=True,
    )
    assert (plan.batch_size, plan.problem) == (batch or 64, None)
    if batch is not None:
        assert plan.batch_size_reason == "those of the run that it goes on with"
    assert run(tmp_path, resume=True).rows == ROWS
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.provenance["engine"]["batch_size"] == (batch or 64)
        np.testing.assert_allclose(reader["conv"], pooled(images), rtol=1e-5, atol=1e-5)
    assert "nothing to do" in run(tmp_path, resume=True).notes[-1]
