"""Rows have places: how large each layer's array will be, and the bytes of the blocks that fill it."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from zlib_ng import zlib_ng

from layerprobe.columns import Packed
from layerprobe.errors import ResumeError
from layerprobe.formats.schema import (
    NameRules,
    dump_record,
    stored_dtype,
    stored_names,
    text_checksums,
    text_columns,
)
from layerprobe.records import WrittenBlock

if TYPE_CHECKING:
    from layerprobe.formats.row_texts import RowTexts
    from layerprobe.records import Array, Provenance, TensorSpec


CHECKED_PARTS = 1000
"""Of so many parts an output keeps checksums: enough to say where it is damaged, few enough to be read."""


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


def check_layout(path: str, layout: Mapping[str, int], earlier: Mapping[str, int] | None) -> None:
    """Check that rows go where an earlier writer of the same output put them; None: there was none.

    Raises:
        ResumeError: They do not.
    """
    if earlier is not None and layout != earlier:
        raise laid_out_differently(path)


def laid_out_differently(path: str) -> ResumeError:
    """Say that rows of an unfinished output would go where an earlier writer put something else."""
    return ResumeError(
        f"the unfinished {path!r} was laid out differently, by another version of layerprobe or HDF5: "
        "resume it with that, or give --restart to begin again."
    )


def check_size(path: str, size: int, wanted: int) -> None:
    """Check that an unfinished file is as long as an earlier writer made it. Raises ResumeError."""
    if size < wanted:
        raise ResumeError(
            f"the unfinished {path!r} is damaged, {wanted - size} bytes of it are gone: "
            "give --restart to begin again."
        )


class RowBlocks:
    """Which rows are there, with their checksums; sees to it that each comes once.

    Args:
        layers: Of the output.
        rows: N; None where that is seen at the end only.
        each: Whether each block stays one, as where it has a place. Else those from row 0 on without gaps are
            folded into the parts of which an output keeps checksums, so that memory does not grow with them.
    """

    def __init__(self, layers: Sequence[StoredLayer], rows: int | None, *, each: bool = False) -> None:
        self.layers = layers
        self.rows = sys.maxsize if rows is None else rows
        """N; where that is seen at the end only, no less."""
        self._each = each
        # Numbers, for there may be a million blocks; all in the order of rows.
        self._starts, self._stops, self._places = array("q"), array("q"), array("q")
        self._checksums = {layer.layer: array("L") for layer in layers}
        self._parts = 0
        """So many of the first blocks are parts."""

    def write(
        self,
        start: int,
        activations: Mapping[str, Array],
        put: Callable[[StoredLayer, int, memoryview], None],
    ) -> WrittenBlock:
        """Check one block and put each layer's bytes at their place.

        Args:
            start: Row of the block's first.
            activations: (n, ...) arrays by layer name, in the layer's dtype, or in the stored one.
            put: Called with a layer, the place of the bytes in the layer's array, and the bytes.

        Raises:
            ValueError: The block is not what was announced, or some of its rows came before.
        """
        arrays = self.checked(start, activations)
        checksums = {}
        for layer in self.layers:
            data = arrays[layer.layer].reshape(-1).view(np.uint8).data
            put(layer, start * layer.row_bytes, data)
            checksums[layer.layer] = zlib_ng.crc32(data)  # four times as fast as zlib
        block = WrittenBlock(start, start + _rows_of(arrays), checksums)
        self.adopt(block)
        return block

    def checked(self, start: int, activations: Mapping[str, Array]) -> dict[str, Array]:
        """Give the arrays of one block, by layer, as they will be stored; raises ValueError, as `write`."""
        arrays = {layer.layer: checked(layer, activations[layer.layer]) for layer in self.layers}
        counts = {len(array) for array in arrays.values()}
        if len(counts) > 1:
            raise ValueError(f"as many rows of every layer were announced, {sorted(counts)} came")
        self._check_free(start, start + _rows_of(arrays))
        return arrays

    def adopt(self, block: WrittenBlock) -> None:
        """Take rows as written, by whomever. Raises ValueError."""
        place = self._check_free(block.start, block.stop)
        self._starts.insert(place, block.start)
        self._stops.insert(place, block.stop)
        self._places.insert(place, block.place)
        for layer, checksums in self._checksums.items():
            checksums.insert(place, block.checksums[layer])
        if not self._each:
            self._fold()

    def _fold(self) -> None:
        """Make parts of the blocks that follow without a gap."""
        least = least_part(self.rows)
        while self._parts < len(self._starts):
            end = self._stops[self._parts - 1] if self._parts else 0
            if self._starts[self._parts] != end:
                return
            if not self._parts or end - self._starts[self._parts - 1] >= least:
                self._parts += 1
            else:
                self._join(self._parts - 1)

    def _join(self, first: int) -> None:
        """Make one block of two."""
        rows = self._stops[first + 1] - self._starts[first + 1]
        for layer in self.layers:
            checksums = self._checksums[layer.layer]
            second = checksums.pop(first + 1)
            checksums[first] = combined(checksums[first], second, rows * layer.row_bytes)
        self._stops[first] = self._stops.pop(first + 1)
        del self._starts[first + 1], self._places[first + 1]

    def _check_free(self, start: int, stop: int) -> int:
        """Where among the blocks these rows come. Raises ValueError."""
        place = bisect_left(self._starts, start)
        before = self._stops[place - 1] if place else 0
        after = self._starts[place] if place < len(self._starts) else self.rows
        if not before <= start <= stop <= after:
            raise ValueError(f"rows {start} to {stop} came, rows {before} to {after} were announced")
        return place

    def checksums(self) -> dict[str, Any]:
        """Give the CRC-32 of at most about `CHECKED_PARTS` parts of the output.

        Returns:
            "rows": the first row of each part; "crc32": by layer, one number for each part.
        """
        parts = RowBlocks(self.layers, self.rows)
        for block in self.finish():
            parts.adopt(block)
        found = list(parts)
        crc32 = {layer.layer: [part.checksums[layer.layer] for part in found] for layer in self.layers}
        return {"rows": [part.start for part in found], "crc32": crc32}

    def described(
        self,
        paths: Sequence[str],
        provenance: Provenance,
        failures: Mapping[int, str],
        fields: Sequence[str] | None,
    ) -> tuple[dict[str, Sequence[str]], str]:
        """Give what an output holds beside the values, all rows being there; see `Writer.commit`.

        Args:
            paths: What the N rows are called.
            provenance: Of the output.
            failures: Row -> reason.
            fields: What was said of each row; None: nothing of any.

        Returns:
            The columns status, error and, where there are any, fields, and the JSON text of the record.

        Raises:
            ValueError: Rows are missing.
        """
        columns = text_columns(self.rows, failures, fields)
        checksums = {**self.checksums(), "texts": text_checksums({"paths": paths, **columns})}
        names = {layer.layer: layer.stored for layer in self.layers}
        return columns, dump_record(names, provenance, checksums)

    def finish(self) -> Iterator[WrittenBlock]:
        """Give all blocks, in the order of their rows. Raises ValueError when rows are missing."""
        done = sum(self._stops) - sum(self._starts)
        if self.layers and done != self.rows:
            raise ValueError(f"only {done} of {self.rows} rows were written")
        return iter(self)

    def __len__(self) -> int:
        """How many blocks, or parts of them."""
        return len(self._starts)

    def __iter__(self) -> Iterator[WrittenBlock]:
        """All blocks, in the order of their rows."""
        for number, (start, stop) in enumerate(zip(self._starts, self._stops, strict=True)):
            checksums = {layer: found[number] for layer, found in self._checksums.items()}
            yield WrittenBlock(start, stop, checksums, self._places[number])


class StreamedBlocks:
    """The checksums of rows that come one after the other, with their texts."""

    def __init__(self, layers: Sequence[StoredLayer]) -> None:
        self._blocks = RowBlocks(layers, None, each=True)
        names = ("paths", "status", "error", "fields")
        self._columns: dict[str, Packed[str]] = {name: Packed() for name in names}

    def add(self, texts: RowTexts, activations: Mapping[str, Array]) -> tuple[WrittenBlock, dict[str, Array]]:
        """Take the next rows; gives their arrays as they will be stored. Raises ValueError."""
        start = len(self._columns["paths"])
        arrays = self._blocks.checked(start, activations)
        block = WrittenBlock(start, start + len(texts.keys), checksums_of(arrays))
        self.adopt(texts, block)
        return block, arrays

    def adopt(self, texts: RowTexts, block: WrittenBlock) -> None:
        """Take the next rows as written, for an earlier run wrote them."""
        self._blocks.adopt(block)
        columns = text_columns(len(texts.keys), texts.reasons, texts.fields)
        for name, column in ({"paths": texts.keys} | columns).items():
            self._columns[name] += column

    def checksums(self) -> dict[str, Any]:
        """As `dump_record` takes them."""
        self._blocks.rows = len(self._columns["paths"])
        columns = dict(self._columns)
        if not any(columns["fields"]):
            del columns["fields"]
        return {**self._blocks.checksums(), "texts": text_checksums(columns)}


def least_part(rows: int) -> int:
    """How many rows a part with a checksum has at least; so many that whole blocks make it up."""
    return -(-rows // CHECKED_PARTS)


def checksums_of(activations: Mapping[str, Array]) -> dict[str, int]:
    """Give the CRC-32 of each array's bytes, in C order."""
    data = {
        name: np.ascontiguousarray(array).reshape(-1).view(np.uint8) for name, array in activations.items()
    }
    return {name: zlib_ng.crc32(array.data) for name, array in data.items()}


def combined(first: int, second: int, size: int) -> int:
    """Give the CRC-32 of two parts together from those of each, and the size of the second in bytes."""
    return zlib_ng.crc32_combine(first, second, size)


def _rows_of(arrays: Mapping[str, Array]) -> int:
    return max(map(len, arrays.values()), default=0)


def checked(layer: StoredLayer, array: Array) -> Array:
    """Give a block's (n, ...) array as it will be stored. Raises ValueError when it is another one."""
    if array.shape[1:] != layer.shape[1:] or not array.ndim:
        raise ValueError(f"{layer.layer!r}: rows of {layer.shape[1:]} were announced, {array.shape[1:]} came")
    if array.dtype.name not in (layer.dtype.name, layer.given):
        raise ValueError(f"{layer.layer!r}: {layer.given} was announced, {array.dtype.name} came")
    return array.astype(layer.dtype, copy=False)
