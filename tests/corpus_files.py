"""137 model files of strangers, of ten years of Keras: which are models, and what goes into them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.config import read_graph
from layerprobe.modelfile.graph import walk
from layerprobe.records import ModelInfo, Tap
from layerprobe.taps import Recording

CORPUS = Path(os.environ.get("LAYERPROBE_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))

is_here = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of model files is not here")

STEP = 1 if os.environ.get("CORPUS") == "all" else 3
"""Tests that take minutes over all models take every third, each from another one on; CORPUS=all: all."""

NO_MODEL = ("tfjs", "weights only")
"""Kinds of files that hold no model, or none that is Keras's."""
INCOMPLETE = (
    "Alltristans+CIFAR-10-Image-Classification__a33da58b__SM",
    "Chernobyl81+humanseg_tflite__4aa97194__SM",
)
"""A SavedModel whose variables are missing, and one without a signature."""
SERVED = "spotify+basic-pitch__3a22fc98__SM"
"""Its layers are of unknown classes, but its graph is there."""
RANDOM_LAMBDAS = (
    "Hoop77+digit-recognition__0a30b893__autoencoder.h5",
    "Hoop77+digit-recognition__16d075e3__encoder.h5",
)
OTHER_LAMBDAS = {
    **{name: {"z": "x[0]"} for name in RANDOM_LAMBDAS},
    "meenakhose+twins_faces__adf0e278__siamese_model.h5": {
        "lambda_4": "sqrt(sum(square(x[0] - x[1]), axis=1, keepdims=True))"
    },
}
"""The three whose Lambda is random or not in the file, and expressions for them."""


@cache
def manifest() -> list[dict[str, str]]:
    with open(CORPUS / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def path_of(row: dict[str, str]) -> str:
    return str(CORPUS / "files" / row["file"])


def models() -> Iterator[dict[str, str]]:
    """Rows of the manifest that are models, complete with weights."""
    for row in manifest():
        kind = row["format"]
        if kind.startswith("json") or any(word in kind for word in NO_MODEL) or row["file"] in INCOMPLETE:
            continue
        yield row


def some_models(first: int) -> Iterator[dict[str, str]]:
    """Every `STEP`-th of them, from that one on."""
    return islice(models(), min(first, STEP - 1), None, STEP)


def is_custom(row: dict[str, str]) -> bool:
    """Whether it needs code that is not in the file; what the manifest also counts is Keras's own."""
    return row["custom"] not in ("", "Merge", "TFOpLambda") and row["file"] != SERVED


def inputs_for(info: ModelInfo, row: dict[str, str]) -> list[Any]:
    """Three rows per input; whole numbers where an Embedding takes them."""
    rng = np.random.default_rng(0)
    with open_archive(path_of(row)) as archive:
        graph = read_graph(archive, OTHER_LAMBDAS.get(row["file"]))
    words = [node.config["input_dim"] for _, node in walk(graph) if node.class_name == "Embedding"]
    first = [node.config["batch_shape"][0] for node in graph.layers if node.is_input] or [None]
    arrays = []
    for spec in info.inputs:
        shape = (first[0] or 3, *(size or (32 if len(spec.shape) == 3 else 12) for size in spec.shape))
        array = rng.integers(1, min(words), shape) if words else rng.random(shape)
        arrays.append(array.astype("float32"))
    return arrays


def values(model: keras.Model, addresses: list[str], inputs: list[Any]) -> dict[str, Any]:
    """The last call's values of some layers, recorded while the model runs once."""
    recording = Recording(model, [Tap(address) for address in addresses])
    with recording.active():
        model(inputs if len(inputs) > 1 else inputs[0], training=False)
    found = recording.tensors(None)
    return {tap.address + f":{tap.output or 0}": np.asarray(value) for tap, value in found.items()}
