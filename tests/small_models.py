"""A small valid model in every format, written without Keras."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# 4 numbers -> Dense "first" (3) -> one layer more, "middle" -> Dense "last" (2).

Layer = dict[str, Any]


def layer(class_name: str, name: str, module: str | None = "keras.layers", **config: Any) -> Layer:
    entry = {"class_name": class_name, "config": {"name": name, **config}}
    return entry if module is None else {"module": module, **entry, "registered_name": None}


def dense(name: str, units: Any, **config: Any) -> Layer:
    return layer("Dense", name, units=units, activation=config.pop("activation", "linear"), **config)


def document(*layers: Layer, **more: Any) -> dict[str, Any]:
    start = layer("InputLayer", "start", batch_shape=[None, 4], dtype="float32")
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [start, *layers]},
        "registered_name": None,
        **more,
    }


def around(middle: Layer) -> dict[str, Any]:
    return document(dense("first", 3), middle, dense("last", 2))


FIRST = {"kernel": np.ones((4, 3), "float32"), "bias": np.zeros(3, "float32")}
LAST = {"kernel": np.ones((3, 2), "float32"), "bias": np.zeros(2, "float32")}


def write_hdf5(path: Path, model: Any, change: Callable[[h5py.File, str], None] | None = None) -> None:
    """The layout of Keras 2."""
    text = model if isinstance(model, str | bytes) else json.dumps(model)
    with h5py.File(path, "w") as file:
        # Where the text does not fit into an attribute, dense storage is needed.
        file.attrs["keras_version"], file.attrs["backend"] = "3.8.0", "tensorflow"
        file.attrs["model_config"] = np.void(text) if isinstance(text, bytes) else text
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"first", b"last"]
        for name, arrays in (("first", FIRST), ("last", LAST)):
            group = weights.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}".encode() for key in arrays]
            for key, array in arrays.items():
                group[f"{name}/{key}"] = array
        if change is not None:
            change(file, "model_weights/first/first/kernel")


def weights_member(change: Callable[[h5py.File, str], None] | None = None) -> bytes:
    """The layout of Keras 3."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, arrays in (("dense", FIRST), ("dense_1", LAST)):
            for number, array in enumerate(arrays.values()):
                file[f"layers/{name}/vars/{number}"] = array
        if change is not None:
            change(file, "layers/dense/vars/0")
    return buffer.getvalue()


def write_keras(
    path: Path,
    model: Any,
    change: Callable[[h5py.File, str], None] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> None:
    text = model if isinstance(model, str | bytes) else json.dumps(model)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", weights_member(change))
