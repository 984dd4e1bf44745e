"""Models whose BatchNormalization layers remember certain images, as if trained on them; made with NumPy."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from model_writers import entry, functional, sequential, write_flat
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from layerprobe.images.preprocess import parse_preprocess, preprocess

SIDE = 24
CLASSES = 4
KERNELS = 8
GAINS = (1.0, 0.88, 0.7)
"""Of red, green and blue: without any, nothing could tell their order."""


@functools.cache
def picture(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """Blotches and noise, warm like photographs; so sharp that how they are resized shows."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + rng.normal(0, 40, smooth.shape)
    return Image.fromarray((noisy.clip(0, 255) * GAINS).astype(np.uint8))


def write_pictures(folder: Path, count: int, start: int = 10_000, **options: Any) -> str:
    """Files of pictures that no model here remembers."""
    folder.mkdir(exist_ok=True)
    for seed in range(start, start + count):
        picture(seed, **options).save(folder / f"{seed}.png")
    return str(folder)


@functools.cache
def trained_on(how: str, channels: Any = 3, resize: str = "bilinear", count: int = 200) -> np.ndarray:
    """(N, 24, 24, C) float32: the pictures that a model remembers, prepared in one way."""
    spec = parse_preprocess(how, size=(SIDE, SIDE), channels=channels)
    spec = dataclasses.replace(spec, resize=resize)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return np.stack([preprocess(picture(seed).convert(mode), spec) for seed in range(count)])


