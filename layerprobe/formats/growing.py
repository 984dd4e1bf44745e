"""Rows that come one after the other, for pipes whose format says first how many: the end tells.

In files they wait in a spool, see `spooled.py`, from which a run that was killed is resumed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from layerprobe.formats.disk import reported

if TYPE_CHECKING:
    from layerprobe.formats.row_texts import RowTexts
    from layerprobe.protocols import RowStream, Writer
    from layerprobe.records import Array, Provenance


class RowsInPlace:
    """Hands rows to a writer, the first ones first; see `protocols.RowStream`.

    Args:
        writer: That knows how many come.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._rows = 0
        self._reasons: dict[int, str] = {}
        self._fields: list[str] = []

    def append(self, texts: RowTexts, activations: Mapping[str, Array]) -> None:
        """Write rows after those that came before."""
        self._writer.write(self._rows, activations)
        self._reasons.update({self._rows + place: reason for place, reason in texts.reasons.items()})
        self._fields += texts.fields
        self._rows += len(texts.keys)

    def commit(self, provenance: Provenance) -> None:
        """Name the output."""
        self._writer.commit(self._reasons, provenance, self._fields if any(self._fields) else None)

    def abort(self) -> None:
        """Remove what was written."""
        self._writer.abort()


class GrowingRows:
    """Keeps rows in a nameless file until their number is known; see `protocols.RowStream`.

    The file is gone when the process is, whatever ends it.

    Args:
        path: What the user calls the output, for messages.
        make: Given what the rows are called, makes the stream that they go to.

    Raises:
        WriteError: No file can be made there.
    """

    def __init__(self, path: str, make: Callable[[Sequence[str]], RowStream]) -> None:
        self._path, self._make = path, make
        with reported(path):
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._texts: list[RowTexts] = []
        """What is said of the rows of each block."""
        self._layers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        """Shape of one row and dtype."""

    def append(self, texts: RowTexts, activations: Mapping[str, Array]) -> None:
        """Put rows after those that came before."""
        self._layers = {layer: (array.shape[1:], array.dtype) for layer, array in activations.items()}
        with reported(self._path):
            for array in activations.values():
                self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._texts.append(texts)

    def commit(self, provenance: Provenance) -> None:
        """Write everything to its place, and name the output."""
        with ExitStack() as done, reported(self._path):
            self._file.seek(0)
            stream = self._make([key for texts in self._texts for key in texts.keys])
            done.callback(stream.abort)
            for texts in self._texts:
                rows = len(texts.keys)
                stream.append(
                    texts,
                    {
                        layer: self._read((rows, *shape), dtype)
                        for layer, (shape, dtype) in self._layers.items()
                    },
                )
            stream.commit(provenance)
        self.abort()

    def _read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Read the next block of a layer."""
        return (
            np.frombuffer(self._file.read(prod(shape) * dtype.itemsize), np.uint8).view(dtype).reshape(shape)
        )

    def abort(self) -> None:
        """Remove the file."""
        self._file.close()
