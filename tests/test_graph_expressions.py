"""The graph engine against Keras: every operation of the expressions that Lambda layers are decoded to."""

from __future__ import annotations

import re

import numpy as np
import openvino as ov
import pytest
from graph_reference import RANDOM, relative_error
from openvino import opset13 as op

from layerprobe.engines.graph.functions import FUNCTIONS
from layerprobe.loading.expressions import ExpressionLayer
from layerprobe.modelfile.expressions import OPERATIONS, evaluate, parse_expression

pytestmark = pytest.mark.slow

EXPRESSIONS = """
    2 * x + 1 - x / 3
    x // 0.7
    x % 0.6
    abs(x) ** 1.5
    matmul(x, x, transpose_x2=True)
    dot(x, [[1.0, 2.0], [0.5, 1.0], [3.0, 1.0], [1.0, 1.0], [2.0, 2.0], [0.1, 0.2]])
    batch_dot(x, x, axes=2)
    batch_dot(x, x, axes=(1, 1))
    einsum("bij,bkj->bik", (x, x))
    where(x > 0.2, x, -1.0)
    where(logical_and(x >= -0.3, logical_not(x < 0)), x, 2 * x)
    where(logical_or(x <= -0.3, equal(x, 0.5)), 1.0, 0.0)
    cast(not_equal(x, 0.5), "float32")
    maximum(x, 0.1) - minimum(x, 0.3)
    divide_no_nan(x, relu(x))
    negative(sign(x)) + square(x) + sqrt(abs(x)) * rsqrt(abs(x) + 1)
    exp(x) + log(abs(x) + 1) - log1p(abs(x) / 1000)
    round(x * 3) + floor(x) * ceil(x)
    sin(x) + cos(x) * tan(x) - tanh(x) + arctan(x)
    sigmoid(x) + softplus(x) * softsign(x)
    relu(x, negative_slope=0.1, max_value=0.6, threshold=0.2)
    relu6(x * 5) + elu(x, alpha=0.5) + selu(x) * silu(x)
    gelu(x) - gelu(x, approximate=False) + leaky_relu(x) * hard_sigmoid(x)
    softmax(x, axis=1) + log_softmax(x)
    clip(x, -0.5, 0.4)
    ones_like(x) - zeros_like(x) + x
    one_hot(argmax(x, axis=-1), 6)
    one_hot(argmin(x, axis=1), 4, axis=1)
    sum(x, axis=1) + mean(x, axis=1) - max(x, axis=1) * min(x, axis=1)
    prod(x, axis=-1, keepdims=True) + var(x, axis=-1, keepdims=True) + std(x, axis=-1, keepdims=True)
    cast(any(x > 1, axis=-1), "float32") + cast(all(x > -1, axis=-1), "float32")
    logsumexp(x, axis=-1) + logsumexp(x, axis=(1, 2), keepdims=True)[:, 0]
    cumsum(x, axis=1)
    l2_normalize(x, axis=-1)
    reshape(x, (-1, 3, shape(x)[2] * 2, 1))[:, :, :, 0] * ndim(x)
    flatten(x)
    transpose(x, (0, 2, 1))
    expand_dims(squeeze(expand_dims(x, 1), axis=1), axis=-1)
    concatenate([x, x[:, ::-1]], axis=1)
    stack([x, x + 1], axis=2)
    unstack(x, axis=1)[2]
    split(x, 3, axis=2)[1]
    tile(x, (1, 2, 1))
    repeat(x, 2, axis=1)
    pad(x, ((0, 0), (1, 2), (0, 3)))
    flip(x, axis=2)
    take(x, 3, axis=2)
    x[:, 1:3, ..., None] * constant(2.5)
    cast(x * 10, "int32")
    cast(x, dtype(x))
"""
ON_IMAGES = """
    resize(x, (9, 5))
    resize(x, (3, 8), interpolation="nearest")
    resize(x, (9, 5), half_pixel_centers=False)
    depth_to_space(x, 2)
    space_to_depth(x, 2)
"""
CASES = [
    *((line.strip(), (4, 6)) for line in EXPRESSIONS.split("\n") if line.strip()),
    *((line.strip(), (4, 6, 4)) for line in ON_IMAGES.split("\n") if line.strip()),
]


@pytest.mark.parametrize(("text", "shape"), CASES)
def test_an_expression_gives_what_keras_gives(text, shape):
    expression = parse_expression(text)
    values = RANDOM.normal(size=(3, *shape)).astype("float32")
    x = op.parameter([-1, *shape], np.float32)
    node = evaluate(expression, x, FUNCTIONS)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(ov.Model([op.result(node)], [x]), "CPU", options)
    wanted = np.asarray(ExpressionLayer(expression)(values))
    assert relative_error(compiled(values)[0], wanted) < 1e-5


def test_every_operation_occurs():
    used = set(re.findall(r"[a-z_0-9]+", EXPRESSIONS + ON_IMAGES))
    infix = {"add", "subtract", "multiply", "divide", "floor_divide", "mod", "power"}
    compared = {"less", "less_equal", "greater", "greater_equal"}
    assert set(OPERATIONS) - used - infix - compared == set()
