"""NaN and infinity: OpenVINO makes numbers of them where Keras does not, so they never reach it."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import layerprobe
from layerprobe.engines.finite import all_finite
from layerprobe.errors import UnavailableError, UsageError


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_holds_one_fails_alone(samples: Path, tmp_path: Path, value: float) -> None:
    rows = np.random.default_rng(0).uniform(0, 255, (5, 112, 112, 3)).astype(np.float32)
    np.save(tmp_path / "good.npy", rows)
    rows[3, 7, 7, 1] = value
    np.save(tmp_path / "bad.npy", rows)
    found = {}
    for name in ("good", "bad"):
        report = layerprobe.extract(
            samples / "vgg_shapes.h5", str(tmp_path / f"{name}.npy"), ["conv5_3"], tmp_path / f"{name}.h5",
            engine="graph", batch_size=2,
        )  # fmt: skip
        with layerprobe.open(tmp_path / f"{name}.h5") as reader:
            found[name] = np.asarray(reader["conv5_3"])
    assert [failure.index for failure in report.failures] == [3]
    assert "--engine keras" in report.failures[0].reason
    others = [0, 1, 2, 4]
    assert np.array_equal(found["good"][others], found["bad"][others])
    assert np.isnan(found["bad"][3]).all()


def test_a_probe_says_what_to_do_about_them(samples: Path) -> None:
    probe = layerprobe.Probe(samples / "vgg_shapes.h5", ["conv1_1"], engine="graph")
    with pytest.raises(UsageError, match="--engine keras"):
        probe(np.full((2, 112, 112, 3), np.nan))


def test_weights_that_hold_them_are_left_to_keras(samples: Path, tmp_path: Path) -> None:
    path = shutil.copy(samples / "vgg_shapes.h5", tmp_path)

    def damage(name: str, found: object) -> None:
        if isinstance(found, h5py.Dataset) and "conv3_1" in name and found.ndim == 4:
            found[0, 0, 0, :3] = np.nan

    with h5py.File(path, "r+") as file:
        file.visititems(damage)
    with pytest.raises(UnavailableError, match="3 NaN or infinite values in kernel of layer 'conv3_1'"):
        layerprobe.Probe(path, ["conv3_1"], engine="graph")(np.zeros((1, 112, 112, 3)))
    before = layerprobe.Probe(path, ["conv2_1"], engine="graph")
    assert np.isfinite(before(np.zeros((1, 112, 112, 3)))["conv2_1"]).all()


def test_large_numbers_are_finite_though_their_sum_is_not() -> None:
    assert all_finite(np.full(1000, 3e38, np.float32))
    assert all_finite(np.arange(5))
    assert not all_finite(np.array([1, np.inf, -np.inf], np.float32))
