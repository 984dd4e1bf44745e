"""What zarr-python makes of an output: the bytes of shards, and the files of a group around them.

All of it comes into being in memory. It is put on disk as every output is, so that a failure of the disk is
told in the same words, and the order of things on disk is ours.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore

from layerprobe.formats.legible import legible
from layerprobe.formats.reading import reporting_damage
from layerprobe.formats.schema import dump_record, text_checksums

if TYPE_CHECKING:
    from layerprobe.formats.rows import StoredLayer
    from layerprobe.records import Array, Provenance, TensorSpec

SHARD_BYTES, MOST_SHARD_BYTES = 1 << 21, 1 << 25
"""Of the rows of a shard, which is compressed at once, all layers together; more where these are few rows."""
CHUNK_BYTES = 1 << 20
"""Of a chunk, which is what has to be read for one row; or one row."""
FEW_ROWS, MOST_ROWS = 1 << 10, 1 << 14
RECORD, EXACT = "layerprobe", "layerprobe_texts"
"""Attributes of the group: its JSON record, and the texts that are no Unicode."""
_TEXTS_AT_ONCE = 1 << 12
_AXES = {1: ("channel",), 2: ("step", "channel"), 3: ("y", "x", "channel"), 4: ("z", "y", "x", "channel")}
_KEYS: Any = {"name": "default", "separator": "."}
"""Shards stand in the folder of their array: "c.0.0.0.0"."""


def rows_per_shard(layers: Sequence[StoredLayer]) -> int:
    """Say how many rows a shard has: a power of two, so that chunks fit into it."""
    row = sum(layer.row_bytes for layer in layers)
    rows = max(layer.shape[0] for layer in layers) if layers else 1
    wanted = max(SHARD_BYTES // max(1, row), FEW_ROWS)
    most = min(MOST_SHARD_BYTES // max(1, row), MOST_ROWS)
    return min(_power(max(1, min(wanted, most))), 1 << max(0, rows - 1).bit_length())


def rows_per_chunk(layer: StoredLayer, shard: int) -> int:
    """Say how many rows a chunk has: a power of two, at most the shard."""
    return min(shard, _power(max(1, CHUNK_BYTES // max(1, layer.row_bytes))))


def _power(number: int) -> int:
    """The largest power of two that is no larger."""
    return 1 << number.bit_length() - 1


def shard_file(layer: StoredLayer, shard: int) -> str:
    """Say which file of the group a shard is."""
    return f"{layer.stored}/c.{'.'.join(map(str, (shard, *(0 for _ in layer.shape[1:]))))}"


def create_layer(
    group: zarr.Group, layer: StoredLayer, rows: int, shard: int, dimensions: Sequence[str]
) -> zarr.Array[Any]:
    """Make a layer's array, of so many rows; zarr writes no more than its metadata."""
    # An axis of length 0 has chunks all the same.
    sizes = tuple(max(1, size) for size in layer.shape[1:])
    return group.create_array(
        layer.stored,
        shape=(rows, *layer.shape[1:]),
        dtype=layer.dtype,
        chunks=(rows_per_chunk(layer, shard), *sizes),
        shards=(shard, *sizes),
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=layer.dtype.type(np.nan if layer.dtype.kind in "fc" else 0),
        chunk_key_encoding=_KEYS,
        dimension_names=dimensions,
        attributes={"layer": json.dumps(layer.layer)},
        config={"write_empty_chunks": True},
    )


class ShardCodec:
    """Turns rows into the bytes of a shard, and back.

    Args:
        layer: With rows of at least one byte.
        rows: Of a whole shard; the last one may have fewer.
    """

    def __init__(self, layer: StoredLayer, rows: int) -> None:
        self._layer, self._files = layer, dict[str, Any]()
        group = zarr.create_group(MemoryStore(self._files))
        self._array = create_layer(group, layer, rows, rows, ["row", *map(str, range(len(layer.shape) - 1))])
        self._key = shard_file(layer, 0)

    def encoded(self, values: Array) -> bytes:
        """Give the shard of (n, ...) values."""
        self._array[: len(values)] = values
        return bytes(self._files.pop(self._key).to_bytes())

    def decoded(self, data: bytes, rows: int, path: str) -> Array:
        """Give (rows, ...) values back. Raises OutputFormatError."""
        self._files[self._key] = cpu.Buffer.from_bytes(data)
        try:
            with reporting_damage(path):
                return np.ascontiguousarray(self._array[:rows])
        finally:
            self._files.pop(self._key)


def dimension_names(specs: Sequence[TensorSpec]) -> list[list[str]]:
    """Name the axes of each layer: row, y, x, channel; with the size where layers differ in it.

    xarray takes axes of one name for the same one, of one length.
    """
    named = [_axes(spec) for spec in specs]
    lengths = {
        (axis, size)
        for spec, axes in zip(specs, named, strict=True)
        for axis, size in zip(axes, spec.shape, strict=True)
    }
    different = Counter(axis for axis, _ in lengths)
    return [
        [
            "row",
            *(
                f"{axis}_{size}" if different[axis] > 1 else axis
                for axis, size in zip(axes, spec.shape, strict=True)
            ),
        ]
        for spec, axes in zip(specs, named, strict=True)
    ]


def _axes(spec: TensorSpec) -> tuple[str, ...]:
    axes = _AXES.get(len(spec.shape), tuple(f"axis{place}" for place in range(len(spec.shape))))
    channels_first = len(axes) > 1 and axes[-1] == "channel" and spec.channel_axis == 0
    return (axes[-1], *axes[:-1]) if channels_first else axes


class GroupFiles:
    """The files of a group, but for its layers' shards: name -> bytes.

    Args:
        layers: What is stored.
        specs: Of the same layers.
        shard: Rows of a shard.
    """

    def __init__(self, layers: Sequence[StoredLayer], specs: Sequence[TensorSpec], shard: int) -> None:
        self._files: dict[str, Any] = {}
        self._layers = layers
        self._store = MemoryStore(self._files)
        self._group = zarr.create_group(self._store)
        for layer, dimensions in zip(layers, dimension_names(specs), strict=True):
            create_layer(self._group, layer, layer.shape[0], shard, dimensions)

    def add_texts(self, columns: Mapping[str, Sequence[str]]) -> None:
        """Add an array for each column of texts."""
        for name, texts in columns.items():
            array = self._group.create_array(
                name,
                shape=(len(texts),),
                dtype="string",
                chunks=(min(max(1, len(texts)), _TEXTS_AT_ONCE),),
                compressors=ZstdCodec(level=1, checksum=True),
                chunk_key_encoding=_KEYS,
                dimension_names=["row"],
                config={"write_empty_chunks": True},
            )
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                part = legible(texts[start : start + _TEXTS_AT_ONCE])
                array[start : start + len(part)] = np.array(part, object)

    def finish(
        self,
        provenance: Provenance,
        checksums: Mapping[str, Any],
        columns: Mapping[str, Sequence[str]],
        exact: str,
    ) -> None:
        """Add what the group says of itself: xarray's coordinates, the record, all metadata in one place."""
        files = {name: zlib.crc32(data) for name, data in self if name != "zarr.json"}
        record = dump_record(
            {layer.layer: layer.stored for layer in self._layers},
            provenance,
            {**checksums, "texts": text_checksums(columns), "files": files},
        )
        self._group.update_attributes({"coordinates": " ".join(columns), RECORD: record, EXACT: exact})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that not all programs know of metadata in one place
            zarr.consolidate_metadata(self._store)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return ((name, bytes(data.to_bytes())) for name, data in sorted(self._files.items()))
