"""The same work with keract: a program that `against_keract.py` starts, with TensorFlow 2.15.

    python with_keract.py ARCHITECTURE WEIGHTS.h5 FOLDER OUT.h5 LAYER ...

It prints, as JSON, the images per second once the model is loaded and has run. ARCHITECTURE is the module and
the name in keras.applications, as `mobilenet_v2.MobileNetV2`: of what Keras 3 writes that release reads the
weights, but not the configuration.
"""

import json
import os
import sys
import time
from pathlib import Path

import h5py
import keract
import numpy as np
import tensorflow as tf

SIZE = (224, 224)
BATCH = 32
"""keract leaves batches to its caller: all photos at once would be computed at once."""


def main() -> None:
    architecture, weights, photos, output, *layers = sys.argv[1:]
    module, name = architecture.split(".")
    family = getattr(tf.keras.applications, module)
    model = getattr(family, name)(weights=weights)
    model.compile(loss="mse", optimizer="adam")  # keract asks for it

    def activations(paths: list[Path]) -> list[np.ndarray]:
        images = [tf.keras.utils.load_img(path, target_size=SIZE, interpolation="bilinear") for path in paths]
        pixels = np.stack([tf.keras.utils.img_to_array(image) for image in images])
        found = keract.get_activations(model, family.preprocess_input(pixels), layer_names=layers)
        return [found[layer] for layer in layers]

    paths = sorted(Path(photos).iterdir())
    activations(paths[:BATCH])
    started = time.perf_counter()
    batches = [activations(paths[start : start + BATCH]) for start in range(0, len(paths), BATCH)]
    with h5py.File(output, "w") as file:
        for layer, values in zip(layers, zip(*batches, strict=True), strict=True):
            file[layer] = np.concatenate(values)
    with open(output, "rb") as file:
        os.fsync(file.fileno())
    print(json.dumps(len(paths) / (time.perf_counter() - started)))


if __name__ == "__main__":
    main()
