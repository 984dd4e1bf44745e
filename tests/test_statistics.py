"""Statistics of activations, against NumPy over all values at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from output_samples import PROVENANCE

from layerprobe import registry, statistics
from layerprobe.errors import OutputFormatError, UnknownLayerError, UsageError
from layerprobe.records import TensorSpec
from layerprobe.statistics import BINS, ChannelStatistics, bin_edges, linear_histogram, output_statistics

RANDOM = np.random.default_rng(5)


def counted(*parts: Any, channel_axis: int = -1) -> statistics.LayerStatistics:
    found = ChannelStatistics(channel_axis)
    for part in parts:
        found.add(part)
    return found.result


def assert_same(one: statistics.LayerStatistics, other: statistics.LayerStatistics) -> None:
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "bool", "uint8"])
@pytest.mark.parametrize("shape", [(50, 4, 5, 6), (50, 9, 6), (50, 6), (50,)])
def test_every_number_is_numpys_over_all_rows(dtype: str, shape: tuple[int, ...]) -> None:
    values = (RANDOM.normal(3, 20, shape)).astype(dtype)
    values[::7] = 0
    found = counted(values[:20], values[20:21], values[21:])
    wide = values.astype(np.float64).reshape(-1, shape[-1] if len(shape) > 1 else 1)
    assert found.rows == 50
    np.testing.assert_array_equal(found.count, [len(wide)] * wide.shape[1])
    np.testing.assert_allclose(found.mean, wide.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.variance, wide.var(0), rtol=1e-12)
    np.testing.assert_array_equal(found.minimum, wide.min(0))
    np.testing.assert_array_equal(found.maximum, wide.max(0))
    np.testing.assert_array_equal(found.zeros, (wide == 0).sum(0))
    assert found.histogram.sum() == wide.size


def test_channels_first_rows_have_their_channels_first() -> None:
    values = RANDOM.normal(size=(5, 3, 4, 7)).astype("float32")
    assert_same(counted(values, channel_axis=0), counted(np.ascontiguousarray(np.moveaxis(values, 1, -1))))


@given(cuts=st.lists(st.integers(1, 59), max_size=8), order=st.randoms(use_true_random=False))
def test_neither_blocks_nor_the_order_of_merging_show(cuts: list[int], order: Any) -> None:
    values = (RANDOM.normal(size=(60, 4, 3)) * 10.0 ** RANDOM.integers(-6, 7, (60, 1, 3))).astype("float32")
    parts = np.split(values, sorted(cuts))
    order.shuffle(parts)
    merged = ChannelStatistics()
    for part in parts:
        of_part = ChannelStatistics()
        of_part.add(part)
        merged.merge(of_part)
    assert_same(merged.result, counted(values))


def test_a_small_variance_around_a_large_mean_is_not_lost() -> None:
    values = np.float32(30_000) + RANDOM.normal(0, 0.1, (2000, 2)).astype("float32")
    np.testing.assert_allclose(counted(values).variance, values.astype(np.float64).var(0), rtol=1e-9)


def test_nan_and_infinite_values_are_counted_and_left_out_of_all_else() -> None:
    values = RANDOM.normal(size=(6, 2, 3)).astype("float32")
    values[1, 0, 0], values[2, 1, 1], values[:, :, 2] = np.nan, -np.inf, np.nan
    found = counted(values)
    assert found.nan.tolist() == [1, 0, 12]
    assert found.infinite.tolist() == [0, 1, 0]
    assert found.count.tolist() == [11, 11, 0]
    flat = values.astype(np.float64).reshape(-1, 3)
    for channel in (0, 1):
        kept = flat[np.isfinite(flat[:, channel]), channel]
        assert found.mean[channel] == pytest.approx(kept.mean(), rel=1e-14)
        assert found.minimum[channel] == kept.min()
    assert np.isnan([found.mean[2], found.variance[2], found.minimum[2], found.maximum[2]]).all()


def test_a_channel_that_is_always_0_is_dead() -> None:
    values = np.zeros((4, 5, 3), "float32")
    values[2, 3, 1], values[:, :, 2] = 1e-30, -0.0
    assert counted(values).dead.tolist() == [True, False, True]


def test_each_value_is_within_the_edges_of_its_bin() -> None:
    values = [0.0, -0.0, 1.0, -1.0, 1.249, 1.25, 3e38, -3e38, 1e-45, 1e-30, -7.5, 65504.0]
    for value in values:
        (number,) = np.flatnonzero(counted(np.array([[value]], "float32")).histogram)
        first, last = sorted(bin_edges(int(number)))
        assert first <= np.float32(value) <= last
        assert value == 0 or max(abs(first), abs(last)) <= 1.26 * abs(value) or not 1e-38 < abs(value) < 1e38
    assert BINS == 2048


def test_the_linear_histogram_has_every_value_about_where_it_is() -> None:
    values = RANDOM.uniform(-2, 6, (100_000, 1)).astype("float32")
    counts = linear_histogram(counted(values), 8)
    assert counts.sum() == pytest.approx(100_000)
    np.testing.assert_allclose(counts, np.histogram(values, 8)[0], rtol=0.15)
    assert linear_histogram(counted(np.full((9, 1), 2.5, "float32")), 4).sum() == pytest.approx(9)
    assert linear_histogram(counted(np.full((9, 1), np.nan, "float32")), 4).tolist() == [0, 0, 0, 0]


def test_statistics_of_different_layers_cannot_be_merged() -> None:
    one, other = ChannelStatistics(), ChannelStatistics()
    one.add(np.zeros((1, 3)))
    other.add(np.zeros((1, 4)))
    with pytest.raises(UsageError, match="3 and of 4 channels"):
        one.merge(other)


LAYERS = (TensorSpec("conv", (3, 4, 5), "float32"), TensorSpec("first", (5, 2, 2), "float32", 0))
ORIGIN = dataclasses.replace(
    PROVENANCE,
    layers=[
        {"name": spec.name, "shape": list(spec.shape), "channel_axis": spec.channel_axis} for spec in LAYERS
    ],
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_output(name: str, values: Any, origin: Any = ORIGIN, failed: Any = ()) -> Path:
        path = tmp_path / name
        writer_class = registry.find(registry.WRITERS, registry.SUFFIXES[path.suffix], "format")
        writer = writer_class(str(path), LAYERS, [f"{row}.jpg" for row in range(len(values["conv"]))])
        writer.write(0, values)
        writer.commit(dict.fromkeys(failed, "broken"), origin)
        return path

    return write_output


def some_values(rows: int) -> dict[str, Any]:
    return {spec.name: RANDOM.normal(size=(rows, *spec.shape)).astype("float32") for spec in LAYERS}


def test_outputs_of_one_run_count_as_one_and_failed_rows_not_at_all(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "CHUNK_VALUES", 130)
    values = some_values(20)
    parts = [{name: array[rows] for name, array in values.items()} for rows in (slice(0, 13), slice(13, 20))]
    for part in parts:
        part["conv"][[1, 4]] = np.nan
    files = [write("a.npz", parts[0], failed=(1, 4)), write("b.h5", parts[1], failed=(1, 4))]
    good = [row for row in range(20) if row not in (1, 4, 14, 17)]
    found = output_statistics(files)
    assert list(found) == ["conv", "first"]
    assert_same(found["conv"], counted(values["conv"][good]))
    assert_same(found["first"], counted(values["first"][good], channel_axis=0))


def test_outputs_of_another_run_are_refused(write: Any) -> None:
    one = write("a.h5", some_values(2))
    other = write("b.h5", some_values(2), dataclasses.replace(ORIGIN, model={"sha256": "11" * 32}))
    with pytest.raises(UsageError, match="b.h5': its model"):
        output_statistics([one, other])
    with pytest.raises(OutputFormatError, match="not what extract writes"):
        output_statistics([write("c.h5", some_values(2), dataclasses.replace(ORIGIN, model={}))])
    with pytest.raises(UnknownLayerError, match="no layer 'convv'"):
        output_statistics([one], ["convv"])


def test_rows_that_are_given_twice_are_refused_rather_than_counted_twice(write: Any, command: Any) -> None:
    def part(name: str, *rows: int, listed: str = "aa", **more: Any) -> Path:
        signature = {"list_of_inputs": listed, "rows": list(rows)}
        origin = dataclasses.replace(ORIGIN, run={"signature": signature}, **more)
        return write(name, some_values(2), origin)

    first, second, both = part("a.h5", 0, 2), part("b.h5", 2, 4), part("c.h5", 1, 3)
    others = part("d.h5", 0, 2, listed="bb")
    maxima = part("e.h5", 4, 6, options={"pool": "gmp"})
    assert output_statistics([first, second, others])["conv"].rows == 6
    for once, again in ((first, first), (first, both), (second, both), (both, second)):
        with pytest.raises(UsageError, match=f"{again.name}' holds rows that .*{once.name}' holds too"):
            output_statistics([once, again])
    with pytest.raises(UsageError, match="e.h5': its pooling"):
        output_statistics([first, maxima])
    bare = write("f.h5", some_values(2))
    ended = command("stats", bare, bare.parent / "." / bare.name)
    assert (ended.code, ended.out) == (2, "")
    assert "give each of them once" in ended.err


def test_the_command_tells_the_same_in_a_table_and_as_json(write: Any, command: Any) -> None:
    values = some_values(3)
    values["conv"][..., 2] = 0
    values["conv"][0, 0, 0, 1] = np.inf
    path = write("a.npz", values)
    table = command("stats", path).out.splitlines()
    row = next(line.split() for line in table if line.startswith("conv"))
    kept = values["conv"][np.isfinite(values["conv"])].astype(np.float64)
    expected = [kept.mean(), kept.std(), kept.min(), kept.max()]
    assert row[1] == "5"
    np.testing.assert_allclose([float(text) for text in row[2:6]], expected, rtol=1e-3)
    assert row[8] == "1"
    assert table[-2:] == ["3 rows", "conv: 0 values are NaN, 1 infinite"]
    told = json.loads(command("stats", path, "--json", "-l", "conv").out)["conv"]
    assert told["dead"] == [False, False, True, False, False]
    assert told["infinite"] == [0, 1, 0, 0, 0]
    assert sum(part["count"] for part in told["histogram"]) == kept.size
    assert all(part["from"] < part["to"] for part in told["histogram"])
    lines = command("stats", path, "--channels", "-l", "conv").out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("conv ")] == list("01234")
    assert [line.split()[-1] for line in lines if line.startswith("conv ")][2] == "dead"
