"""Whole files, and `.npy`, for what reads a pipe, where nothing can be written before what came already."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from layerprobe import registry
from layerprobe.errors import UsageError
from layerprobe.formats.disk import reported
from layerprobe.formats.growing import RowsInPlace
from layerprobe.formats.npydata import npy_header
from layerprobe.formats.rows import checked, stored_layers
from layerprobe.formats.schema import FOLDER_NAMES

if TYPE_CHECKING:
    from layerprobe.formats.row_texts import RowTexts
    from layerprobe.formats.sinks import Sink
    from layerprobe.records import Array, Provenance, TensorSpec

_BLOCK = 1 << 20
STANDARD_OUTPUT = "standard output"
"""What an output is called that has no name."""


class FilePipe(RowsInPlace):
    """Writes a file under a name of its own, and passes it on when it is complete.

    Args:
        sink: What takes the file.
        layers: As for a writer.
        keys: What the N rows are called.
    """

    file_format: ClassVar[str]
    """A name in `registry.WRITERS`."""

    def __init__(self, sink: Sink, layers: Sequence[TensorSpec], keys: Sequence[str]) -> None:
        self._sink = sink
        with reported(STANDARD_OUTPUT):
            self._folder = tempfile.TemporaryDirectory(prefix="layerprobe-", ignore_cleanup_errors=True)
        self._path = os.path.join(self._folder.name, "out")
        super().__init__(
            registry.find(registry.WRITERS, self.file_format, "format")(self._path, layers, keys)
        )

    def commit(self, provenance: Provenance) -> None:
        """Pass the file on."""
        super().commit(provenance)
        with open(self._path, "rb") as file:
            while data := file.read(_BLOCK):
                self._sink.write(data)
        self._sink.commit()

    def abort(self) -> None:
        """Remove the file."""
        super().abort()
        self._folder.cleanup()


class NpzPipe(FilePipe):
    """Passes on an `.npz` file."""

    file_format = "npz"


class ParquetPipe(FilePipe):
    """Passes on a Parquet file."""

    file_format = "parquet"


class SafetensorsPipe(FilePipe):
    """Passes on a safetensors file."""

    file_format = "safetensors"


class NpyPipe:
    """Passes on the rows of one layer as `.npy` data, which holds nothing else; see `protocols.RowStream`.

    Args:
        sink: What takes the data.
        layers: The one layer.
        keys: What the N rows are called.

    Raises:
        UsageError: There are several layers.
    """

    def __init__(self, sink: Sink, layers: Sequence[TensorSpec], keys: Sequence[str]) -> None:
        self._sink = sink
        if len(layers) != 1:
            named = ", ".join(spec.name for spec in layers[:3])
            raise UsageError(f"npy holds one layer: name one, or give --format npz. Received: {named}")
        (self._layer,) = stored_layers(layers, len(keys), FOLDER_NAMES)
        self._header = npy_header(self._layer.dtype, self._layer.shape)

    def append(self, texts: RowTexts, activations: Mapping[str, Array]) -> None:
        """Pass rows on, after the header."""
        self._sink.write(self._header + checked(self._layer, activations[self._layer.layer]).tobytes())
        self._header = b""

    def commit(self, provenance: Provenance) -> None:
        """All was passed on already; there is no place for the provenance."""
        self._sink.commit()

    def abort(self) -> None:
        """Nothing can be taken back."""
        self._sink.abort()
