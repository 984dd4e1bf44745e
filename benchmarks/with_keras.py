"""What layerprobe is held against: the same work, written with Keras. A program that the benchmarks start.

    python benchmarks/with_keras.py one MODEL IMAGE OUT.npz
    python benchmarks/with_keras.py folder MODEL FOLDER OUT.h5
    python benchmarks/with_keras.py loop MODEL FOLDER OUT.h5

`folder` and `loop` print, as JSON, the images per second once the model is loaded and has run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
import numpy as np
from models import MODELS, Model

SIZE = (224, 224)
BATCH = 32


def load(model: Model) -> keras.Model:
    """The model whose outputs are the last map and the softmax."""
    loaded = keras.models.load_model(model.path, compile=False)
    layers = [loaded.get_layer(name) for name in model.layers]
    return keras.Model(loaded.inputs, [layer.output for layer in layers])


def image(model: Model, path: Path) -> np.ndarray:
    """(1, 224, 224, 3), with the pixels that layerprobe has, too."""
    pixels = keras.utils.load_img(path, target_size=SIZE, interpolation="bilinear")
    return model.preprocess(keras.utils.img_to_array(pixels)[np.newaxis])


def save(path: Path, model: Model, found: Sequence[np.ndarray]) -> None:
    """The HDF5 file as layerprobe writes it: one contiguous dataset per layer, on disk when done."""
    with h5py.File(path, "w") as file:
        for name, values in zip(model.layers, found, strict=True):
            file[name] = values
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def one(model: Model, path: Path, output: Path) -> None:
    found = load(model).predict(image(model, path), verbose=0)
    np.savez(output, **dict(zip(model.layers, found, strict=True)))


def folder(model: Model, photos: Path, output: Path) -> float:
    """`predict` over a data set, decoded and prepared ahead by TensorFlow's threads -> images per second."""
    network = load(model)
    network.predict(np.zeros((BATCH, *SIZE, 3), np.float32), verbose=0)
    started = time.perf_counter()
    images = keras.utils.image_dataset_from_directory(
        photos, labels=None, shuffle=False, image_size=SIZE, batch_size=BATCH, verbose=False
    )
    found = network.predict(images.map(model.preprocess, num_parallel_calls=-1).prefetch(-1), verbose=0)
    save(output, model, found)
    return len(found[0]) / (time.perf_counter() - started)


def loop(model: Model, photos: Path, output: Path) -> float:
    """One image at a time, as in most examples -> images per second."""
    network = load(model)
    network.predict(np.zeros((1, *SIZE, 3), np.float32), verbose=0)
    started = time.perf_counter()
    found = [network.predict(image(model, path), verbose=0) for path in sorted(photos.iterdir())]
    save(output, model, [np.concatenate(layer) for layer in zip(*found, strict=True)])
    return len(found) / (time.perf_counter() - started)


def main() -> None:
    way, name, source, output = sys.argv[1:]
    rate = {"one": one, "folder": folder, "loop": loop}[way](MODELS[name], Path(source), Path(output))
    print(json.dumps(rate))


if __name__ == "__main__":
    main()
