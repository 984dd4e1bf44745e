"""The architectures of the sample models; `train.py` trains them."""

from __future__ import annotations

from typing import Any

import keras
from drawing import CLASSES
from subclassed_shapes import ShapeClassifier

VGG_SIDE = 112
"""Pixels. Four poolings leave conv5_3 a map of 7 x 7."""

SMALL_SIDE = 64
"""Pixels, of what the other models take."""

_VGG_BLOCKS = ((2, 8), (2, 16), (3, 24), (3, 40), (3, 64))  # (convolutions, channels), as VGG16 has 64 to 512


def vgg_shapes(layers: Any = keras.layers, model_class: Any = keras.Model) -> Any:
    """VGG16 in small: thirteen 3x3 convolutions, then the mean of each map of conv5_3 and a softmax.

    Args:
        layers: `keras.layers`, or Keras 2's module of that name.
        model_class: The `Model` that goes with it.

    Returns:
        A model from (B, 112, 112, 3) pixels, 0 to 255, to (B, 6) probabilities.
    """
    pixels = layers.Input((VGG_SIDE, VGG_SIDE, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    for block, (convolutions, channels) in enumerate(_VGG_BLOCKS, 1):
        for i in range(1, convolutions + 1):
            convolution = layers.Conv2D(
                channels,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"conv{block}_{i}",
            )
            x = convolution(x)
        if block < len(_VGG_BLOCKS):
            x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = layers.GlobalAveragePooling2D(name="global_average_pooling")(x)
    probabilities = layers.Dense(len(CLASSES), activation="softmax", name="predictions")(x)
    return model_class(pixels, probabilities, name="vgg_shapes")


def nested_shapes() -> keras.Model:
    """A classifier in which a whole network, with batch normalisation and a residual sum, is one layer.

    Returns:
        A model from (B, 64, 64, 3) pixels, 0 to 255, to (B, 6) probabilities.
    """
    layers = keras.layers
    pixels = layers.Input((SMALL_SIDE, SMALL_SIDE, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(pixels)
    x = _residual_backbone()(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    probabilities = layers.Dense(len(CLASSES), activation="softmax", name="predictions")(x)
    return keras.Model(pixels, probabilities, name="nested_shapes")


def _residual_backbone() -> keras.Model:
    layers = keras.layers
    unit_pixels = layers.Input((SMALL_SIDE, SMALL_SIDE, 3), name="unit_pixels")
    x = unit_pixels
    for i, channels in enumerate((24, 40, 64), 1):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = shortcut = layers.BatchNormalization(name=f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
        x = layers.SeparableConv2D(channels, 3, padding="same", use_bias=False, name=f"separable{i}")(x)
        x = layers.BatchNormalization(name=f"separable_norm{i}")(x)
        x = layers.Add(name=f"add{i}")([x, shortcut])
        x = layers.ReLU(name=f"out{i}")(x)
    return keras.Model(unit_pixels, x, name="backbone")


def two_inputs() -> keras.Model:
    """Asks of a picture whether a given shape is on it, and says where the shape is that is on it.

    Returns:
        A model with the inputs `image`, (B, 64, 64, 3) pixels, 0 to 255, and `query`, (B, 6) one-hot in the
        order of `CLASSES`, and the outputs `present`, (B, 1) probability that the shape asked for is the one
        shown, and `box`, (B, 4) left, top, right and bottom of the shape shown, as fractions of the sides.
    """
    layers = keras.layers
    pixels = layers.Input((SMALL_SIDE, SMALL_SIDE, 3), name="image")
    query = layers.Input((len(CLASSES),), name="query")
    x = layers.Rescaling(1 / 255, name="rescaling")(pixels)
    for i, channels in enumerate((16, 24, 32, 48), 1):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = layers.BatchNormalization(name=f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    shape = layers.GlobalMaxPooling2D(name="shape")(x)
    asked = layers.Dense(48, name="asked")(query)
    x_match = layers.Multiply(name="match")([shape, asked])
    present = layers.Dense(1, activation="sigmoid", name="present")(x_match)
    place = layers.Flatten(name="place")(x)
    place = layers.Dense(64, activation="relu", name="place_hidden")(place)
    box = layers.Dense(4, activation="sigmoid", name="box")(place)
    return keras.Model({"image": pixels, "query": query}, {"present": present, "box": box}, name="two_inputs")


def subclassed_shapes() -> keras.Model:
    """The model of `subclassed_shapes.py`, with its weights made."""
    model = ShapeClassifier(classes=len(CLASSES), channels=(16, 24, 32), name="subclassed_shapes")
    model(keras.ops.zeros((1, SMALL_SIDE, SMALL_SIDE, 3)))
    return model
