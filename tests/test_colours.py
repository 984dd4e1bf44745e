"""The colour scales: even in lightness, 0 in its own colour, missing values in grey."""

from __future__ import annotations

import numpy as np

from layerprobe.views.colours import MISSING, amounts, signed
from layerprobe.views.scale import Scale


def lightness(colours):
    """CIE L* of sRGB, worked out from IEC 61966-2-1 and CIE 15, not with the scales' own formulas."""
    encoded = np.asarray(colours, float) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_amounts_grow_lighter_in_even_steps():
    steps = np.diff(lightness(amounts(np.linspace(0, 1, 33))))
    assert (steps > 1.5).all()  # the first steps are the smallest: CIE L* is flatter than OKLab near black
    assert steps[3:].max() < 1.3 * steps[3:].min()


def test_signed_values_darken_alike_to_both_sides_of_a_nearly_white_zero():
    found = lightness(signed(np.linspace(-1, 1, 65)))
    assert found[32] > 94
    assert (np.diff(found[:33]) > 0).all()
    assert (np.diff(found[32:]) < 0).all()
    np.testing.assert_allclose(found, found[::-1], atol=9)
    blue, red = signed(np.array([-1.0, 1.0])).astype(int)
    assert blue[2] > blue[0] + 80
    assert red[0] > red[2] + 80


def test_what_is_outside_is_clipped_and_what_is_missing_grey():
    np.testing.assert_array_equal(amounts([-3, np.inf, 7]), amounts([0, 1, 1]))
    np.testing.assert_array_equal(signed([-np.inf, 9]), signed([-1, 1]))
    assert amounts([np.nan])[0].tolist() == list(MISSING)
    assert signed(np.full((2, 3), np.nan)).shape == (2, 3, 3)


def test_a_scale_keeps_the_colour_of_zero():
    values = np.array([0.0, 2.0, 5.0], np.float32)
    assert Scale.of(values) == Scale(0.0, 5.0)
    assert Scale.of(values + 3) == Scale(0.0, 8.0)
    assert Scale.of(-values) == Scale(-5.0, 5.0)
    assert Scale.of(values - 1) == Scale(-4.0, 4.0)
    np.testing.assert_array_equal(Scale.of(values - 1).colours(np.zeros(1)), signed([0.0]))
    np.testing.assert_array_equal(Scale.of(np.zeros(3)).colours(np.zeros(3)), amounts([0.0] * 3))
    assert Scale.of(np.array([np.nan, np.inf])) == Scale(0.0, 0.0)
