"""Expressions built from Keras operations, against the functions that they were decoded from."""

from __future__ import annotations

import base64
import marshal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerprobe.errors import ModelError, ResourceError
from layerprobe.loading.build import load_model
from layerprobe.modelfile.expressions import parse_expression
from layerprobe.modelfile.lambdas import decode_lambda

pytestmark = pytest.mark.slow

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
K = pytest.importorskip("tf_keras").backend
ops = keras.ops
expressions = pytest.importorskip("layerprobe.loading.expressions")

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "files"
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(-2, 2, (3, 6, 8, 4)).astype("float32")
VECTORS = RANDOM.uniform(-2, 2, (3, 5)).astype("float32")
SEQUENCES = RANDOM.uniform(-2, 2, (3, 7, 5)).astype("float32")
PAIR = [VECTORS, RANDOM.uniform(-2, 2, (3, 5)).astype("float32")]
PAIR_3D = [SEQUENCES, RANDOM.uniform(-2, 2, (3, 7, 5)).astype("float32")]


def per_channel(x: Any) -> Any:
    x = x[..., ::-1]
    return x - [103.939, 116.779, 123.68, 1.0]


def euclidean_distance(vectors: Any) -> Any:
    a, b = vectors
    return K.sqrt(K.maximum(K.sum(K.square(a - b), axis=1, keepdims=True), K.epsilon()))


def halves(x: Any) -> Any:
    first, second = tf.split(x, 2, axis=-1)
    return tf.concat([second, first], axis=-1)


