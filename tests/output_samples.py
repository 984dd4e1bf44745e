"""Outputs for the tests of formats: layers of many kinds, and a run that writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from layerprobe import registry
from layerprobe.formats.opening import open_output
from layerprobe.formats.row_texts import RowTexts
from layerprobe.formats.writing import open_writer
from layerprobe.protocols import Writer
from layerprobe.records import Provenance, TensorSpec

ROWS = 7
LAYERS = (
    TensorSpec("conv5_3", (4, 3, 8), "float32"),
    TensorSpec("backbone/conv1", (5,), "float16"),
    TensorSpec("count", (), "int64"),
    TensorSpec("mask", (3,), "bool"),
    TensorSpec("empty", (0, 2), "float32"),
    TensorSpec("brain", (6,), "bfloat16"),
    TensorSpec("bytes", (2,), "uint8"),
    TensorSpec("", (1,), "float64"),
)
PATHS = ["a.jpg", "bytes \udcff\udc80.jpg", "b\n\x1b[31m.png", "Ärger.jpg", "-x", "a.jpg", "e\u0301" * 60]
FAILURES = {2: "it ends early, after 20 bytes", 5: "größer als erlaubt"}
PROVENANCE = Provenance(
    model={"path": "vgg \udcff.h5", "sha256": "00" * 32, "keras_version": None},
    layers=[{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in LAYERS],
    inputs={"rows": ROWS, "failures": 2, "kind": "images"},
    preprocessing={"size": [224, 224], "mean": [103.939, 116.779, 123.68]},
    options={"dtype": "float32", "pool": "none"},
    engine={"name": "keras"},
    versions={"numpy": np.__version__},
    started="2026-11-22T23:59:59+00:00",
)


FIELDS = ["", '{"label": "cat", "n": [1, 2.5, null]}', "", "{}", '{"x": "\\ud800\\n"}', "", ""]


class Said:
    """What is said of the rows of an output; see `formats/row_texts.py:RowsSaid`.

    Args:
        paths: What they are called.
        known: Whether that is known before the first row.
    """

    def __init__(self, paths: Sequence[str], known: bool) -> None:
        self._paths = paths
        self.rows = len(paths) if known else None
        self.failures: Mapping[int, str] = {}
        self.fields: Sequence[str] = [""] * len(paths)

    def keys(self) -> Sequence[str]:
        """All of them."""
        return self._paths

    def texts(self, rows: range) -> RowTexts:
        """Of some of them."""
        reasons = {row - rows.start: self.failures[row] for row in rows if row in self.failures}
        place = slice(rows.start, rows.stop)
        return RowTexts(self._paths[place], reasons, self.fields[place])


class AsARunWrites:
    """A writer as `open_writer` gives it; blocks are handed to it when it is known which rows failed."""

    def __init__(
        self,
        path: str,
        layers: Sequence[TensorSpec],
        paths: Sequence[str],
        *,
        file_format: str,
        compress: str | None = None,
        known: bool = True,
    ) -> None:
        self._said = Said(paths, known)
        self._writer = open_writer(path, file_format, layers, self._said, compress=compress, batch_size=2)
        self._blocks: list[tuple[int, Mapping[str, Any]]] = []

    def write(self, start: int, activations: Mapping[str, Any]) -> None:
        """Keep a block."""
        self._blocks.append((start, activations))

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Hand over all blocks."""
        self._said.failures, self._said.fields = failures, fields or self._said.fields
        for start, activations in self._blocks:
            self._writer.write(start, activations)
        self._writer.commit(failures, provenance, fields)

    def abort(self) -> None:
        """Remove what was written."""
        self._writer.abort()


WAYS: dict[str, Any] = {
    **{name: registry.find(registry.WRITERS, name, "format") for name in registry.WRITERS},
    **{name: partial(AsARunWrites, file_format=name) for name in registry.STREAMS},
    **{
        f"{name} of a stream": partial(AsARunWrites, file_format=name, known=False)
        for name in [*registry.WRITERS, *registry.STREAMS]
    },
    **{
        f"{name} {compress}": partial(AsARunWrites, file_format=name, compress=compress)
        for name in registry.COMPRESSED
        for compress in registry.COMPRESSIONS
    },
    **{
        f"{name} gzip of a stream": partial(AsARunWrites, file_format=name, compress="gzip", known=False)
        for name in registry.COMPRESSED
    },
}
"""Every way in which an output comes about: what writes it is called with a path, layers and paths."""


def sample_values(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    """Random (rows, ...) arrays for `LAYERS`, in their dtypes; NaN and infinity among them."""
    random = np.random.default_rng(seed)
    values = {}
    for spec in LAYERS:
        dtype = ml_dtypes.bfloat16 if spec.dtype == "bfloat16" else np.dtype(spec.dtype)
        values[spec.name] = (random.standard_normal((rows, *spec.shape)) * 50).astype("int64").astype(dtype)
    values["conv5_3"][2:3] = np.nan
    values["conv5_3"][3:4, 0] = np.inf
    return values


def stored_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as an output holds them: bfloat16 as float32."""
    return {
        name: array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array
        for name, array in values.items()
    }


def fill(writer: Writer, values: Mapping[str, Any], block: int = 3) -> None:
    """Write all rows, `block` at a time."""
    for start in range(0, len(values["count"]), block):
        writer.write(start, {name: array[start : start + block] for name, array in values.items()})


def write_output(writer_class: Any, path: Path, seed: int = 0, block: int = 3) -> dict[str, Any]:
    """Write an output as a run does; returns the values that it shall hold."""
    values = sample_values(seed=seed)
    writer = writer_class(str(path), LAYERS, PATHS)
    try:
        fill(writer, values, block)
        writer.commit(FAILURES, PROVENANCE)
    finally:
        writer.abort()
    return stored_values(values)


def assert_holds(out: Path, values: Mapping[str, Any]) -> None:
    """Check that the output at `out` has these values, bit for bit."""
    with open_output(out) as reader:
        for name, expected in values.items():
            np.testing.assert_array_equal(reader[name], expected)
