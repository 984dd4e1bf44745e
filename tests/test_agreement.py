"""The measure that engines are held to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from layerprobe.engines.agreement import Agreement, compare, limit, relative_difference

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("found", "wanted", "difference"),
    [
        ([1.0, 2.0, -4.0], [1.0, 2.0, -4.0], 0.0),
        ([1.0, 2.5, -4.0], [1.0, 2.0, -4.0], 0.125),
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([1.0, INF, -INF], [1.5, INF, -INF], 1 / 3),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, INF], [1.0, 2.0], INF),
        ([1.0, INF], [1.0, -INF], INF),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 1e-20], [0.0, 0.0], INF),
        ([], [], 0.0),
        ([[1.0, 2.0]], [1.0, 2.0], INF),
    ],
)
def test_the_difference_is_the_largest_over_the_largest_value(
    found: list[float], wanted: list[float], difference: float
) -> None:
    assert relative_difference(np.array(found), np.array(wanted)) == pytest.approx(difference)


@pytest.mark.parametrize(
    ("found", "wanted", "difference"),
    [
        (np.array([1, 2]), np.array([1, 2]), 0.0),
        (np.array([1, 10**9]), np.array([1, 10**9 + 1]), INF),
        (np.array([True]), np.array([False]), INF),
        (np.array([1.0], "float32"), np.array([1.0]), INF),
        (np.array([1.0], "float16"), np.array([1.0], "float16"), 0.0),
    ],
)
def test_whole_numbers_and_types_are_to_be_equal(
    found: np.ndarray, wanted: np.ndarray, difference: float
) -> None:
    assert relative_difference(found, wanted) == difference


def test_overflow_in_the_difference_is_none() -> None:
    huge = np.array([3e38], "float32")
    assert relative_difference(-huge, huge) == pytest.approx(2.0)


def test_the_worst_layer_decides_and_is_named() -> None:
    wanted = {"a": np.ones((3, 2), "float32"), "b": np.full((3, 4), 2.0, "float32")}
    found = {"a": wanted["a"], "b": wanted["b"] + np.float32(1e-3)}
    verdict = compare(found, wanted, layers=2)
    assert (verdict.layer, verdict.rows, verdict.agreed) == ("b", 3, False)
    assert str(verdict) == "largest relative difference 5.0e-04, in 'b', 3 rows"
    assert compare(wanted, wanted, layers=2).agreed


def test_a_verdict_without_numbers_says_so() -> None:
    assert str(Agreement(INF, "a", 1e-5, 1)) == "not comparable in 'a', 1 row"


def test_deep_models_may_differ_more() -> None:
    assert (limit(100), limit(101)) == (1e-5, 1e-4)
