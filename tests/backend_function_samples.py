"""Models and values that the tests of backend functions share."""

import keras
import numpy as np
from keras import layers

IMAGES = np.random.default_rng(0).random((3, 8, 8, 3)).astype("float32")
IDS = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]])


def close(actual, expected, tolerance: float = 1e-5) -> bool:
    """Whether the largest difference is small beside the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.max(np.abs(actual - expected))) <= tolerance * max(1e-30, float(np.max(np.abs(expected))))


def predict(model, values):
    return model.predict(values, verbose=0)


def classifier(name: str = "classifier") -> keras.Model:
    image = keras.Input((8, 8, 3), name=f"{name}_image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv1")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(5, 3, name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(4, activation="softmax", name="predictions")(x), name=name)
    rng = np.random.default_rng(1)
    model.set_weights([rng.random(weight.shape) for weight in model.get_weights()])
    return model


def sequential() -> keras.Sequential:
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(4, "relu"), layers.Dropout(0.5), layers.Dense(3)]
    )
    model.add(layers.Dense(2))
    return model


def nest(inner: keras.Model, name: str = "outer") -> keras.Model:
    """The model, called on images that are scaled first, with a dense layer behind it."""
    image = keras.Input((8, 8, 3), name=f"{name}_image")
    features = layers.Flatten()(inner(layers.Rescaling(0.5)(image)))
    return keras.Model(image, layers.Dense(2, name=f"{name}_head")(features), name=name)


class Counted(layers.Layer):
    """Counts how often Python runs it, which TensorFlow does once for each trace."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def call(self, x):
        self.runs += 1
        return x * 2

    def compute_output_shape(self, shape):
        return shape