ON_IMAGES: list[Callable[[Any], Any]] = [
    lambda x: x / 127.5 - 1.0,
    lambda x: 2 * x - 1,
    lambda x: -x,
    lambda x: x[:, 1:, ::2, 0:1],
    lambda x: x[:, -1],
    lambda x: x[..., None],
    lambda x: tf.image.resize(x, (5, 4)),
    lambda x: tf.image.resize(x, [13, 9], method="nearest"),
    lambda x: tf.compat.v1.image.resize(x, (5, 11)),
    lambda x: tf.compat.v1.image.resize(x, (13, 3), method=1),
    lambda x: tf.compat.v1.image.resize_bilinear(x, (12, 16)),
    lambda x: K.resize_images(x, 2, 3, "channels_last"),
    lambda x: tf.image.per_image_standardization(x),
    lambda x: tf.image.rgb_to_grayscale(x[..., :3]),
    lambda x: tf.image.crop_to_bounding_box(x, 1, 2, 3, 4),
    lambda x: tf.image.flip_left_right(x),
    lambda x: tf.nn.depth_to_space(x, 2),
    lambda x: tf.nn.space_to_depth(x, 2),
    lambda x: K.permute_dimensions(x, (0, 3, 1, 2)),
    lambda x: K.reshape(x, (-1, K.int_shape(x)[1] * 8, 4)),
    lambda x: tf.reshape(x, [tf.shape(x)[0], -1]),
    lambda x: tf.reshape(x, (-1, x.shape[1], x.get_shape().as_list()[2] // 2, 8)),
    lambda x: K.batch_flatten(x),
    lambda x: K.mean(x, axis=[1, 2], keepdims=True),
    lambda x: tf.reduce_max(x, axis=(1, 2)),
    lambda x: K.spatial_2d_padding(x, padding=((1, 2), (0, 3))),
    lambda x: tf.pad(x, [[0, 0], [2, 2], [1, 1], [0, 0]], "REFLECT"),
    lambda x: tf.pad(x, [[0, 0], [2, 2], [1, 1], [0, 0]], constant_values=7),
    lambda x: K.concatenate([x, x * x], axis=3),
    lambda x: K.cast(x > 0.5, "float32") * x,
    lambda x: tf.where(x < 0.0, tf.zeros_like(x), x),
    lambda x: tf.clip_by_value(x, -0.5, 0.5) + tf.cast(x, tf.float32),
    lambda x: K.squeeze(x[:, :, :, :1], 3),
    lambda x: K.expand_dims(x[:, 0, 0]),
    lambda x: tf.nn.relu6(x * 5) + tf.nn.leaky_relu(x) + tf.nn.elu(x) + tf.nn.swish(x),
    lambda x: K.relu(x, alpha=0.1, max_value=1.0) + K.relu(x, max_value=1.5),
    lambda x: K.hard_sigmoid(x) + K.sigmoid(x) + K.tanh(x) + K.softplus(x) + K.softsign(x),
    lambda x: K.softmax(x) + tf.nn.softmax(x, axis=1),
    lambda x: tf.nn.gelu(x) + tf.nn.gelu(x, approximate=True),
    lambda x: K.sqrt(x) + K.abs(x) + K.sign(x) + tf.square(x) + tf.exp(x) + K.round(x),
    lambda x: x % 3 + x // 2 + x**2,
    per_channel,
    halves,
]
ON_OTHERS: list[tuple[Callable[[Any], Any], Any]] = [
    (lambda x: K.l2_normalize(x, axis=1), VECTORS),
    (lambda x: tf.math.l2_normalize(x, axis=-1), VECTORS),
    (lambda x: tf.norm(x, axis=1, keepdims=True), VECTORS),
    (lambda x: K.repeat(x, 4), VECTORS),
    (lambda x: K.repeat_elements(x, 3, axis=1), SEQUENCES),
    (lambda x: tf.tile(x, [1, 2, 1]), SEQUENCES),
    (lambda x: K.reverse(x, 1), SEQUENCES),
    (lambda x: K.cumsum(x, axis=1) + K.std(x, axis=1, keepdims=True), SEQUENCES),
    (lambda x: K.var(x, axis=-1) + tf.reduce_logsumexp(x, axis=-1) + K.prod(x, axis=-1), SEQUENCES),
    (lambda x: tf.gather(x, [0, 2], axis=1), SEQUENCES),
    (lambda x: tf.one_hot(tf.argmax(x, axis=1), 5), VECTORS),
    (lambda x: K.temporal_padding(x, (2, 0)), SEQUENCES),
    (lambda x: tf.einsum("bij,bkj->bik", x, x), SEQUENCES),
    (lambda x: tf.matmul(x, x, transpose_b=True), SEQUENCES),
    (lambda x: tf.stack(tf.unstack(x, axis=2), axis=1), SEQUENCES),
    (lambda t: K.abs(t[0] - t[1]), PAIR),
    (lambda t: t[0] + t[1] * 0.5, PAIR),
    (lambda t: tf.add_n([t[0], t[1]]) + tf.maximum(t[0], t[1]) * tf.math.divide_no_nan(t[0], t[1]), PAIR),
    (lambda t: tf.math.squared_difference(t[0], t[1]), PAIR),
    (lambda t: K.batch_dot(t[0], t[1], axes=1), PAIR),
    (lambda t: K.batch_dot(t[0], t[1], axes=[2, 2]), PAIR_3D),
    (euclidean_distance, PAIR),
]


def stored(function: Callable[..., Any]) -> dict[str, Any]:
    code = base64.b64encode(marshal.dumps(function.__code__)).decode()
    return {"function": [code, None, None], "function_type": "lambda"}


def computed(expression: Any, value: Any) -> Any:
    """The values of a model that consists of the expression alone."""
    values = value if isinstance(value, list) else [value]
    inputs = [keras.Input(v.shape[1:]) for v in values]
    layer = expressions.ExpressionLayer(expression)
    model = keras.Model(inputs, layer(inputs if isinstance(value, list) else inputs[0]))
    return model.predict(value, verbose=0, batch_size=2)


@pytest.mark.parametrize(("function", "value"), [(function, IMAGES) for function in ON_IMAGES] + ON_OTHERS)
def test_a_decoded_lambda_computes_what_the_function_itself_computes(
    function: Callable[..., Any], value: Any
) -> None:
    tensors = [tf.constant(v) for v in value] if isinstance(value, list) else tf.constant(value)
    expected = np.asarray(function(tensors))
    actual = computed(decode_lambda(stored(function)), value)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(expected)))


