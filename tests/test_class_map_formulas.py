"""The arithmetic of class maps, written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layerprobe.class_maps.formulas import gradcam, gradcam_plus_plus, layercam
from layerprobe.class_maps.measured import ByGradients, class_signs, in_parts, probabilities
from layerprobe.engines.gradient_tensors import GradientTensors
from layerprobe.errors import ResourceError


def test_the_formulas_are_those_of_the_papers_written_out() -> None:
    random = np.random.default_rng(5)
    a, g = random.normal(size=(2, 3, 4)), random.normal(size=(2, 3, 4))
    grad, plus, layer = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))
    for k in range(4):
        total = a[..., k].sum()
        weight = sum(
            g[i, j, k] ** 2 / (2 * g[i, j, k] ** 2 + total * g[i, j, k] ** 3) * max(g[i, j, k], 0)
            for i in range(2)
            for j in range(3)
        )
        grad += g[..., k].mean() * a[..., k]
        plus += weight * a[..., k]
        layer += np.maximum(g[..., k], 0) * a[..., k]
    for found, expected in ((gradcam(a, g), grad), (gradcam_plus_plus(a, g), plus), (layercam(a, g), layer)):
        np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-9)
    assert not gradcam_plus_plus(a, np.zeros_like(g)).any(), "no gradient is no division by zero"


def test_probabilities_are_those_of_the_activation() -> None:
    scores = np.array([[1.0, -2.0, 800.0]], np.float32)
    np.testing.assert_allclose(probabilities(scores, "softmax"), [[0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(probabilities(scores, "sigmoid"), 1 / (1 + np.exp(-scores)), rtol=1e-5)
    np.testing.assert_allclose(probabilities(scores, "hard_sigmoid"), [[4 / 6, 1 / 6, 1]], rtol=1e-5)
    np.testing.assert_allclose(probabilities(scores, "keras2_hard_sigmoid"), [[0.7, 0.1, 1]], rtol=1e-5)
    assert probabilities(scores, "linear") is None
    assert class_signs(1, "linear").tolist() == [[1]]


def test_what_does_not_fit_into_memory_is_computed_in_parts() -> None:
    sizes = []

    def compute(arrays: Any) -> tuple[dict[str, Any], Any]:
        sizes.append(len(arrays[0]))
        if len(arrays[0]) > 2:
            raise ResourceError("too much")
        return {"x": arrays[0] * 2}, arrays[1]

    named, plain = in_parts(compute, [np.arange(7), np.arange(7)])
    np.testing.assert_array_equal(named["x"], np.arange(7) * 2)
    np.testing.assert_array_equal(plain, np.arange(7))
    assert max(sizes[-2:]) <= 2
    with pytest.raises(ResourceError):
        in_parts(lambda _: (_ for _ in ()).throw(ResourceError("no")), [np.arange(2)])  # type: ignore[arg-type]


def test_gradients_in_float16_are_squared_in_float32() -> None:
    values, gradients = np.full((1, 2, 2, 3), 2, np.float16), np.full((1, 2, 2, 3), 1e-4, np.float16)

    class Traced:
        def values(self, inputs: Any) -> Any:
            return {"y": np.ones((1, 2), np.float16)}, {"y": np.ones((1, 2), np.float16)}

        def __call__(self, inputs: Any, seeds: Any) -> Any:
            return GradientTensors({}, {"x": values}, {"y": {"x": gradients}})

    found = ByGradients("gradcam++", Traced(), [np.zeros((1, 1))], "linear", -1).maps(np.array([[1]]))
    expected = gradcam_plus_plus(values[0].astype(float), gradients[0].astype(float))
    assert expected.min() > 0
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-4)
