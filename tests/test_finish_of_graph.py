"""What the graph engine does with results before they are stored, held against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layerprobe
from layerprobe.engines.openvino_cpu import OpenVINOFunctions
from layerprobe.reductions import HOST

LAYERS = ["conv1_1", "global_average_pooling", "predictions"]


def float16(values: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float16)


def test_a_cast_gives_numpys_bits_for_values_of_every_kind() -> None:
    bits = np.arange(0, 2**32, 8191, dtype=np.uint64).astype(np.uint32)
    edges = np.array([65504, 65519.996, 65520, -65520, 2.0**-24, 2.0**-25, np.inf, -np.inf, 0, -0.0], "f4")
    values = np.concatenate([bits.view(np.float32), edges])
    found, wanted = OpenVINOFunctions.cast(values, "float16"), float16(values)
    numbers = ~np.isnan(values)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found[numbers].view(np.uint16), wanted[numbers].view(np.uint16))
    assert np.isnan(found[~numbers]).all()


@pytest.mark.parametrize("shape", [(0, 400, 400), (1, 3), (2, 400, 401, 3)])
def test_a_cast_keeps_the_shape_of_parts_of_arrays_too(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(0, 40_000, (*shape[:-1], shape[-1] + 1)).astype("float32")
    part = values[..., 1:]
    np.testing.assert_array_equal(OpenVINOFunctions.cast(part, "float16"), float16(part))
    np.testing.assert_array_equal(part, values[..., 1:], "it is not modified")
    assert OpenVINOFunctions.cast(part, "float64").dtype == np.float64


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_infinities_are_counted_by_row(dtype: str) -> None:
    values = np.zeros((3, 4, 5), dtype)
    values[0, 0, :3] = np.inf, -np.inf, np.nan
    values[2] = -np.inf
    values[1, 0, :3] = 65504, -65504, 6e-8
    assert HOST.infinities(values).tolist() == [2, 0, 20]


@pytest.mark.parametrize("pool", ["none", "gap", "gmp", "flatten"])
def test_what_is_stored_is_what_the_layers_gave_finished_by_hand(
    pool: str, samples: Path, tmp_path: Path
) -> None:
    images = np.random.default_rng(1).uniform(0, 255, (5, 112, 112, 3)).astype("float32")
    # So large that part of the first layer's values are none that float16 has.
    images[1] *= 1e6
    np.save(tmp_path / "images.npy", images)
    model, where = samples / "vgg_shapes.h5", str(tmp_path / "images.npy")
    for dtype in ("float32", "float16"):
        layerprobe.extract(
            model, where, LAYERS, tmp_path / f"{dtype}.npz",
            engine="graph", pool=pool, dtype=dtype, batch_size=2, preprocess="raw",
        )  # fmt: skip
    whole, stored = (np.load(tmp_path / f"{dtype}.npz") for dtype in ("float32", "float16"))
    given = layerprobe.Probe(model, LAYERS, engine="graph")(images)
    for name in LAYERS:
        values = given[name].astype("float64")
        axes = tuple(range(1, values.ndim - 1))
        if pool == "flatten":
            values = values.reshape(5, -1)
        elif pool in ("gap", "gmp") and axes:
            values = values.mean(axes) if pool == "gap" else values.max(axes)
        np.testing.assert_allclose(whole[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
        np.testing.assert_array_equal(stored[name], float16(whole[name]))
    lost = {name: int(np.isinf(stored[name]).sum()) for name in LAYERS}
    assert lost["conv1_1"] > 0
    for dtype, counts in (("float32", {}), ("float16", {name: n for name, n in lost.items() if n})):
        with layerprobe.open(tmp_path / f"{dtype}.npz") as output:
            assert output.provenance["inputs"].get("overflows", {}) == counts
