"""Parquet: one table, for pandas, DuckDB, Polars, Spark and Hugging Face `datasets`.

Columns `path`, `status`, `error`, and `fields` where the list of inputs said more; and one for each layer: a
number, or a list of fixed size. What is no vector is stored flat, in C order, and its shape with the column.
A row that failed holds NaN, or 0, as in every format, and no null: `status` tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from layerprobe.errors import UnrecordableLayerError
from layerprobe.formats.joined import JoinedRows
from layerprobe.formats.legible import dump_exact, legible, with_exact
from layerprobe.formats.pending import PendingFile
from layerprobe.formats.placement import composed_name
from layerprobe.formats.reading import ArrayPlace, OutputReader, reporting_damage
from layerprobe.formats.remote import open_for_reading
from layerprobe.formats.rows import StoredLayer
from layerprobe.formats.schema import PARQUET_NAMES
from layerprobe.formats.waiting import WaitingRows
from layerprobe.stores.urls import is_url

if TYPE_CHECKING:
    from layerprobe.records import Array, Provenance

GROUP_BYTES, MOST_GROUP_BYTES = 1 << 19, 1 << 25
"""Of a row group, which is in memory as a whole; more where these are few rows, to a limit of values."""
FEW_ROWS, GROUP_ROWS = 1 << 10, 1 << 13
_PAGE_BYTES = 1 << 16
_TEXTS_AT_ONCE = 1 << 10
"""None is longer than 1 MiB, and offsets of texts are 32-bit numbers."""
RECORD, EXACT = b"layerprobe", b"layerprobe_texts"
"""Of the file's metadata: its JSON record, and the texts that are no Unicode."""
_COLUMNS = {"paths": "path", "status": "status", "error": "error", "fields": "fields"}
"""Of texts: what they are called everywhere, and here, where a row has one of each."""
_KINDS = {"b", "i", "u", "f"}


class ParquetWriter(WaitingRows):
    """Writes a Parquet file, at the end, from rows that wait beside it; see `protocols.Writer`."""

    rules = PARQUET_NAMES
    file_format = "parquet"

    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        self._types = {layer.stored: _type(layer) for layer in self._layers}
        return super()._lay_out(resume)

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write the table, name it, and remove the rows."""
        said, record = self._blocks.described(self._paths, provenance, failures, fields)
        columns = {"paths": self._paths, **said}
        file = PendingFile(self._file.path, "parquet", name=composed_name(self._file.path))
        with ExitStack() as on_error:
            on_error.callback(file.abort)
            self._write_table(file, columns, {RECORD: record, EXACT: dump_exact(columns)})
            file.commit()
        self.abort()

    def _write_table(
        self, file: PendingFile, columns: Mapping[str, Sequence[str]], metadata: Mapping[bytes, str]
    ) -> None:
        rows = _rows_per_group(sum(layer.row_bytes for layer in self._layers), _text_bytes(columns))
        texts = [pa.field(_COLUMNS[name], pa.string(), nullable=False) for name in columns]
        layers = [_field(layer, self._types[layer.stored]) for layer in self._layers]
        schema = pa.schema([*texts, *layers])
        with parquet.ParquetWriter(
            pa.PythonFile(_Sink(file), "w"),
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["status", "error"],
            write_statistics=False,
            write_page_checksum=True,
            data_page_size=_PAGE_BYTES,
        ) as table:
            for number, values in enumerate(self.groups(rows)):
                part = slice(number * rows, (number + 1) * rows)
                table.write_table(self._group(part, columns, values, schema), row_group_size=rows)
                del values  # before the next ones are read
                pa.default_memory_pool().release_unused()
            if not self._paths:
                table.write_table(schema.empty_table())
            table.add_key_value_metadata(metadata)

    def _group(
        self,
        part: slice,
        columns: Mapping[str, Sequence[str]],
        values: Mapping[str, Array],
        schema: pa.Schema,
    ) -> pa.Table:
        """Give the rows of a group as a table."""
        arrays = [_strings(given[part]) for given in columns.values()]
        arrays += [_column(values[name], kind) for name, kind in self._types.items()]
        return pa.Table.from_arrays(arrays, schema=schema)


def _rows_per_group(row_bytes: int, text_bytes: int) -> int:
    """Say how many rows a row group has, from what the values and the texts of one take."""
    wanted = max(GROUP_BYTES // max(1, row_bytes + text_bytes), FEW_ROWS)
    return max(1, min(wanted, MOST_GROUP_BYTES // max(1, row_bytes), GROUP_ROWS))


def _text_bytes(columns: Mapping[str, Sequence[str]]) -> int:
    """Say what the texts of a row take, by the first ones."""
    sizes = [
        sum(map(len, texts[:FEW_ROWS])) // max(1, min(FEW_ROWS, len(texts))) for texts in columns.values()
    ]
    return sum(sizes)


def _type(layer: StoredLayer) -> pa.DataType:
    """Find the type of a layer's column."""
    if layer.dtype.kind not in _KINDS or layer.dtype.itemsize > 8:
        raise UnrecordableLayerError(
            f"the values of layer {layer.layer!r} cannot be stored as Parquet, which has no "
            f"{layer.dtype.name}: give -o NAME.npz or NAME.h5. Received: {layer.given}."
        )
    value = pa.from_numpy_dtype(layer.dtype)
    if len(layer.shape) == 1:
        return value
    # A list of fixed size has at least one value.
    return pa.list_(pa.field("element", value, nullable=False), prod(layer.shape[1:]) or -1)


