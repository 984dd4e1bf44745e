"""One small model for each layer class and option that files hold, built with whichever Keras is given.

Run as a script, it builds them with tf_keras (Keras 2) in a process of its own and saves each in a folder,
with inputs and what tf_keras computes for them: `python layer_zoo.py FOLDER`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

IMAGE, STEPS, VOLUME, FILM = (8, 8, 3), (5, 4), (4, 4, 4, 2), (3, 6, 6, 2)


def stacks(keras: Any) -> Iterator[tuple[str, tuple[int, ...], list[Any]]]:
    """Names, input shapes and layers of models that are a plain chain."""
    layers = keras.layers
    yield "dense", (4,), [layers.Dense(2, activation="gelu")]
    yield "conv1d", STEPS, [layers.Conv1D(2, 2, padding="causal")]
    yield "conv2d", IMAGE, [layers.Conv2D(2, 2, activation="swish", dilation_rate=2)]
    yield "conv3d", VOLUME, [layers.Conv3D(2, 2)]
    yield "transposed", IMAGE, [layers.Conv2DTranspose(2, 3, strides=2, padding="same")]
    yield "depthwise", IMAGE, [layers.DepthwiseConv2D(2, depth_multiplier=2), layers.SeparableConv2D(2, 2)]
    yield (
        "steps",
        STEPS,
        [layers.Conv1DTranspose(2, 2), layers.DepthwiseConv1D(2), layers.SeparableConv1D(2, 2)],
    )
    yield "batch_norm", (4,), [layers.BatchNormalization(), layers.BatchNormalization(scale=False)]
    yield (
        "norms",
        IMAGE,
        [layers.LayerNormalization(), layers.GroupNormalization(3), layers.UnitNormalization()],
    )
    yield "prelu", IMAGE, [layers.PReLU(shared_axes=[1, 2])]
    yield "embedding", (4,), [layers.Embedding(5, 3, mask_zero=True), layers.LSTM(3)]
    yield "lstm", STEPS, [layers.LSTM(2, recurrent_activation="hard_sigmoid")]
    yield "gru", STEPS, [layers.GRU(2, return_sequences=True), layers.GRU(2, reset_after=False)]
    yield "rnn", STEPS, [layers.SimpleRNN(2, return_sequences=True), layers.RNN(layers.LSTMCell(2))]
    yield "stacked_cells", STEPS, [layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)])]
    yield "conv_lstm", FILM, [layers.ConvLSTM2D(2, 2)]
    gates = {"return_sequences": True, "recurrent_activation": "hard_sigmoid"}
    backward = layers.LSTM(2, go_backwards=True, name="back")
    yield "both_ways", STEPS, [layers.Bidirectional(layers.LSTM(2, **gates))]
    yield "both_ways_sum", STEPS, [layers.Bidirectional(layers.GRU(2), merge_mode="sum")]
    yield "both_ways_own", STEPS, [layers.Bidirectional(layers.LSTM(2, name="fore"), backward_layer=backward)]
    within = keras.Sequential([layers.Conv2D(2, 2), layers.Flatten(), layers.Dense(3)])
    yield "each_step", FILM, [layers.TimeDistributed(within), layers.TimeDistributed(layers.Dense(2))]
    yield "einsum_dense", (4,), [layers.EinsumDense("ab,bc->ac", output_shape=3, bias_axes="c")]
    yield "spectral", (4,), [layers.SpectralNormalization(layers.Dense(2))]
    yield (
        "activations",
        (4,),
        [
            *(layers.LeakyReLU(0.2), layers.ELU(0.5), layers.ReLU(0.9, 0.1, 0.05), layers.Softmax()),
            *(layers.Activation("hard_sigmoid"), layers.Activation("softplus")),
        ],
    )
    yield (
        "shapes",
        (6,),
        [
            *(layers.Reshape((2, 3)), layers.Permute((2, 1)), layers.Flatten(), layers.RepeatVector(3)),
            *(layers.ZeroPadding1D(1), layers.Cropping1D(1), layers.UpSampling1D(2)),
        ],
    )
    yield (
        "image_shapes",
        IMAGE,
        [
            *(layers.ZeroPadding2D(((1, 2), (3, 4))), layers.Cropping2D(1), layers.SpatialDropout2D(0.1)),
            *(layers.UpSampling2D(2, interpolation="bilinear"), layers.MaxPooling2D()),
            *(layers.AveragePooling2D(2, padding="same"), layers.GlobalMaxPooling2D(keepdims=True)),
        ],
    )
    yield (
        "training_only",
        IMAGE,
        [
            *(layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomContrast(0.1)),
            *(layers.Dropout(0.5), layers.GaussianNoise(0.1), layers.AlphaDropout(0.1)),
        ],
    )
    yield "preprocessing", IMAGE, [layers.Rescaling(1 / 127.5, offset=-1), layers.CenterCrop(3, 3)]
    yield "categories", (1,), [layers.CategoryEncoding(4)]
    yield "bins", (4,), [layers.Discretization(bin_boundaries=[0.25, 0.5])]
    normalisation = layers.Normalization()
    normalisation.adapt(np.arange(40, dtype="float32").reshape(10, 4))
    yield "normalisation", (4,), [normalisation]
    nested = [keras.Input(IMAGE), layers.Conv2D(4, 2), layers.BatchNormalization(), layers.ReLU(6.0)]
    yield "nested", IMAGE, [keras.Sequential(nested, name="inner"), layers.Flatten(), layers.Dense(2)]
    frozen = keras.Sequential([layers.Conv2D(4, 2), layers.BatchNormalization(), layers.Conv2D(3, 2)])
    frozen.trainable = False
    yield "frozen", IMAGE, [frozen, layers.GlobalAveragePooling2D()]


def graphs(keras: Any) -> Iterator[tuple[str, Any]]:
    """Models that are no chain."""
    layers, tensor = keras.layers, keras.Input
    steps, other, four, same = tensor(STEPS), tensor((3, 4)), tensor((4,)), tensor((4,))
    yield (
        "attention",
        keras.Model([steps, other], layers.MultiHeadAttention(2, 3, 2)(query=steps, value=other)),
    )
    scored = layers.Attention(use_scale=True, score_mode="concat")([steps, other])
    yield "scores", keras.Model([steps, other], [scored, layers.AdditiveAttention()([steps, other])])
    shared = layers.Dense(4, name="shared")
    once = shared(four)
    pair = [once, shared(once)]
    merges = (layers.Add, layers.Multiply, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
    joined = layers.Concatenate()([*(merge()(pair) for merge in merges), layers.Dot(1)(pair)])
    yield "merging", keras.Model(four, joined)
    out, hidden, cell = layers.LSTM(3, return_state=True)(steps)
    yield "states", keras.Model(steps, [layers.LSTM(3)(steps, initial_state=[hidden, cell]), out])
    encoder = keras.Sequential([tensor((4,)), layers.Dense(3)], name="encoder")
    yield "siamese", keras.Model([four, same], layers.Subtract()([encoder(four), encoder(same)]))
    begin = tensor((4,))
    two = keras.Model(begin, [layers.Dense(3)(begin), layers.Dense(2)(begin)], name="two")
    first, second = two(four)
    yield "two_results", keras.Model(four, [second, first])
    yield "sequential", keras.Sequential([tensor((4,)), layers.Dense(3), layers.Activation("tanh")])


def operations(keras: Any) -> Iterator[tuple[str, Any]]:
    """Keras 3 alone: bare operations in the graph."""
    ops, four = keras.ops, keras.Input((4,))
    arithmetic = ops.mean(ops.relu(four * 2 - 1) + four / 3.0, axis=1, keepdims=True)
    yield "arithmetic", keras.Model(four, arithmetic)
    pieces = ops.concatenate([ops.expand_dims(four, 1), ops.reshape(four, (-1, 1, 4))], axis=1)
    yield "indexing", keras.Model(four, pieces[..., 1, 1:3])
    yield "einsum", keras.Model(four, ops.einsum("ab,cb->ac", four, four) * ops.sqrt(ops.abs(four[:, :1])))


def tf_operations(keras: Any) -> Iterator[tuple[str, Any]]:
    """tf_keras alone: TensorFlow's functions in the graph."""
    import tensorflow as tf

    four, grid = keras.Input((4,)), keras.Input((4, 5))
    yield "tf_arithmetic", keras.Model(four, (2.0 - four) / (four + 1.5) * four**2)
    yield "tf_slices", keras.Model(grid, tf.concat([grid[:, 1:3, 0], grid[:, :, -1]], axis=-1))
    yield "tf_reduce", keras.Model(grid, tf.reduce_mean(tf.nn.relu(grid - 0.5), axis=1, keepdims=True))
    yield "tf_shapes", keras.Model(grid, tf.transpose(tf.reshape(grid, [-1, 2, 10]), [0, 2, 1]))


