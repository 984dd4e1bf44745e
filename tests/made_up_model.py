"""A model without a framework, for tests of whole runs: `extract` as it is, with an engine of ten lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from layerprobe import pipeline, registry
from layerprobe.formats.opening import open_output
from layerprobe.records import LayerInfo, Sample, TensorSpec
from layerprobe.run import request
from layerprobe.sources.file_source import FileSource

ROWS = 50
FORMATS = {
    "hdf5": "out.h5",
    "npz": "out.npz",
    "npy": "out",
    "safetensors": "out.safetensors",
    "parquet": "out.parquet",
    "zarr": "out.zarr",
}
"""Outputs whose rows have places."""
OTHERS = {
    "jsonl": "out.jsonl",
    "tar": "out.tar",
    "gzip": "out.gzip.h5",
    "zstd": "out.zstd.h5",
    "hdf5 of a stream": "out.stream.h5",
    "npy of a stream": "out.stream",
    "jsonl of a stream": "out.stream.jsonl",
    "gzip of a stream": "out.gzip.stream.h5",
}
"""Those that have none: `extract` here sees by their names how they are made."""
BROKEN = (7, 8, 31)
"""Rows of `write_inputs` that cannot be decoded."""


class MadeUpEngine:
    """A vector, a map and a whole number of each image."""

    outputs = (
        TensorSpec("vector", (3,), "float32", layer="vector"),
        TensorSpec("block/map", (8, 8, 3), "float32", layer="block/map"),
        TensorSpec("count", (), "int32", layer="count"),
    )
    finish = None

    def __init__(self, batch_size: int, pause: float) -> None:
        self.batch_size, self._pause = batch_size, pause
        self.overflowed: dict[str, int] = {}

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(self._pause)
        (x,) = inputs
        return {
            "vector": np.sqrt(x.mean((1, 2)) + 1),
            "block/map": np.tanh(x / 100),
            "count": x.sum((1, 2, 3)).astype("int32"),
        }

    def start(self, inputs: Sequence[np.ndarray]) -> Callable[[], dict[str, np.ndarray]]:
        return lambda: self.run(inputs)

    def describe(self) -> dict[str, Any]:
        return {"name": "made up", "device": "none", "precision": "float32"}


class MadeUpModel:
    """What a run asks of a `ProbedModel`."""

    path = "model.h5"
    note = None
    inputs = (TensorSpec("image", (8, 8, 3), "float32"),)
    fixed_batch_size = None
    usual_batch_size = 32
    info = SimpleNamespace(layers=[LayerInfo("vector", "Dense", 0, ())], class_name="Sequential")
    sha256 = "00" * 32
    takes_long_to_load = False
    pause = 0.0
    engine_class = MadeUpEngine

    def __init__(self, path: str, layers: Sequence[str], *_: object) -> None:
        self._layers = layers

    def prepare(self) -> None:
        """Nothing to load."""

    def engine(self, inputs: object, *, batch_size: int, how: object) -> MadeUpEngine:
        engine = self.engine_class(batch_size, self.pause)
        specs = {spec.name: spec for spec in engine.outputs}
        engine.outputs = tuple(specs[name] for name in self._layers)
        return engine

    outline = engine

    def provenance(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "keras_version": None}

    def signature(self) -> dict[str, Any]:
        return {"model": self.sha256}

    def close(self) -> None:
        """Nothing to close."""


def use_made_up_model(patch: pytest.MonkeyPatch) -> None:
    """Have `extract` run `MadeUpModel`, whatever model it is given."""
    patch.setattr(request, "ProbedModel", MadeUpModel)


def write_inputs(folder: Path, rows: int = ROWS) -> list[str]:
    """Write small images of noise, some of them broken."""
    from PIL import Image

    random = np.random.default_rng(0)
    folder.mkdir()
    for row in range(rows):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), "uint8")).save(folder / f"{row:03}.png")
        if row in BROKEN:
            (folder / f"{row:03}.png").write_bytes(b"no image")
    return sorted(map(str, folder.iterdir()))


def extract(inputs: Sequence[str], output: Path, **options: Any) -> Any:
    """Run all layers, ten rows at once unless otherwise said."""
    names = [spec.name for spec in MadeUpEngine.outputs]
    options = {"batch_size": 10, "workers": 2} | options
    compress = next((name for name in registry.COMPRESSIONS if f".{name}" in output.name), None)
    if compress is not None:
        options = {"compress": compress} | options
    given = Streamed(inputs) if ".stream" in output.name else inputs
    # A folder's name has no suffix: a slash says that it is one.
    path = f"{output}/" if output.name.endswith(".stream") else str(output)
    return pipeline.extract("model.h5", given, options.pop("layers", names), path, **options)


class Streamed(FileSource):
    """Images of which nobody knows how many come; they come once."""

    def __init__(self, files: Sequence[str]) -> None:
        super().__init__(files)
        self._length = None
        self._asked = False

    def __iter__(self) -> Iterator[Sample]:
        assert not self._asked, "a stream comes once"
        self._asked = True
        return super().__iter__()


def contents(output: Path) -> dict[str, bytes]:
    """Every byte of every dataset of an output."""
    with open_output(output) as reader:
        found = {name: np.asarray(reader[name]).tobytes() for name in reader}
        texts = {"paths": reader.paths, "status": reader.status, "error": reader.error}
    return found | {name: "\n".join(lines).encode() for name, lines in texts.items()}