def _field(layer: StoredLayer, kind: pa.DataType) -> pa.Field:
    return pa.field(
        layer.stored,
        kind,
        nullable=False,
        metadata={"layer": json.dumps(layer.layer), "shape": json.dumps(layer.shape[1:])},
    )


def _strings(texts: Sequence[str]) -> pa.ChunkedArray:
    """Give texts as a column; not by `pa.array`, which imports pandas where there is one: 40 MiB."""
    parts = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        encoded = [text.encode() for text in legible(texts[start : start + _TEXTS_AT_ONCE])]
        ends = np.cumsum([0, *map(len, encoded)], dtype="i4")
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
        parts.append(pa.Array.from_buffers(pa.string(), len(encoded), buffers))
    return pa.chunked_array(parts, pa.string())


def _column(array: Array, kind: pa.DataType) -> pa.Array:
    """Give (n, ...) values as a column, without a copy but for booleans."""
    flat = array.reshape(-1)
    value = kind if array.ndim == 1 else kind.value_type
    if flat.dtype.kind == "b":
        packed = pa.py_buffer(np.packbits(flat, bitorder="little"))
        values = pa.Array.from_buffers(pa.bool_(), len(flat), [None, packed])
    else:
        values = pa.Array.from_buffers(value, len(flat), [None, pa.py_buffer(flat)])
    if array.ndim == 1:
        return values
    if not flat.size:
        return pa.ListArray.from_arrays(np.zeros(len(array) + 1, "i4"), values, type=kind)
    return pa.FixedSizeListArray.from_arrays(values, type=kind)


class _Sink:
    """A pending file as pyarrow writes to it."""

    closed = False

    def __init__(self, file: PendingFile) -> None:
        self._file, self._end = file, 0

    def write(self, data: Any) -> int:
        """Put bytes after those that came before. Raises WriteError."""
        view = memoryview(data)
        self._file.write(self._end, view)
        self._end += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Where the next byte goes."""
        return self._end

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The file stays open: it is named by `commit`."""


