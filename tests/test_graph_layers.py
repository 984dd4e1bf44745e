"""The graph engine against Keras: every class and option that it has."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from graph_reference import RANDOM, assert_equal_to_keras

from layerprobe.engines.graph.images import IN_TRAINING
from layerprobe.modelfile.classes import LAYERS as CLASSES
from layerprobe.modelfile.classes import REQUIRED

pytestmark = pytest.mark.slow


L = keras.layers


IMAGE, ODD, TALL, SEQUENCE, VECTOR, VOLUME = (6, 8, 4), (7, 5, 3), (9, 4, 2), (9, 4), (6,), (5, 6, 4, 3)

ONE_INPUT = {
    "activation layer": (VECTOR, lambda: L.Activation("tanh")),
    "adaptive average 1d": (SEQUENCE, lambda: L.AdaptiveAveragePooling1D(4)),
    "adaptive average 3d": (VOLUME, lambda: L.AdaptiveAveragePooling3D((2, 4, 3))),
    "adaptive average": (ODD, lambda: L.AdaptiveAveragePooling2D((3, 2))),
    "adaptive maximum 1d": (SEQUENCE, lambda: L.AdaptiveMaxPooling1D(2)),
    "adaptive maximum 3d": (VOLUME, lambda: L.AdaptiveMaxPooling3D(3)),
    "adaptive maximum": (ODD, lambda: L.AdaptiveMaxPooling2D((3, 4))),
    "augmentation by crops": (IMAGE, lambda: L.RandomCrop(6, 8)),
    "augmentation by mixing": (IMAGE, lambda: L.MixUp()),
    "augmentation": (IMAGE, lambda: L.RandomRotation(0.5)),
    "average pooling 1d same": (SEQUENCE, lambda: L.AveragePooling1D(4, 2, padding="same")),
    "average pooling 3d": (VOLUME, lambda: L.AveragePooling3D(2, padding="same")),
    "average pooling same": (ODD, lambda: L.AveragePooling2D(3, 2, padding="same")),
    "average pooling": (ODD, lambda: L.AveragePooling2D(2)),
    "batch normalization axis 1": (IMAGE, lambda: L.BatchNormalization(axis=1, scale=False)),
    "batch normalization plain": (VECTOR, lambda: L.BatchNormalization(center=False)),
    "batch normalization": (IMAGE, lambda: L.BatchNormalization(epsilon=1e-3)),
    "bidirectional average": (SEQUENCE, lambda: L.Bidirectional(L.SimpleRNN(3), merge_mode="ave")),
    "bidirectional gru last": (SEQUENCE, lambda: L.Bidirectional(L.GRU(3), merge_mode="sum")),
    "bidirectional product": (SEQUENCE, lambda: L.Bidirectional(L.LSTM(3), merge_mode="mul")),
    "bidirectional": (SEQUENCE, lambda: L.Bidirectional(L.LSTM(3, return_sequences=True))),
    "bins counted": (VECTOR, lambda: L.Discretization([-0.5, 0.0, 0.7], output_mode="count")),
    "bins one hot": (SEQUENCE, lambda: L.Discretization([-0.5, 0.0, 0.7], output_mode="one_hot")),
    "bins": (VECTOR, lambda: L.Discretization([-0.5, 0.0, 0.7])),
    "center crop of a smaller image": (ODD, lambda: L.CenterCrop(5, 9)),
    "center crop": (ODD, lambda: L.CenterCrop(4, 2)),
    "conv1d causal": (SEQUENCE, lambda: L.Conv1D(5, 3, padding="causal", dilation_rate=2)),
    "conv1d same strides": (SEQUENCE, lambda: L.Conv1D(5, 4, strides=2, padding="same")),
    "conv1d transpose": (SEQUENCE, lambda: L.Conv1DTranspose(3, 4, strides=2, padding="same")),
    "conv1d": (SEQUENCE, lambda: L.Conv1D(5, 3, activation="relu")),
    "conv2d dilated": (ODD, lambda: L.Conv2D(5, (2, 3), dilation_rate=2, padding="same")),
    "conv2d even kernel": (ODD, lambda: L.Conv2D(5, (4, 2), strides=(2, 1), padding="same")),
    "conv2d groups": (IMAGE, lambda: L.Conv2D(6, 3, groups=2, use_bias=False)),
    "conv2d same strides": (ODD, lambda: L.Conv2D(5, 3, strides=2, padding="same", activation="elu")),
    "conv2d softmax": (IMAGE, lambda: L.Conv2D(5, 1, activation="softmax")),
    "conv2d transpose dilated same": (
        ODD,
        lambda: L.Conv2DTranspose(4, (2, 3), dilation_rate=(1, 3), padding="same"),
    ),
    "conv2d transpose dilated": (ODD, lambda: L.Conv2DTranspose(4, 3, dilation_rate=2)),
    "conv2d transpose even": (ODD, lambda: L.Conv2DTranspose(4, 4, strides=2, padding="same")),
    "conv2d transpose long strides": (
        ODD,
        lambda: L.Conv2DTranspose(4, 2, strides=5, padding="same", output_padding=4),
    ),
    "conv2d transpose output padding": (
        ODD,
        lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
    ),
    "conv2d transpose small kernel same": (ODD, lambda: L.Conv2DTranspose(4, 1, strides=2, padding="same")),
    "conv2d transpose small kernel": (ODD, lambda: L.Conv2DTranspose(4, 2, strides=3, padding="valid")),
    "conv2d transpose valid output padding": (
        ODD,
        lambda: L.Conv2DTranspose(4, 3, strides=2, output_padding=(1, 0)),
    ),
    "conv2d transpose valid": (ODD, lambda: L.Conv2DTranspose(4, (3, 5), strides=(1, 2), padding="valid")),
    "conv2d transpose": (ODD, lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "conv2d": (IMAGE, lambda: L.Conv2D(5, 3)),
    "conv3d transpose": (VOLUME, lambda: L.Conv3DTranspose(2, 3, strides=2, padding="same")),
    "conv3d": (VOLUME, lambda: L.Conv3D(4, 3, strides=2, padding="same")),
    "cropping 1d": (SEQUENCE, lambda: L.Cropping1D((1, 3))),
    "cropping 2d": (ODD, lambda: L.Cropping2D(((1, 2), (0, 3)))),
    "cropping 3d": (VOLUME, lambda: L.Cropping3D(1)),
    "dense of an image": (IMAGE, lambda: L.Dense(5, use_bias=False)),
    "dense": (VECTOR, lambda: L.Dense(5, activation="sigmoid")),
    "depthwise 1d": (SEQUENCE, lambda: L.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise dilated": (IMAGE, lambda: L.DepthwiseConv2D(2, dilation_rate=2, use_bias=False)),
    "depthwise": (ODD, lambda: L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)),
    "dropout": (VECTOR, lambda: L.Dropout(0.5)),
    "einsum dense for all axes": (IMAGE, lambda: L.EinsumDense("...x,xy->...y", 5, activation="tanh")),
    "einsum dense": (SEQUENCE, lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")),
    "elu": (VECTOR, lambda: L.ELU(0.3)),
    "flatten": (IMAGE, lambda: L.Flatten()),
    "gaussian noise": (VECTOR, lambda: L.GaussianNoise(0.5)),
    "global average 1d": (SEQUENCE, lambda: L.GlobalAveragePooling1D(keepdims=True)),
    "global average 3d": (VOLUME, lambda: L.GlobalAveragePooling3D()),
    "global average": (IMAGE, lambda: L.GlobalAveragePooling2D()),
    "global maximum kept": (IMAGE, lambda: L.GlobalMaxPooling2D(keepdims=True)),
    "group normalization": (IMAGE, lambda: L.GroupNormalization(2)),
    "gru before": (SEQUENCE, lambda: L.GRU(4, reset_after=False, activation="relu", go_backwards=True)),
    "gru plain": (SEQUENCE, lambda: L.GRU(4, use_bias=False)),
    "gru": (SEQUENCE, lambda: L.GRU(4, return_sequences=True)),
    "layer normalization axes": (IMAGE, lambda: L.LayerNormalization(axis=[1, 3], center=False)),
    "layer normalization": (IMAGE, lambda: L.LayerNormalization()),
    "leaky relu": (VECTOR, lambda: L.LeakyReLU(0.2)),
    "lstm backwards": (SEQUENCE, lambda: L.LSTM(4, return_sequences=True, go_backwards=True)),
    "lstm hard": (SEQUENCE, lambda: L.LSTM(4, recurrent_activation="hard_sigmoid", use_bias=False)),
    "lstm state": (SEQUENCE, lambda: L.LSTM(4, return_sequences=True, return_state=True)),
    "lstm": (SEQUENCE, lambda: L.LSTM(4)),
    "max pooling 1d": (SEQUENCE, lambda: L.MaxPooling1D(2, 3)),
    "max pooling 3d": (VOLUME, lambda: L.MaxPooling3D(2, padding="same")),
    "max pooling same": (ODD, lambda: L.MaxPooling2D((2, 3), (2, 1), padding="same")),
    "max pooling": (ODD, lambda: L.MaxPooling2D()),
    "normalization inverse": (IMAGE, lambda: L.Normalization(mean=2.0, variance=3.0, invert=True)),
    "normalization of all": (IMAGE, lambda: L.Normalization(axis=None)),
    "normalization stored": (IMAGE, lambda: L.Normalization(axis=(1, -1))),
    "normalization": (VECTOR, lambda: L.Normalization(mean=[1, 2, 3, 4, 5, 6], variance=[1, 2, 1, 2, 1, 2])),
    "permute": (IMAGE, lambda: L.Permute((3, 1, 2))),
    "prelu shared": (IMAGE, lambda: L.PReLU(shared_axes=[1, 2])),
    "prelu": (VECTOR, lambda: L.PReLU()),
    "relu full": (VECTOR, lambda: L.ReLU(max_value=0.7, negative_slope=0.1, threshold=0.2)),
    "relu plain": (VECTOR, lambda: L.ReLU()),
    "relu six": (VECTOR, lambda: L.ReLU(6.0, negative_slope=0.3)),
    "repeat vector": (VECTOR, lambda: L.RepeatVector(3)),
    "rescaling channels": (ODD, lambda: L.Rescaling([0.5, 1.5, 2.0], [1.0, 0.0, -1.0])),
    "rescaling": (IMAGE, lambda: L.Rescaling(1 / 127.5, -1)),
    "reshape": (IMAGE, lambda: L.Reshape((2, -1))),
    "resizing antialiased": (IMAGE, lambda: L.Resizing(3, 5, antialias=True)),
    "resizing area": (ODD, lambda: L.Resizing(3, 4, interpolation="area")),
    "resizing bicubic": (ODD, lambda: L.Resizing(10, 4, interpolation="bicubic")),
    "resizing cropped": (IMAGE, lambda: L.Resizing(3, 3, crop_to_aspect_ratio=True)),
    "resizing lanczos": (ODD, lambda: L.Resizing(4, 11, interpolation="lanczos3")),
    "resizing nearest": (ODD, lambda: L.Resizing(10, 3, interpolation="nearest")),
    "resizing padded": (ODD, lambda: L.Resizing(6, 6, pad_to_aspect_ratio=True, fill_value=0.5)),
    "resizing": (ODD, lambda: L.Resizing(9, 4)),
    "rms normalization": (VECTOR, lambda: L.RMSNormalization()),
    "separable 1d": (SEQUENCE, lambda: L.SeparableConv1D(5, 3, strides=2)),
    "separable": (
        ODD,
        lambda: L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, activation="relu"),
    ),
    "simple rnn": (SEQUENCE, lambda: L.SimpleRNN(4, return_sequences=True)),
    "softmax axis": (IMAGE, lambda: L.Softmax(axis=1)),
    "softmax": (IMAGE, lambda: L.Softmax()),
    "spectral normalization": (IMAGE, lambda: L.SpectralNormalization(L.Conv2D(3, 2))),
    "time distributed images": (VOLUME, lambda: L.TimeDistributed(L.Conv2D(3, 2, padding="same"))),
    "time distributed": (SEQUENCE, lambda: L.TimeDistributed(L.Dense(3, activation="relu"))),
    "unit normalization": (IMAGE, lambda: L.UnitNormalization()),
    "up sampling 1d": (SEQUENCE, lambda: L.UpSampling1D(3)),
    "up sampling 3d": (VOLUME, lambda: L.UpSampling3D((1, 2, 3))),
    "up sampling bicubic": (ODD, lambda: L.UpSampling2D((3, 2), interpolation="bicubic")),
    "up sampling bilinear": (ODD, lambda: L.UpSampling2D((3, 2), interpolation="bilinear")),
    "up sampling lanczos": (ODD, lambda: L.UpSampling2D(2, interpolation="lanczos5")),
    "up sampling nearest": (ODD, lambda: L.UpSampling2D((3, 2))),
    "zero padding 1d": (SEQUENCE, lambda: L.ZeroPadding1D((1, 2))),
    "zero padding 2d": (ODD, lambda: L.ZeroPadding2D(((1, 2), (3, 0)))),
    "zero padding 3d": (VOLUME, lambda: L.ZeroPadding3D(2)),
}
CHANNELS_FIRST = {
    "center crop": (ODD, lambda: L.CenterCrop(3, 2, data_format="channels_first")),
    "resizing": (ODD, lambda: L.Resizing(3, 2, data_format="channels_first")),
    "average pooling": (ODD, lambda: L.AveragePooling2D(2, data_format="channels_first")),
    "cropping": (IMAGE, lambda: L.Cropping2D(1, data_format="channels_first")),
    "flatten": (IMAGE, lambda: L.Flatten(data_format="channels_first")),
    "global maximum": (IMAGE, lambda: L.GlobalMaxPooling2D(data_format="channels_first")),
    "up sampling": (IMAGE, lambda: L.UpSampling2D(data_format="channels_first")),
    "zero padding": (IMAGE, lambda: L.ZeroPadding2D(1, data_format="channels_first")),
}


@pytest.mark.parametrize("case", ONE_INPUT)
def test_every_class_and_option_equals_keras(case, tmp_path):
    shape, make = ONE_INPUT[case]
    x = keras.Input(shape, name="x")
    y = make()(x)
    first = y[0] if isinstance(y, list | tuple) else y
    model = keras.Model(x, L.Activation("linear", name="last")(first))
    assert_equal_to_keras(model, tmp_path / "m.keras", [RANDOM.normal(size=(3, *shape)).astype("float32")])


@pytest.mark.parametrize("case", CHANNELS_FIRST)
def test_channels_first_equals_keras(case, tmp_path):
    shape, make = CHANNELS_FIRST[case]
    x = keras.Input(shape, name="x")
    model = keras.Model(x, make()(x))
    assert_equal_to_keras(model, tmp_path / "m.keras", [RANDOM.normal(size=(2, *shape)).astype("float32")])


@pytest.mark.parametrize("case", [name for name in ONE_INPUT if ONE_INPUT[name][0] in (IMAGE, ODD)])
def test_after_a_convolution_the_axes_are_still_keras_s(case, tmp_path):
    shape, make = ONE_INPUT[case]
    x = keras.Input(shape, name="x")
    model = keras.Model(x, make()(L.Conv2D(shape[-1], 1, name="first")(x)))
    assert_equal_to_keras(model, tmp_path / "m.keras", [RANDOM.normal(size=(2, *shape)).astype("float32")])


ACTIVATIONS = (
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear "
    "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign "
    "sparse_plus sparse_sigmoid squareplus tanh tanh_shrink"
)


@pytest.mark.parametrize("turned", [False, True])
def test_every_activation_equals_keras(turned, tmp_path):
    x = keras.Input((5, 6), name="x")
    y = L.Conv1D(6, 1)(x) if turned else x
    outputs = [L.Activation(name, name=f"a_{name}")(y) for name in ACTIVATIONS.split()]
    model = keras.Model(x, outputs)
    x = RANDOM.normal(0, 3, size=(4, 5, 6)).astype("float32")
    assert_equal_to_keras(model, tmp_path / "m.keras", [x])


WHOLE = {
    "categories counted": lambda: L.CategoryEncoding(9, output_mode="count"),
    "categories marked": lambda: L.CategoryEncoding(9),
    "categories one by one": lambda: L.CategoryEncoding(9, output_mode="one_hot"),
    "lookup": lambda: L.IntegerLookup(vocabulary=[7, 2, 100, -5]),
    "lookup marked": lambda: L.IntegerLookup(vocabulary=[7, 2, 100], output_mode="multi_hot"),
    "lookup padded": lambda: L.IntegerLookup(
        max_tokens=6, vocabulary=[7, 2], output_mode="one_hot", pad_to_max_tokens=True
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_categories_equal_keras(case, tmp_path):
    x = keras.Input((3,), name="x", dtype="int64")
    numbers = np.array([[7, 2, 2], [0, 8, 5], [1, 7, 7]], "int64")
    assert_equal_to_keras(keras.Model(x, WHOLE[case]()(x)), tmp_path / "m.keras", [numbers])


def test_images_of_whole_numbers_are_resized_to_whole_numbers(tmp_path):
    x = keras.Input((7, 5, 3), name="x", dtype="uint8")
    model = keras.Model(x, L.Resizing(5, 9, interpolation="bicubic")(x))
    pixels = RANDOM.integers(0, 256, (3, 7, 5, 3)).astype("uint8")
    assert_equal_to_keras(model, tmp_path / "m.keras", [pixels])


def test_every_augmentation_leaves_images_alone(tmp_path):
    arguments = {"factor": 0.5, "height": 6, "width": 8, "height_factor": 0.5, "width_factor": 0.5}
    x = keras.Input((6, 8, 3), name="x")
    outputs = []
    for name in IN_TRAINING:
        needed = {key: arguments[key] for key, value in CLASSES[name].items() if value == REQUIRED}
        if name == "RandomPosterization":
            needed = {"factor": 4}
        outputs.append(getattr(L, name)(**needed)(x))
    images = RANDOM.uniform(0, 255, (2, 6, 8, 3)).astype("float32")
    assert_equal_to_keras(keras.Model(x, outputs), tmp_path / "m.keras", [images])