def fused(inputs: list[Any]) -> Any:
    """What the Lambda of FusionNet says: two cropped pictures, mixed by two masks."""
    masks, first, second = inputs
    first, second = first[:, 8:-8, 8:-8], second[:, 8:-8, 8:-8]
    return first * np.tile(masks[..., :1], 3) + second * np.tile(masks[..., 1:], 3)


PUBLISHED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "1524045patrick+": ("lambda_1", lambda x: x / 255 - 0.5),
    "1560800+CarND-Behavioral-Cloning-P3__491": ("lambda_1", lambda x: x / 127.5 - 1),
    "1560800+CarND-Behavioral-Cloning-P3__8de": ("lambda_1", lambda x: x / 127.5 - 1),
    "Adnanemiri+": ("lambda_1", lambda x: x / 127.5 - 1),
    "MichaelHopf+": ("lambda_110", lambda x: -x),
    "XPbIM3+": ("lambda", lambda x: x / 255),
    "jeremy-shannon+CarND-Behavioral-Cloning-Project__3": ("lambda_1", lambda x: x / 127.5 - 1),
    "jeremy-shannon+CarND-Behavioral-Cloning-Project__d": ("lambda_1", lambda x: x / 127.5 - 1),
    "cianhwang+": ("lambda_1", fused),
}
"""Beginning of a file's name -> its Lambda layer, and what that computes, worked out by hand."""


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the collection of published models is not here")
@pytest.mark.parametrize("beginning", PUBLISHED)
def test_the_lambdas_of_published_models_compute_what_they_say(beginning: str) -> None:
    name, by_hand = PUBLISHED[beginning]
    for path in (path for path in CORPUS.iterdir() if path.name.startswith(beginning)):
        model = load_model(str(path), keep=[name])
        shapes = [tensor.shape[1:] for tensor in model.inputs]
        inputs = [RANDOM.uniform(0, 255, (2, *(size or 96 for size in s))).astype("float32") for s in shapes]
        given = inputs if len(inputs) > 1 else inputs[0]
        before = keras.Model(model.inputs, model.get_layer(name).input).predict(given, verbose=0)
        expected = by_hand(before)
        actual = model.predict(given, verbose=0)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_several_outputs_come_as_a_list() -> None:
    first, second = computed(parse_expression("tf.split(x, 2, axis=3)"), IMAGES)
    np.testing.assert_array_equal(first, IMAGES[..., :2])
    np.testing.assert_array_equal(second, IMAGES[..., 2:])


def test_an_expression_that_does_not_fit_is_an_error_that_names_it() -> None:
    layer = expressions.ExpressionLayer(parse_expression("K.reshape(x, (-1, 7))"), name="odd")
    with pytest.raises(ModelError, match=r"odd.*--lambda odd="):
        keras.Sequential([keras.Input((5,)), layer]).predict(VECTORS, verbose=0)


def test_an_intermediate_value_that_is_too_large_is_refused_while_building() -> None:
    text = "tf.reduce_sum(tf.expand_dims(x, 1) * tf.expand_dims(x, 2), axis=[1, 2])"
    layer = expressions.ExpressionLayer(parse_expression(text))
    with pytest.raises(ResourceError, match="GiB"):
        layer(keras.Input((100_000,)))


def test_a_lack_of_memory_is_not_blamed_on_an_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(expressions, "evaluate", exhausted)
    layer = expressions.ExpressionLayer(parse_expression("x + 1"), name="more")
    with pytest.raises(MemoryError):
        layer(np.ones((1, 2), "float32"))