class ParquetReader(OutputReader):
    """Reads a Parquet file, row groups at a time; see `protocols.Reader`."""

    def __init__(self, path: str) -> None:
        with reporting_damage(path):
            place = open_for_reading(path) if is_url(path) else path
            self._table = parquet.ParquetFile(place, page_checksum_verification=True)
            metadata = self._table.metadata.metadata or {}
            self._exact = metadata[EXACT]
            super().__init__(path, metadata[RECORD])
            groups = range(self._table.metadata.num_row_groups)
            counts = [self._table.metadata.row_group(group).num_rows for group in groups]
            self._groups = _Groups(path, self._table, [sum(counts[:group]) for group in groups])
            self._locate(sum(counts))
            self.compression, self.stored_bytes = "zstd", self._stored_size()

    def _place(self, stored: str) -> ArrayPlace:
        field = self._table.schema_arrow.field(stored)
        shape = tuple(map(int, json.loads(field.metadata[b"shape"])))
        kind = field.type if not shape else field.type.value_type
        place = ArrayPlace(np.dtype(kind.to_pandas_dtype()), (self._table.metadata.num_rows, *shape), 0)
        size = prod(shape)
        if shape and size and field.type.list_size != size:
            raise ValueError(f"column {stored!r} has lists of {field.type.list_size} for {shape}")
        return place

    def _stored_size(self) -> int:
        metadata = self._table.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        layers = set(self._stored.values())
        return sum(
            column.total_compressed_size
            for column in columns
            if column.path_in_schema.split(".")[0] in layers
        )

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        return self._groups.rows_of(stored, place)  # type: ignore[return-value]  # read as it is sliced

    def _texts(self, column: str) -> list[str]:
        name = _COLUMNS[column]
        if name not in self._table.schema_arrow.names:
            raise KeyError(column)
        texts = self._table.read([name]).column(name).to_pylist()
        return with_exact(texts, column, self._exact)

    def faults(self) -> Iterator[str]:
        """Compare the columns with what the record says, and look for nulls and others' columns."""
        with reporting_damage(self.path):
            schema = self._table.schema_arrow
            ours = {
                **dict.fromkeys(_COLUMNS.values()),
                **{name: layer for layer, name in self._stored.items()},
            }
            for field in schema:
                if field.name not in ours:
                    yield f"column {field.name!r} is not the output's"
                elif field.nullable:
                    yield f"column {field.name!r} may hold nulls"
                elif ours[field.name] not in (None, json.loads((field.metadata or {}).get(b"layer", b"0"))):
                    yield f"the layer that column {field.name!r} names is not what was written"

    def close(self) -> None:
        """Release the file; arrays taken from the reader keep it open."""
        super().close()
        for name in ("_table", "_groups"):
            vars(self).pop(name, None)


class _Groups:
    """The row groups of a table, of which the one that was used last is in memory.

    Args:
        path: Of the file, for messages.
        table: The file.
        starts: First row of each group.
    """

    def __init__(self, path: str, table: parquet.ParquetFile, starts: Sequence[int]) -> None:
        self._path, self._table, self._starts = path, table, starts
        self._held: tuple[int, dict[str, Array]] = (-1, {})

    def rows_of(self, stored: str, place: ArrayPlace) -> JoinedRows:
        """Give a layer, read as it is sliced."""
        return JoinedRows(
            place.shape, place.dtype, self._starts, lambda group: self._read(group, stored, place)
        )

    def _read(self, group: int, stored: str, place: ArrayPlace) -> Array:
        if self._held[0] != group:
            self._held = group, {}
        held = self._held[1]
        if stored not in held:
            with reporting_damage(self._path):
                rows = self._table.metadata.row_group(group).num_rows
                column = self._table.read_row_group(group, [stored]).column(stored).combine_chunks()
                values = column if len(place.shape) == 1 else column.flatten()
                if column.null_count or values.null_count:
                    raise ValueError(f"column {stored!r} holds nulls")
                array = values.to_numpy(zero_copy_only=False).astype(place.dtype, copy=False)
                held[stored] = array.reshape(rows, *place.shape[1:])
                held[stored].flags.writeable = False
        return held[stored]
