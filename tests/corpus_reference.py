"""What tf_keras computes for models, in a process of its own: `python corpus_reference.py FOLDER`.

FOLDER/models.json maps names to paths; FOLDER/NAME.in.npz holds inputs x0, x1, ... For each model that
tf_keras loads, FOLDER/NAME.out.npz gets every layer's values, and beside them what they become when the
inputs are changed by a millionth: a network that this moves far has no fifth digit to compare.

Never to be given a file that holds code: tf_keras runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def compute(tf_keras: Any, path: Path, inputs: list[Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        if path.is_file():
            # tf_keras goes by the name, not by the bytes.
            suffix = ".keras" if path.read_bytes()[:2] == b"PK" else ".h5"
            path = Path(shutil.copyfile(path, Path(folder) / f"model{suffix}"))
        model = tf_keras.models.load_model(str(path), compile=False)
    names, tensors = [], []
    for layer in model.layers:
        outputs = layer.get_output_at(len(layer._inbound_nodes) - 1)
        for number, tensor in enumerate(outputs if isinstance(outputs, list | tuple) else [outputs]):
            names.append(f"{layer.name}:{number}")
            tensors.append(tensor)
    every = tf_keras.Model(model.inputs, tensors)
    found = {}
    for prefix, factor in (("value ", 1.0), ("moved ", 1.000001)):
        changed = [(x * factor).astype(x.dtype) for x in inputs]
        values = every(changed if len(changed) > 1 else changed[0], training=False)
        values = values if isinstance(values, list | tuple) else [values]
        found.update({prefix + name: np.asarray(value) for name, value in zip(names, values, strict=True)})
    return found


def main(folder: Path) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras

    for name, path in json.loads((folder / "models.json").read_text()).items():
        arrays = np.load(folder / f"{name}.in.npz")
        try:
            found = compute(tf_keras, Path(path), [arrays[key] for key in arrays.files])
        except Exception as error:  # What tf_keras cannot load or run is not compared.
            print(f"{name}: {str(error)[:200]!r}")
            continue
        np.savez(folder / f"{name}.out.npz", **{key.replace("/", "|"): value for key, value in found.items()})
        tf_keras.backend.clear_session()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
