"""Inputs that are kept until their maps are there, to be drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.records import Array, Sample


class KeptInputs:
    """A source that keeps what was read of each row until it is taken; see `protocols.Source`.

    So a picture is read once, be it from a stream, and drawn on when its maps are there.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.kind = source.kind
        self.row_shape: Any = getattr(source, "row_shape", None)
        self._kept: dict[int, bytes | Array] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._source:
            yield replace(sample, read=self._reading(sample))

    def _reading(self, sample: Sample) -> Any:
        def read() -> bytes | Array:
            self._kept[sample.index] = data = sample.read()
            return data

        return read

    def take(self, row: int) -> bytes | Array | None:
        """What was read of a row; None where it could not be."""
        return self._kept.pop(row, None)
