from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from layerprobe import registry
from layerprobe.errors import UsageError
from layerprobe.reductions import flatten, global_average, global_maximum, keep

SHAPES = [(2, 3, 5, 4), (2, 7, 4), (2, 4), (2,), (1, 2, 3, 4, 5), (3, 1, 1, 6), (0, 3, 3, 2)]


@pytest.fixture(params=sorted(registry.REDUCTIONS))
def reduction(request: pytest.FixtureRequest) -> Any:
    return registry.find(registry.REDUCTIONS, request.param, "reduction")


@pytest.mark.parametrize("channel_axis", [-1, 0])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ml_dtypes.bfloat16, "i4", "u1", "?"], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_reduction_keeps_rows_and_does_not_depend_on_their_number(
    reduction: Any, shape: tuple[int, ...], dtype: Any, channel_axis: int
) -> None:
    values = (np.random.default_rng(0).random(shape) * 9).astype(dtype)
    values.flags.writeable = False
    reduced = reduction(values, channel_axis)
    assert len(reduced) == len(values)
    assert reduced.flags.c_contiguous
    # The pipeline learns shapes and dtypes from one row of zeros.
    one = reduction(np.zeros((1, *shape[1:]), dtype), channel_axis)
    assert (reduced.shape[1:], reduced.dtype) == (one.shape[1:], one.dtype)
    for row in range(len(values)):
        np.testing.assert_array_equal(reduction(values[row : row + 1], channel_axis)[0], reduced[row])


def test_small_maps_reduce_to_what_the_hand_works_out() -> None:
    maps = np.array([[[[1, 10], [2, 20]], [[3, 30], [6, 0]]]], "f4")  # (1, 2, 2, 2), channels last
    np.testing.assert_array_equal(global_average(maps, -1), [[3, 15]])
    np.testing.assert_array_equal(global_maximum(maps, -1), [[6, 30]])
    np.testing.assert_array_equal(global_average(maps, 0), [[8.25, 9.75]])
    np.testing.assert_array_equal(global_maximum(maps, 0), [[20, 30]])
    np.testing.assert_array_equal(flatten(maps, 0), [[1, 10, 2, 20, 3, 30, 6, 0]])
    np.testing.assert_array_equal(keep(maps, 0), maps)


def test_channels_first_and_last_agree() -> None:
    last = np.random.default_rng(0).random((3, 8, 9, 5), "f4")
    first = np.moveaxis(last, -1, 1)
    np.testing.assert_allclose(global_average(first, 0), global_average(last, -1), rtol=1e-7)
    np.testing.assert_array_equal(global_maximum(first, 0), global_maximum(last, -1))


@pytest.mark.parametrize("shape", [(1, 224, 224, 16), (1, 16, 224, 224)], ids=["last", "first"])
def test_averages_of_large_maps_are_exact_to_float32(shape: tuple[int, ...]) -> None:
    maps = np.maximum(np.random.default_rng(0).standard_normal(shape, "f4"), 0)
    first = shape[1] == 16
    exact = maps.astype("f8").sum((2, 3) if first else (1, 2)) / 224**2
    np.testing.assert_allclose(global_average(maps, 0 if first else -1), exact, rtol=1e-7)


def test_averages_of_half_floats_neither_overflow_nor_stall() -> None:
    # A float16 sum is infinite from 65,520 on; one of bfloat16 stands still at 256 times the summand.
    for dtype, value in (("f2", 60000.0), (ml_dtypes.bfloat16, 1.5)):
        average = global_average(np.full((1, 50, 50, 2), value, dtype), -1)
        assert average.dtype == dtype
        np.testing.assert_array_equal(average.astype("f4"), np.full((1, 2), value, dtype).astype("f4"))


def test_averages_of_integers_and_booleans_are_floats() -> None:
    for dtype in ("i8", "u1", "?"):
        average = global_average(np.array([[[1], [0], [1], [1]]], dtype), -1)
        assert average.dtype == np.float32
        np.testing.assert_array_equal(average, [[0.75]])


def test_not_a_number_is_not_lost() -> None:
    maps = np.ones((2, 3, 3, 2), "f4")
    maps[1, 2, 2, 0] = np.nan
    for reduce in (global_average, global_maximum):
        np.testing.assert_array_equal(reduce(maps, -1), [[1, 1], [np.nan, 1]])


def test_no_positions_at_all_are_reported() -> None:
    for reduce in (global_average, global_maximum):
        with pytest.raises(
            UsageError, match=r"shape \(0, 5, 2\) have no positions to pool over: use pool none"
        ):
            reduce(np.zeros((3, 0, 5, 2), "f4"), -1)
    assert flatten(np.zeros((3, 0, 5), "f4"), -1).shape == (3, 0)
