"""Models to measure with: architectures of keras.applications, with random weights.

    python benchmarks/models.py

Kernels are drawn so that no signal dies out or overflows, statistics of BatchNormalization not as 0 and 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import CACHE, arguments, environment

SOFTMAX = "predictions"


@dataclass(frozen=True)
class Model:
    """One architecture of keras.applications."""

    name: str
    module: str
    """Of keras.applications, with the `preprocess_input` of this architecture."""
    convolution: str
    """The last map before the pooling."""

    @property
    def layers(self) -> tuple[str, str]:
        """What is extracted: the last map and the softmax."""
        return self.convolution, SOFTMAX

    @property
    def path(self) -> Path:
        """Where `made` saves it."""
        return CACHE / f"{self.name}.h5"

    def preprocess(self, pixels: Any) -> Any:
        """What `keras.applications` does with pixels for this architecture."""
        import keras

        return getattr(keras.applications, self.module).preprocess_input(pixels)


MODELS = {
    model.name: model
    for model in (
        Model("MobileNetV2", "mobilenet_v2", "out_relu"),
        Model("ResNet50", "resnet50", "conv5_block3_out"),
        Model("VGG16", "vgg16", "block5_conv3"),
    )
}


def made(name: str) -> Model:
    """The model, saved if it was not; in a process of its own, so that ours stays without TensorFlow."""
    model = MODELS[name]
    if not model.path.exists():
        _apart("save", name)
    return model


def converted(name: str) -> Path:
    """What OpenVINO's own converter makes of the model with both outputs, in float32."""
    path = made(name).path.with_suffix(".xml")
    if not path.exists():
        _apart("convert", name)
    return path


def _apart(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, *command], env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")


def save(model: Model) -> None:
    import keras

    built = getattr(keras.applications, model.name)(weights=None)
    random = np.random.default_rng(0)
    for layer in built.layers:
        layer.set_weights([drawn(random, weight.name, weight.shape) for weight in layer.weights])
    model.path.parent.mkdir(parents=True, exist_ok=True)
    making = model.path.with_suffix(f".{os.getpid()}.h5")
    built.save(making)
    making.rename(model.path)


def convert(model: Model) -> None:
    import openvino
    import tensorflow as tf
    from with_keras import load

    network = load(model)
    function = tf.function(lambda images: network(images, training=False))
    given = tf.TensorSpec((None, *network.inputs[0].shape[1:]), tf.float32)
    whole = openvino.convert_model(function.get_concrete_function(given))
    openvino.save_model(whole, model.path.with_suffix(".xml"), compress_to_fp16=False)


def drawn(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values for one weight, by its Keras name."""
    if name in ("gamma", "moving_variance"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:  # beta, bias, moving_mean
        return random.normal(0, 0.1, shape).astype(np.float32)
    inputs = np.prod(shape[:-2] if name == "depthwise_kernel" else shape[:-1])
    return random.normal(0, np.sqrt(1.5 / inputs), shape).astype(np.float32)


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[2] in MODELS:
        {"save": save, "convert": convert}[sys.argv[1]](MODELS[sys.argv[2]])
        return
    arguments("models.py", __doc__)
    for name in MODELS:
        print(made(name).path)


if __name__ == "__main__":
    main()
