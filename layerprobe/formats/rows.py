"""Rows have places: how large each layer's array will be, and the bytes of the blocks that fill it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.formats.schema import NameRules, stored_dtype, stored_names

if TYPE_CHECKING:
    from layerprobe.records import Array, TensorSpec


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """One layer's array in an output."""

    layer: str
    stored: str
    """The name it has there."""
    dtype: np.dtype[Any]
    given: str
    """Name of the dtype in which its values come."""
    shape: tuple[int, ...]
    """(N, ...)"""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes


def stored_layers(specs: Sequence[TensorSpec], rows: int, rules: NameRules) -> list[StoredLayer]:
    """Say what the arrays of an output will be.

    Args:
        specs: Names, row shapes with every size known, and dtypes of the layers.
        rows: N.
        rules: Of the format, for the names.

    Raises:
        UnrecordableLayerError: A layer's values are no numbers.
    """
    names = stored_names([spec.name for spec in specs], rules)
    if len(names) != len(specs):
        raise ValueError(f"layers are given twice: {[spec.name for spec in specs]}")
    layers = []
    for spec in specs:
        sizes = [size for size in spec.shape if size is not None]
        if len(sizes) != len(spec.shape):
            raise ValueError(f"the row shape of layer {spec.name!r} is not known: {spec.shape}")
        dtype = stored_dtype(spec.dtype, spec.name)
        layers.append(StoredLayer(spec.name, names[spec.name], dtype, spec.dtype, (rows, *sizes)))
    return layers


class RowBlocks:
    """Turns blocks of rows into bytes, and sees to it that each row comes once and in order."""

    def __init__(self, layers: Sequence[StoredLayer], rows: int) -> None:
        self.layers = layers
        self.rows = rows
        self.done = 0

    def take(
        self, start: int, activations: Mapping[str, Array]
    ) -> Iterator[tuple[StoredLayer, int, memoryview]]:
        """Check one block and give, for each layer, the place of its bytes in the layer's array, and them.

        Args:
            start: Row of the block's first; the one after the last block's last.
            activations: (n, ...) arrays by layer name, in the layer's dtype, or in the stored one.

        Raises:
            ValueError: The block is not what was announced.
        """
        arrays = [_checked(layer, activations[layer.layer]) for layer in self.layers]
        counts = {len(array) for array in arrays}
        if start != self.done or len(counts) > 1 or start + max(counts, default=0) > self.rows:
            raise ValueError(f"{sorted(counts)} rows came for {start}; next is {self.done} of {self.rows}")
        self.done += max(counts, default=0)
        for layer, array in zip(self.layers, arrays, strict=True):
            yield layer, start * layer.row_bytes, array.reshape(-1).view(np.uint8).data

    def finish(self) -> None:
        """Check that every row came. Raises ValueError."""
        if self.layers and self.done != self.rows:
            raise ValueError(f"only {self.done} of {self.rows} rows were written")


def _checked(layer: StoredLayer, array: Array) -> Array:
    """Give a block's array as it will be stored."""
    if array.shape[1:] != layer.shape[1:] or not array.ndim:
        raise ValueError(f"{layer.layer!r}: rows of {layer.shape[1:]} were announced, {array.shape[1:]} came")
    if array.dtype.name not in (layer.dtype.name, layer.given):
        raise ValueError(f"{layer.layer!r}: {layer.given} was announced, {array.dtype.name} came")
    return array.astype(layer.dtype, copy=False)
