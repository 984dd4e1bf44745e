"""What the doctor computes, against NumPy and SciPy by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import integrate, stats

from layerprobe.diagnosis.divergence import Moments, divergence, joined, moments, pooled, without_each
from layerprobe.diagnosis.norms import StoredNorm
from layerprobe.diagnosis.ranking import SHARES, Ranked, rank
from layerprobe.diagnosis.sampling import spread
from layerprobe.diagnosis.trials import presets, ways_to_resize
from layerprobe.diagnosis.verdict import judge_presets, judge_resizing
from layerprobe.images.preprocess import parse_preprocess, preprocess_text
from layerprobe.records import Preprocessing


@pytest.mark.parametrize(
    ("mean", "deviation", "stored_mean", "stored"),
    [(0, 1, 0, 1), (1, 2, -1, 0.5), (-3, 0.2, 5, 4), (10, 3, 9, 3)],
)
def test_the_divergence_is_the_integral_of_two_normals(
    mean: float, deviation: float, stored_mean: float, stored: float
) -> None:
    p, q = stats.norm(mean, deviation), stats.norm(stored_mean, stored)
    bounds = (mean - 12 * deviation, mean + 12 * deviation)
    expected, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), *bounds, limit=200)
    found = divergence(
        np.array([mean]), np.array([deviation**2]), np.array([stored_mean]), np.array([stored**2])
    )
    assert found[0] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("shape", "axis"), [((6, 5, 4, 3), -1), ((6, 3, 5, 4), 1), ((6, 3), -1)])
def test_moments_are_those_of_all_values_of_a_channel(shape: tuple[int, ...], axis: int) -> None:
    values = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    found = joined([moments(values[:2], axis), moments(values[2:], axis)])
    others = tuple(place for place in range(values.ndim) if place != axis % values.ndim)
    mean, variance = pooled(found)
    assert mean == pytest.approx(values.mean(others, dtype=np.float64), rel=1e-6)
    assert variance == pytest.approx(values.var(others, dtype=np.float64), rel=1e-6)
    for left_out in range(6):
        rest = np.delete(values, left_out, 0)
        assert without_each(found)[0][left_out] == pytest.approx(
            rest.mean(others, dtype=np.float64), rel=1e-6
        )
        assert without_each(found)[1][left_out] == pytest.approx(rest.var(others, dtype=np.float64), rel=1e-6)


def norm(**changes: object) -> StoredNorm:
    made = StoredNorm("bn", -1, np.zeros(3), np.ones(3), 1e-3, 0.0, ("image",), False)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def arrived(shift: float, scale: float = 1.0, images: int = 10) -> dict[str, Moments]:
    values = np.random.default_rng(1).normal(0, 1, (images, 40, 3)) * scale + shift
    return {"bn": moments(values, -1)}


def by_hand(found: Moments, leave_out: int | None = None) -> float:
    kept = [place for place in range(len(found.means)) if place != leave_out]
    total = 0.0
    for channel in range(3):
        mean = found.means[kept, channel].mean()
        variance = found.squares[kept, channel].mean() - mean**2 + 1e-3
        total += 0.5 * (variance / 1.001 - 1 - math.log(variance / 1.001) + mean**2 / 1.001)
    return total / 3


def test_ranks_times_and_errors_are_those_worked_out_by_hand() -> None:
    ways = [parse_preprocess("raw"), parse_preprocess("unit"), parse_preprocess("tf")]
    found = [arrived(0.5), arrived(0.0), arrived(0.0, 3.0)]
    ranked = rank(ways, found, [norm()])
    assert [one.preset for one in ranked] == ["unit", "raw", "tf"]
    expected = [by_hand(found[place]["bn"]) for place in (1, 0, 2)]
    assert [one.divergence for one in ranked] == pytest.approx(expected)
    assert [one.times for one in ranked] == pytest.approx([value / expected[0] for value in expected])
    apart = np.array([by_hand(found[0]["bn"], i) - by_hand(found[1]["bn"], i) for i in range(10)])
    error = math.sqrt(9 / 10 * np.square(apart - apart.mean()).sum())
    assert ranked[0].errors == 0
    assert ranked[1].errors == pytest.approx((expected[1] - expected[0]) / error)


def test_what_training_began_with_may_be_left_in_a_variance() -> None:
    stored = np.full(3, 0.01 + 0.03)
    plain, excused = norm(variance=stored), norm(variance=stored, remaining=0.05)
    ways, found = [parse_preprocess("raw")], [arrived(0.0, 0.1)]
    assert rank(ways, found, [plain])[0].divergence > 10 * rank(ways, found, [excused])[0].divergence
    assert max(SHARES) == 1
    assert min(SHARES) == 0


def test_of_one_image_no_error_can_be_told() -> None:
    ways = [parse_preprocess("raw"), parse_preprocess("unit")]
    ranked = rank(ways, [arrived(0.5, images=1), arrived(0.0, images=1)], [norm()])
    assert [(one.preset, one.errors) for one in ranked] == [("unit", 0.0), ("raw", 0.0)]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_candidate_is_a_text_that_gives_it_again(channels: int) -> None:
    like = Preprocessing((8, 9), channels, resize="box", crop="center")  # type: ignore[arg-type]
    found = presets(like)
    assert len({preprocess_text(how) for how in found}) == len(found) == (12 if channels == 3 else 4)
    for how in found:
        again = parse_preprocess(preprocess_text(how), size=(8, 9), channels=channels)  # type: ignore[arg-type]
        assert dataclasses.replace(again, resize="box", crop="center") == how


def test_the_filter_in_use_comes_first_among_equals() -> None:
    assert ways_to_resize(Preprocessing((8, 9), resize="lanczos"), crops=False)[0].resize == "lanczos"
    assert len(ways_to_resize(Preprocessing((8, 9)), crops=True)) == 12


def test_the_sample_is_in_the_middles_of_equal_parts() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 5) == [1, 3, 5, 7, 9]
    assert spread(1_000_000, 2) == [250_000, 750_000]
    assert len(set(spread(65, 64))) == 64


def ranked(preset: str, divergence: float, times: float, errors: float, resize: str = "bilinear") -> Ranked:
    how = dataclasses.replace(parse_preprocess(preset), resize=resize)
    return Ranked(how, divergence, times, errors, {})


CLEAR = (ranked("unit", 0.1, 1, 0), ranked("bgr:unit", 0.3, 3, 5), ranked("tf", 0.6, 6, 8))


def test_only_what_is_clear_in_size_and_in_spread_is_a_verdict() -> None:
    verdict = judge_presets(CLEAR, [norm()], 64)
    assert (verdict.clear, verdict.ties) == (True, ())
    assert "6 times better than with tf, the next best" in verdict.reason
    assert not judge_presets(CLEAR, [norm()], 7).clear
    assert not judge_presets((*CLEAR[:2], ranked("tf", 0.29, 2.9, 8)), [norm()], 64).clear
    assert not judge_presets((*CLEAR[:2], ranked("tf", 0.6, 6, 2.9)), [norm()], 64).clear
    assert not judge_presets([dataclasses.replace(CLEAR[0], divergence=0.51), *CLEAR[1:]], [norm()], 64).clear
    assert not judge_presets(
        [dataclasses.replace(CLEAR[0], divergence=math.nan), *CLEAR[1:]], [norm()], 64
    ).clear


def test_what_is_no_preset_has_to_be_clearer() -> None:
    rare = ranked("127.5/255", 0.1, 1, 0)
    assert not judge_presets([rare, ranked("tf", 0.99, 9.9, 8)], [norm()], 64).clear
    assert judge_presets([rare, ranked("tf", 1.01, 10.1, 8)], [norm()], 64).clear


def test_an_order_that_is_not_clear_is_the_presets_own_and_said_to_be_assumed() -> None:
    close = (ranked("bgr:unit", 0.1, 1, 0), ranked("unit", 0.12, 1.2, 2.9), CLEAR[2])
    verdict = judge_presets(close, [norm()], 64)
    assert verdict.preprocessing == close[1].preprocessing
    assert [one.preset for one in verdict.ties] == ["bgr:unit"]
    assert "the order RGB is assumed" in verdict.reason
    apart = (close[0], ranked("unit", 0.12, 1.2, 3.1), CLEAR[2])
    assert judge_presets(apart, [norm()], 64).preprocessing == close[0].preprocessing


def test_a_filter_is_changed_only_where_it_shows() -> None:
    like = parse_preprocess("unit")
    best = ranked("unit", 0.1, 1, 0, "nearest")
    for times, errors, expected in ((1.4, 9, "bilinear"), (9, 2.9, "bilinear"), (1.6, 3.1, "nearest")):
        verdict = judge_resizing((best, ranked("unit", 0.1 * times, times, errors)), like)
        assert verdict.preprocessing is not None
        assert verdict.preprocessing.resize == expected