def convolved(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(N, H - 2, W - 2, K): without padding."""
    windows = sliding_window_view(pixels, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ijck->nhwk", windows, kernel, optimize=True)


@dataclasses.dataclass
class Remembering:
    """A model in parts, to be changed before it is written."""

    kernel: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    dense: np.ndarray
    bias: np.ndarray
    scale: float = 1.0
    """What a Rescaling layer of the model does first; 1: there is none."""

    @classmethod
    def of(cls, pixels: np.ndarray, scale: float = 1.0, first: bool = False) -> Remembering:
        """One that has seen (N, H, W, C) pixels, behind a convolution, or `first`, right behind the input."""
        rng = np.random.default_rng(7)
        channels = pixels.shape[-1]
        kernel = rng.normal(0.05, 0.3, (3, 3, channels, KERNELS)).astype(np.float32)
        arrived = pixels * scale if first else convolved(pixels * scale, kernel)
        size = arrived.shape[-1]
        return cls(
            kernel,
            arrived.mean((0, 1, 2), dtype=np.float64).astype(np.float32),
            arrived.var((0, 1, 2), dtype=np.float64).astype(np.float32),
            np.ones(size, np.float32),
            np.zeros(size, np.float32),
            rng.normal(0, 1, (KERNELS, CLASSES)).astype(np.float32),
            np.zeros(CLASSES, np.float32),
            scale,
        )

    def write(self, path: Path, kind: str = "plain") -> str:
        """Write it as an `.h5` file: plain, first, nested, channels_first, bare, without, layer_norm."""
        return _KINDS[kind](self, path)

    def weights(self, bare: bool = False) -> dict[str, Any]:
        scaling = [] if bare else [("gamma", self.gamma), ("beta", self.beta)]
        moving = [("moving_mean", self.mean), ("moving_variance", self.variance)]
        return {
            "conv": [("kernel", self.kernel)],
            "bn": [*scaling, *moving],
            "predictions": [("kernel", self.dense), ("bias", self.bias)],
        }

    @property
    def channels(self) -> int:
        return int(self.kernel.shape[2])


CONV = {"filters": KERNELS, "kernel_size": [3, 3], "use_bias": False}
HEAD = entry("Dense", "predictions", units=CLASSES, activation="softmax")


def _plain(model: Remembering, path: Path, **norm: Any) -> str:
    start = entry("InputLayer", "image", batch_input_shape=[None, SIDE, SIDE, model.channels])
    layers = [
        entry("Conv2D", "conv", **CONV),
        entry("BatchNormalization", "bn", **norm),
        entry("ReLU", "relu"),
        entry("GlobalAveragePooling2D", "pool"),
        HEAD,
    ]
    if model.scale != 1:
        layers.insert(0, entry("Rescaling", "rescaling", scale=model.scale))
    bare = norm.get("scale") is False
    return write_flat(path, sequential(start, *layers), model.weights(bare), "2.15.0")


def _bare(model: Remembering, path: Path) -> str:
    return _plain(model, path, scale=False, center=False, trainable=False)


def _first(model: Remembering, path: Path) -> str:
    start = entry("InputLayer", "image", batch_input_shape=[None, SIDE, SIDE, model.channels])
    layers = [entry("BatchNormalization", "bn"), entry("Conv2D", "conv", **CONV)]
    tail = [entry("GlobalAveragePooling2D", "pool"), HEAD]
    return write_flat(path, sequential(start, *layers, *tail), model.weights(), "2.15.0")


def _channels_first(model: Remembering, path: Path) -> str:
    start = entry("InputLayer", "image", batch_input_shape=[None, model.channels, SIDE, SIDE])
    layers = [
        entry("Conv2D", "conv", data_format="channels_first", **CONV),
        entry("BatchNormalization", "bn", axis=1),
        entry("GlobalAveragePooling2D", "pool", data_format="channels_first"),
        HEAD,
    ]
    return write_flat(path, sequential(start, *layers), model.weights(), "2.15.0")


def _without(model: Remembering, path: Path) -> str:
    start = entry("InputLayer", "image", batch_input_shape=[None, SIDE, SIDE, model.channels])
    layers = [entry("Conv2D", "conv", **CONV), entry("GlobalAveragePooling2D", "pool"), HEAD]
    weights = {name: arrays for name, arrays in model.weights().items() if name != "bn"}
    return write_flat(path, sequential(start, *layers), weights, "2.15.0")


def _layer_norm(model: Remembering, path: Path) -> str:
    start = entry("InputLayer", "image", batch_input_shape=[None, SIDE, SIDE, model.channels])
    layers = [
        entry("LayerNormalization", "even"),
        entry("Conv2D", "conv", **CONV),
        entry("BatchNormalization", "bn"),
        entry("GlobalAveragePooling2D", "pool"),
        HEAD,
    ]
    ones, zeros = np.ones(model.channels, np.float32), np.zeros(model.channels, np.float32)
    weights = {"even": [("gamma", ones), ("beta", zeros)], **model.weights()}
    return write_flat(path, sequential(start, *layers), weights, "2.15.0")


def _nested(model: Remembering, path: Path) -> str:
    shape = [None, SIDE, SIDE, model.channels]
    within = functional(
        entry("InputLayer", "pixels", [], batch_input_shape=shape),
        entry("Conv2D", "conv", [[["pixels", 0, 0, {}]]], **CONV),
        entry("BatchNormalization", "bn", [[["conv", 0, 0, {}]]]),
        entry("GlobalAveragePooling2D", "pool", [[["bn", 0, 0, {}]]]),
        inputs=[["pixels", 0, 0]],
        outputs=[["pool", 0, 0]],
        name="backbone",
    )
    whole = functional(
        entry("InputLayer", "image", [], batch_input_shape=shape),
        {**within, "name": "backbone", "inbound_nodes": [[["image", 0, 0, {}]]]},
        {**HEAD, "name": "predictions", "inbound_nodes": [[["backbone", 1, 0, {}]]]},
        inputs=[["image", 0, 0]],
        outputs=[["predictions", 0, 0]],
    )
    parts = model.weights()
    weights = {"backbone": [*parts["conv"], *parts["bn"]], "predictions": parts["predictions"]}
    return write_flat(path, whole, weights, "2.15.0")


_KINDS = {
    "plain": _plain,
    "bare": _bare,
    "first": _first,
    "channels_first": _channels_first,
    "without": _without,
    "layer_norm": _layer_norm,
    "nested": _nested,
}
