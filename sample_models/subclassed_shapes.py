"""The code of `subclassed_shapes.keras`: a model whose graph is in no file, only in `call`.

To load it, `keras.models.load_model` needs `custom_objects={"ShapeClassifier": ShapeClassifier}`.
"""

from __future__ import annotations

from typing import Any

import keras


class ConvBlock(keras.layers.Layer):
    """Two convolutions with batch normalisation, then a pooling that halves height and width.

    Args:
        channels: Of the output.
    """

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.conv_a = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name="conv_a")
        self.conv_b = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name="conv_b")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.pool = keras.layers.MaxPooling2D(2, name="pool")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights of the inner layers, so that a file can be loaded into them."""
        self.conv_a.build(input_shape)
        inner_shape = (*input_shape[:-1], self.channels)
        self.conv_b.build(inner_shape)
        self.norm.build(inner_shape)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(B, h, w, c) to (B, h // 2, w // 2, channels)."""
        x = self.norm(self.conv_b(self.conv_a(x)), training=training)
        return self.pool(keras.ops.relu(x))

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`."""
        return {**super().get_config(), "channels": self.channels}


class ShapeClassifier(keras.Model):
    """From (B, h, w, 3) pixels, 0 to 255, to (B, classes) probabilities.

    Args:
        classes: How many classes.
        channels: Of each block in turn.
    """

    def __init__(self, classes: int, channels: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.channels = tuple(channels)
        self.rescaling = keras.layers.Rescaling(1 / 255, name="rescaling")
        self.blocks = [ConvBlock(n, name=f"block{i}") for i, n in enumerate(self.channels, 1)]
        self.pooling = keras.layers.GlobalAveragePooling2D(name="pooling")
        self.predictions = keras.layers.Dense(classes, activation="softmax", name="predictions")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights of all layers, so that a file can be loaded into them."""
        shape = input_shape
        for block in self.blocks:
            block.build(shape)
            shape = (*shape[:-1], block.channels)
        self.predictions.build((None, self.channels[-1]))
        self.built = True

    def call(self, pixels: Any, training: bool | None = None) -> Any:
        """(B, h, w, 3) pixels, 0 to 255, to (B, classes) probabilities."""
        x = self.rescaling(pixels)
        for block in self.blocks:
            x = block(x, training=training)
        return self.predictions(self.pooling(x))

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`."""
        return {**super().get_config(), "classes": self.classes, "channels": self.channels}
