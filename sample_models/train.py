"""Makes every file of this folder that is not code: models and pictures.

::

    python sample_models/train.py                        everything, about a quarter of an hour on two cores
    python sample_models/train.py --only vgg_shapes      one of them
    python sample_models/train.py --folder /tmp/models   somewhere else

Needs keras (TensorFlow back end), tf_keras and h5py (for the Keras 2 file), numpy and pillow. Seeds are
fixed: on the same machine with the same versions the same weights come out.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import h5py
import keras
import networks
import numpy as np
import tensorflow as tf
import tf_keras
from drawing import CLASSES, HELD_OUT
from pictures import HERE, PictureSet, draw_set, write_pictures

TRAINING_PICTURES = 24_000
HELD_OUT_PICTURES = 2_000
BATCH = 64

_draw_set = functools.cache(draw_set)  # three models are trained on the same pictures


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the sample models and draw the sample pictures.")
    parser.add_argument("--only", choices=TARGETS, action="append", help="make this alone; may be repeated")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files go; default: this folder")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    tf.config.experimental.enable_op_determinism()
    for target in arguments.only or TARGETS:
        keras.utils.set_random_seed(1)
        TARGETS[target](arguments.folder)


def make_vgg_shapes(folder: Path) -> None:
    """`vgg_shapes.keras`, and the same weights as Keras 2 would have written them into `vgg_shapes.h5`."""
    model = networks.vgg_shapes()
    pictures = _draw_set(0, TRAINING_PICTURES, networks.VGG_SIDE)
    _standardise_convolutions(model, pictures.pixels[:256])
    evidence = keras.ops.matmul(model.get_layer("conv5_3").output, model.get_layer("predictions").kernel)
    with_evidence = keras.Model(model.input, [model.output, evidence])
    losses = ["sparse_categorical_crossentropy", _evidence_outside]
    with_evidence.compile(_optimizer(3e-3, epochs=7), losses, loss_weights=[1.0, 0.2])
    targets = [pictures.labels, _cells_inside(pictures, evidence.shape[1])]
    with_evidence.fit(pictures.pixels, targets, batch_size=BATCH, epochs=7, verbose=2)
    _print_accuracy(model, networks.VGG_SIDE)
    _save(model, networks.vgg_shapes(), folder / "vgg_shapes.keras")
    _save_as_keras_2(model, folder / "vgg_shapes.h5")


def make_nested_shapes(folder: Path) -> None:
    model = networks.nested_shapes()
    _train_classifier(model, networks.SMALL_SIDE, epochs=9, rate=4e-3)
    _save(model, networks.nested_shapes(), folder / "nested_shapes.keras")


def make_subclassed_shapes(folder: Path) -> None:
    model = networks.subclassed_shapes()
    _train_classifier(model, networks.SMALL_SIDE, epochs=6, rate=4e-3)
    _save(model, networks.subclassed_shapes(), folder / "subclassed_shapes.keras")


def make_two_inputs(folder: Path) -> None:
    model = networks.two_inputs()
    pictures = _draw_set(0, TRAINING_PICTURES, networks.SMALL_SIDE)
    inputs, targets = _questions(pictures, seed=1)
    losses = {"present": "binary_crossentropy", "box": "mean_absolute_error"}
    model.compile(_optimizer(4e-3, epochs=8), losses, loss_weights={"present": 1.0, "box": 4.0})
    model.fit(inputs, targets, batch_size=BATCH, epochs=8, verbose=2)
    pictures = _draw_set(HELD_OUT, HELD_OUT_PICTURES, networks.SMALL_SIDE)
    inputs, targets = _questions(pictures, seed=2)
    found = model.predict(inputs, verbose=0)
    right = (found["present"] > 0.5) == targets["present"]
    overlap = _overlaps(found["box"], targets["box"]).mean()
    print(
        f"two_inputs: {right.mean():.2%} of {len(right)} held-out questions right, overlap {overlap:.3f}",
        flush=True,
    )
    _save(model, networks.two_inputs(), folder / "two_inputs.keras")


def _standardise_convolutions(model: keras.Model, pixels: Any) -> None:
    """Scale and shift each convolution so that what it gives for `pixels` has mean 0 and variance 1.

    Thirteen convolutions with random weights make all pictures look alike to the last; training then takes
    epochs to get under way. This is what batch normalisation would do to the first batch, without its layers
    (https://arxiv.org/abs/1602.07868, section 3).
    """
    x = keras.ops.cast(pixels, "float32")
    for layer in model.layers[1:]:
        if isinstance(layer, keras.layers.Conv2D):
            mean, variance = keras.ops.moments(
                keras.ops.conv(x, layer.kernel, padding="same"), axes=[0, 1, 2]
            )
            deviation = keras.ops.sqrt(variance)
            layer.kernel.assign(layer.kernel / deviation)
            layer.bias.assign(-mean / deviation)
        x = layer(x)


def _train_classifier(model: keras.Model, side: int, epochs: int, rate: float) -> None:
    pictures = _draw_set(0, TRAINING_PICTURES, side)
    model.compile(_optimizer(rate, epochs), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(pictures.pixels, pictures.labels, batch_size=BATCH, epochs=epochs, verbose=2)
    _print_accuracy(model, side)


def _print_accuracy(model: keras.Model, side: int) -> None:
    pictures = _draw_set(HELD_OUT, HELD_OUT_PICTURES, side)
    right = model.predict(pictures.pixels, verbose=0).argmax(axis=1) == pictures.labels
    print(f"{model.name}: {right.mean():.2%} of {len(right)} held-out pictures right", flush=True)


def _optimizer(rate: float, epochs: int) -> keras.optimizers.Optimizer:
    """Adam; the learning rate climbs to `rate` in 150 steps, then falls along a cosine."""
    steps = epochs * -(-TRAINING_PICTURES // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 20, steps - 150, alpha=0.01, warmup_target=rate, warmup_steps=150
    )
    return keras.optimizers.Adam(schedule)


def _evidence_outside(inside: Any, evidence: Any) -> Any:
    """How much of the evidence for the class shown lies outside of its box: a loss that keeps maps sharp.

    Args:
        inside: (B, cells, cells, classes), from `_cells_inside`.
        evidence: (B, cells, cells, classes), the class activation maps.
    """
    classes = inside.shape[-1]
    shares = keras.ops.softmax(keras.ops.reshape(evidence, (-1, evidence.shape[1] ** 2, classes)), axis=1)
    found = keras.ops.sum(shares * keras.ops.reshape(inside, keras.ops.shape(shares)), axis=(1, 2))
    return -keras.ops.log(found + 1e-7)


def _cells_inside(pictures: PictureSet, cells: int) -> Any:
    """(N, cells, cells, classes): 1 where the middle of a cell is in the box, for the class shown; else 0."""
    middles = (np.arange(cells) + 0.5) / cells
    left, top, right, bottom = pictures.boxes.T[..., None]
    across = (left <= middles) & (middles <= right)
    down = (top <= middles) & (middles <= bottom)
    shown = np.eye(len(CLASSES), dtype=np.float32)[pictures.labels]
    return (down[:, :, None] & across[:, None, :])[..., None] * shown[:, None, None, :]


def _questions(pictures: PictureSet, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and targets of the model with two inputs; half of the questions are to be answered with yes."""
    rng = np.random.default_rng(seed)
    present = rng.random(len(pictures.labels)) < 0.5
    others = (pictures.labels + rng.integers(1, len(CLASSES), len(pictures.labels))) % len(CLASSES)
    query = np.eye(len(CLASSES), dtype=np.float32)[np.where(present, pictures.labels, others)]
    inputs = {"image": pictures.pixels, "query": query}
    return inputs, {"present": present[:, None].astype(np.float32), "box": pictures.boxes}


def _overlaps(found: Any, drawn: Any) -> Any:
    """Intersection over union of (N, 4) boxes, (N,)."""
    size = np.minimum(found[:, 2:], drawn[:, 2:]) - np.maximum(found[:, :2], drawn[:, :2])
    common = size.clip(0).prod(axis=1)
    areas = sum((box[:, 2:] - box[:, :2]).clip(0).prod(axis=1) for box in (found, drawn))
    return common / (areas - common)


def _save(model: keras.Model, empty: keras.Model, path: Path) -> None:
    """Save the weights in an untrained twin: half of a trained model's file is the state of its optimizer."""
    empty.set_weights(model.get_weights())
    empty.save(path)


def _save_as_keras_2(model: keras.Model, path: Path) -> None:
    """Write the weights into Keras 2's HDF5 format, with the config as it was before version 2.13."""
    twin = networks.vgg_shapes(tf_keras.layers, tf_keras.Model)
    twin.set_weights(model.get_weights())
    twin.save(path, include_optimizer=False)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"], object_hook=_without_later_keys)
        file.attrs["model_config"] = json.dumps(config)


def _without_later_keys(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in ("module", "registered_name", "optional")}


TARGETS = {
    "vgg_shapes": make_vgg_shapes,
    "nested_shapes": make_nested_shapes,
    "two_inputs": make_two_inputs,
    "subclassed_shapes": make_subclassed_shapes,
    "images": write_pictures,
}

if __name__ == "__main__":
    main()
