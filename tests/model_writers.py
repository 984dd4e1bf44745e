"""Model files of any Keras generation written by hand, with h5py and zipfile alone."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Weights = Mapping[str, Sequence[tuple[str, Any]]]
"""Layer -> names and arrays, in the order in which the file lists them."""


def entry(class_name: str, name: str, inbound: Any = None, **config: Any) -> dict[str, Any]:
    """One layer as `.h5` files have it; `inbound` makes it one of a functional model."""
    saved = {"class_name": class_name, "config": {"name": name, **config}}
    return saved if inbound is None else {**saved, "name": name, "inbound_nodes": inbound}


def sequential(*layers: dict[str, Any], name: str = "model") -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(
    *layers: dict[str, Any], inputs: Any, outputs: Any, name: str = "model", class_name: str = "Functional"
) -> dict[str, Any]:
    config = {"name": name, "layers": list(layers), "input_layers": inputs, "output_layers": outputs}
    return {"class_name": class_name, "config": config}


START = entry("InputLayer", "start", [], batch_input_shape=[None, 4], dtype="float32")


def nested(calls: Any, outputs: Any) -> dict[str, Any]:
    """A model "inner" that is called on `start`, and an Add of its outputs."""
    within = functional(
        entry("InputLayer", "q", [], batch_input_shape=[None, 4]),
        entry("Dense", "d", [[["q", 0, 0, {}]]], units=4),
        inputs=[["q", 0, 0]],
        outputs=[["d", 0, 0]],
        name="inner",
    )
    inner = {**within, "name": "inner", "inbound_nodes": calls}
    add = entry("Add", "add", [outputs])
    return functional(START, inner, add, inputs=[["start", 0, 0]], outputs=[["add", 0, 0]])


def write_flat(
    path: Path,
    model: Any,
    weights: Weights | None = None,
    version: str | None = "2.2.4",
    backend: str | None = "tensorflow",
) -> str:
    """An `.h5` file; without a model it holds weights only."""
    with h5py.File(path, "w") as file:
        attributes = {"keras_version": version, "backend": backend}
        if model is not None:
            attributes["model_config"] = json.dumps(model)
        for key, value in attributes.items():
            if value is not None:
                file.attrs[key] = value
        group = file if model is None else file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights or {}]
        for layer, arrays in (weights or {}).items():
            within = group.create_group(layer)
            within.attrs["weight_names"] = [name.encode() for name, _ in arrays]
            for name, array in arrays:
                within.create_dataset(name, data=np.asarray(array))
    return str(path)


def write_tree(path: Path, model: Any, groups: Mapping[str, Sequence[Any]], version: str = "3.8.0") -> str:
    """A `.keras` file; groups are paths such as "layers/dense" and their variables in order."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name, arrays in groups.items():
            within = file.create_group(name).create_group("vars")
            for number, array in enumerate(arrays):
                within.create_dataset(str(number), data=np.asarray(array))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", weights.getvalue())
    return str(path)


def write_json(path: Path, model: Any) -> str:
    path.write_text(json.dumps(model))
    return str(path)
