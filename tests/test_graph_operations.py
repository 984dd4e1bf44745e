"""The graph engine against Keras: bare operations, as functional models contain them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from graph_reference import RANDOM, relative_error

from layerprobe.engines.graph.operations import OPERATIONS
from layerprobe.probe import Probe

pytestmark = pytest.mark.slow

ops = keras.ops

CASES = {
    "Arccos": lambda x, y: ops.arccos(x / 10),
    "Arccosh": lambda x, y: ops.arccosh(x * x + 1.5),
    "Arcsin": lambda x, y: ops.arcsin(x / 10),
    "Arcsinh": lambda x, y: ops.arcsinh(x),
    "Arctan": lambda x, y: ops.arctan(x),
    "Arctanh": lambda x, y: ops.arctanh(x / 10),
    "Argmax": lambda x, y: ops.argmax(x, axis=-1),
    "Argmin": lambda x, y: ops.argmin(x, axis=1, keepdims=True),
    "Argsort": lambda x, y: ops.argsort(x, axis=1),
    "Average": lambda x, y: ops.average(x, axis=1),
    "Celu": lambda x, y: ops.celu(x, alpha=0.7),
    "Copy": lambda x, y: ops.copy(x),
    "Cosh": lambda x, y: ops.cosh(x),
    "Cumsum": lambda x, y: ops.cumsum(x, axis=1),
    "Deg2rad": lambda x, y: ops.deg2rad(x),
    "DivideNoNan": lambda x, y: ops.divide_no_nan(x, ops.relu(y)),
    "Einsum": lambda x, y: ops.einsum("bij,bkj->bik", x, y),
    "Elu": lambda x, y: ops.elu(x, alpha=0.5),
    "Erf": lambda x, y: ops.erf(x),
    "Exp2": lambda x, y: ops.exp2(x),
    "Expm1": lambda x, y: ops.expm1(x / 1000),
    "Fabs": lambda x, y: ops.fabs(x),
    "Fliplr": lambda x, y: ops.fliplr(x),
    "FloorDivide": lambda x, y: ops.floor_divide(x, 0.7),
    "Gelu": lambda x, y: ops.gelu(x, approximate=False),
    "Glu": lambda x, y: ops.glu(x, axis=-1),
    "HardShrink": lambda x, y: ops.hard_shrink(x, threshold=0.3),
    "HardSilu": lambda x, y: ops.hard_silu(x),
    "HardTanh": lambda x, y: ops.hard_tanh(x),
    "Hstack": lambda x, y: ops.hstack([x, y]),
    "LeakyRelu": lambda x, y: ops.leaky_relu(x, negative_slope=0.3),
    "Log10": lambda x, y: ops.log10(x * x + 0.1),
    "Log1p": lambda x, y: ops.log1p(ops.abs(x) / 1000),
    "Log2": lambda x, y: ops.log2(x * x + 0.1),
    "LogSigmoid": lambda x, y: ops.log_sigmoid(x),
    "LogicalXor": lambda x, y: ops.logical_xor(x > 0, y > 0),
    "Moments": lambda x, y: ops.moments(x, axes=[1, 2])[1],
    "Moveaxis": lambda x, y: ops.moveaxis(x, 1, -1),
    "Normalize": lambda x, y: ops.normalize(x, axis=1),
    "OneHot": lambda x, y: ops.one_hot(ops.argmax(x, axis=-1), 6),
    "OnesLike": lambda x, y: ops.ones_like(x),
    "Rad2deg": lambda x, y: ops.rad2deg(x),
    "Reciprocal": lambda x, y: ops.reciprocal(x * x + 0.5),
    "Roll": lambda x, y: ops.roll(x, 2, axis=1),
    "Sinh": lambda x, y: ops.sinh(x),
    "SoftShrink": lambda x, y: ops.soft_shrink(x, threshold=0.3),
    "Sort": lambda x, y: ops.sort(x, axis=-1),
    "SparsePlus": lambda x, y: ops.sparse_plus(x),
    "SparseSigmoid": lambda x, y: ops.sparse_sigmoid(x),
    "Split": lambda x, y: ops.split(x, [1, 3], axis=1)[1],
    "Squareplus": lambda x, y: ops.squareplus(x, b=2),
    "StopGradient": lambda x, y: ops.stop_gradient(x),
    "Swapaxes": lambda x, y: ops.swapaxes(x, 1, 2),
    "Take": lambda x, y: ops.take(x, [2, 0, 2], axis=1),
    "TanhShrink": lambda x, y: ops.tanh_shrink(x),
    "Threshold": lambda x, y: ops.threshold(x, 0.2, -1.5),
    "TopK": lambda x, y: ops.top_k(x, 3)[0],
    "TopK places": lambda x, y: ops.top_k(x, 3)[1],
    "Trunc": lambda x, y: ops.trunc(x),
    "Unstack": lambda x, y: ops.unstack(x, axis=1)[2],
    "ZerosLike": lambda x, y: ops.zeros_like(x),
}


@pytest.mark.parametrize("case", CASES)
def test_every_operation_equals_keras(case, tmp_path):
    x, y = keras.Input((4, 6), name="x"), keras.Input((4, 6), name="y")
    model = keras.Model([x, y], [CASES[case](x, y), x + y])
    arrays = [RANDOM.normal(size=(3, 4, 6)).astype("float32") for _ in range(2)]
    wanted = np.asarray(model(arrays)[0])
    model.save(tmp_path / "m.keras")
    found = Probe(tmp_path / "m.keras", ["output:0"], engine="graph")(arrays)["output:0"]
    assert relative_error(found, wanted) < 1e-5


def test_every_operation_has_a_case():
    missing = set(OPERATIONS) - {case.split()[0] for case in CASES}
    assert missing == {"DepthToSpace", "RGBToGrayscale", "Resize", "SpaceToDepth"}


@pytest.mark.parametrize("turned", [False, True])
def test_operations_on_images_equal_keras(turned, tmp_path):
    x = keras.Input((4, 6, 3), name="x")
    y = keras.layers.Conv2D(3, 1)(x) if turned else x
    made = [ops.space_to_depth(y, 2), ops.image.rgb_to_grayscale(y)]
    made.append(ops.image.resize(y, (7, 5), interpolation="bicubic", antialias=True))
    made.append(ops.image.resize(y, (3, 3), interpolation="nearest", crop_to_aspect_ratio=True))
    model = keras.Model([x], [*made, ops.depth_to_space(made[0], 2)])
    images = RANDOM.normal(size=(2, 4, 6, 3)).astype("float32")
    model.save(tmp_path / "m.keras")
    found = Probe(tmp_path / "m.keras", ["output"], engine="graph")(images)
    for values, wanted in zip(found.values(), model([images]), strict=True):
        assert relative_error(values, np.asarray(wanted)) < 1e-5