def models(keras: Any) -> Iterator[tuple[str, Any]]:
    """All of them, by name."""
    for name, shape, layers in stacks(keras):
        start = value = keras.Input(shape)
        for layer in layers:
            value = layer(value)
        yield name, keras.Model(start, value)
    yield from graphs(keras)
    yield from (operations if keras.__name__ == "keras" else tf_operations)(keras)


def save(keras: Any, folder: Path, formats: dict[str, tuple[str, ...]]) -> None:
    """Save every model with weights other than those it began with, inputs, and its own results.

    Args:
        keras: The module.
        folder: Gets NAME.SUFFIX and NAME.npz with x0, x1, ... and y0, y1, ...
        formats: Model name, or "" for all, -> suffixes.
    """
    rng = np.random.default_rng(0)
    for name, model in models(keras):
        for variable in [] if name == "normalisation" else model.weights:
            if str(variable.dtype).find("float32") >= 0:
                variable.assign(np.asarray(variable) + 0.3 * rng.random(tuple(variable.shape)))
        whole = name in ("embedding", "categories")
        inputs = [
            (rng.integers(0, 4, (2, *x.shape[1:])) if whole else rng.random((2, *x.shape[1:]))).astype(
                "float32"
            )
            for x in model.inputs
        ]
        # As `predict`, which would be compiled for each of them.
        results = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        results = list(map(np.asarray, results if isinstance(results, list | tuple) else [results]))
        for suffix in formats.get(name, formats[""]):
            model.save(str(folder / f"{name}.{suffix}"), **({"save_format": "tf"} if suffix == "tf" else {}))
        arrays = {f"x{number}": array for number, array in enumerate(inputs)}
        arrays |= {f"y{number}": array for number, array in enumerate(results)}
        np.savez(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # Or parts of tf_keras take classes of Keras 3.
    import tf_keras

    served = ("nested", "both_ways", "siamese", "stacked_cells", "depthwise", "attention")
    wanted = {"": ("h5", "keras"), **dict.fromkeys(served, ("h5", "keras", "tf"))}
    save(tf_keras, Path(sys.argv[1]), wanted)
