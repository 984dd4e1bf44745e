"""JSON lines: one object a row, for `jq` and every other program that reads JSON.

    {"path": "a.jpg", "status": "ok", "error": "", "fields": {...}, "layers": {"dense": [0.25, null]}}

`fields` is there where the list of inputs said something. NaN is `null`, infinity `1e999`, which readers take
for infinity or their largest number; a complex number is a pair. Values are exact: all digits that make a
float32 what it is. A file ends with one more line, its record: the number of rows, dtypes and provenance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import OutputFormatError
from layerprobe.formats.reading import ArrayPlace, OutputReader, reporting_damage
from layerprobe.formats.remote import open_for_reading
from layerprobe.formats.rows import StreamedBlocks, stored_layers
from layerprobe.formats.schema import NPZ_NAMES, dump_record

if TYPE_CHECKING:
    from layerprobe.formats.row_texts import RowTexts
    from layerprobe.formats.sinks import Sink
    from layerprobe.records import Array, Provenance, TensorSpec, WrittenBlock

_RECORD = "layerprobe"
_BLOCK = 1 << 16


class JsonlStream:
    """Writes JSON lines; see `protocols.FileStream`."""

    def __init__(self, sink: Sink, layers: Sequence[TensorSpec]) -> None:
        self._sink = sink
        # A JSON text holds any name as it is: what the rules make of it is not used.
        self._layers = stored_layers(layers, 0, NPZ_NAMES)
        self._blocks = StreamedBlocks(self._layers)
        self._rows = 0

    def append(self, texts: RowTexts, activations: Mapping[str, Array]) -> WrittenBlock:
        """Write one line a row."""
        block, arrays = self._blocks.add(
            texts, {name: _one_nan(array) for name, array in activations.items()}
        )
        columns = {json.dumps(name): array for name, array in arrays.items()}
        lines = []
        for place, start in enumerate(row_objects(texts)):
            values = ", ".join(f"{name}: {_values(column[place])}" for name, column in columns.items())
            lines.append(f'{start[:-1]}, "layers": {{{values}}}}}\n')
        self._sink.write("".join(lines).encode())
        self._rows += len(lines)
        return block

    def adopt(self, texts: RowTexts, block: WrittenBlock) -> None:
        """Take the next rows as written."""
        self._blocks.adopt(texts, block)
        self._rows = block.stop

    def commit(self, provenance: Provenance) -> None:
        """Write the record, in a file, and name it."""
        if self._sink.keeps:
            dtypes = {layer.layer: [layer.dtype.str, layer.shape[1:]] for layer in self._layers}
            names = {layer.layer: layer.layer for layer in self._layers}
            record = dump_record(names, provenance, self._blocks.checksums())
            last = {_RECORD: self._rows, "dtypes": dtypes}
            self._sink.write(f'{json.dumps(last)[:-1]}, "provenance": {record}}}\n'.encode())
        self._sink.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._sink.abort()


def row_objects(texts: RowTexts) -> Iterator[str]:
    """Write what is said of each row as the JSON text of an object."""
    for place, (key, fields) in enumerate(zip(texts.keys, texts.fields, strict=True)):
        error = texts.reasons.get(place)
        said = {"path": key, "status": "ok" if error is None else "failed", "error": error or ""}
        text = json.dumps(said)
        yield f'{text[:-1]}, "fields": {fields}}}' if fields else text


def _one_nan(array: Array) -> Array:
    """The same values with one kind of NaN, for `null` has no sign."""
    if array.dtype.kind != "f" or not np.isnan(array).any():
        return array
    return np.where(np.isnan(array), array.dtype.type(np.nan), array)


def _values(row: Array) -> str:
    """One row of one layer as nested lists."""
    if row.dtype.kind == "c":
        row = np.stack([row.real, row.imag], -1)
    # There are no texts within, and no other letters but those of these words, true and false.
    return json.dumps(row.tolist()).replace("NaN", "null").replace("Infinity", "1e999")


class JsonlReader(OutputReader):
    """Reads JSON lines; see `protocols.Reader`. A layer is in memory as a whole when it is asked for."""

    def __init__(self, path: str) -> None:
        with ExitStack() as on_error, reporting_damage(path):
            self._file = on_error.enter_context(open_for_reading(path))
            self._last: tuple[str, Array] | None = None
            self._end = self._last_line()
            self._file.seek(self._end)
            last = json.loads(self._file.read())
            if _RECORD not in last:
                raise OutputFormatError(
                    f"{path!r} holds rows without their record, as `-o -` writes them: write it with "
                    "`-o NAME.jsonl` to open it."
                )
            self._rows = int(last[_RECORD])
            self._dtypes = {
                name: (np.dtype(text), tuple(shape)) for name, (text, shape) in last["dtypes"].items()
            }
            super().__init__(path, json.dumps(last["provenance"]))
            self._locate(self._rows)
            on_error.pop_all()

    def _last_line(self) -> int:
        """Where the last line begins."""
        end = self._file.seek(0, os.SEEK_END) - 1
        self._file.seek(end)
        if self._file.read() != b"\n":
            raise ValueError("it ends within a line")
        while end > 0:
            start = max(0, end - _BLOCK)
            self._file.seek(start)
            found = self._file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Each row; one is in memory at a time, for as Python's numbers it takes many times its bytes."""
        self._file.seek(0)
        place = rows = 0
        while place < self._end and rows <= self._rows:
            line = self._file.readline()
            place, rows = place + len(line), rows + 1
            if rows <= self._rows:
                yield json.loads(line)
        if rows != self._rows:
            raise ValueError(f"not {self._rows} rows are there")

    @cached_property
    def _said(self) -> list[dict[str, Any]]:
        """What is said of each row beside its values; found once, for that takes as long as to read all."""
        return [{name: told for name, told in line.items() if name != "layers"} for line in self._lines()]

    def _place(self, stored: str) -> ArrayPlace:
        dtype, shape = self._dtypes[stored]
        return ArrayPlace(dtype, (self._rows, *shape), 0)

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        # The layer that was asked for last is kept: to read it again takes as long as to read all of them.
        if self._last is None or self._last[0] != stored:
            self._last = (stored, self._values_of(stored, place))
        return self._last[1]

    def _values_of(self, stored: str, place: ArrayPlace) -> Array:
        kind = place.dtype
        pairs = kind.kind == "c"
        wanted = np.dtype(f"f{kind.itemsize // 2}") if pairs else kind
        shape = (*place.shape, 2) if pairs else place.shape
        values = np.empty(shape, wanted)
        for row, line in enumerate(self._lines()):
            values[row] = np.array(line["layers"][stored], wanted).reshape(shape[1:])
        found = values.view(kind)[..., 0] if pairs else values
        found.flags.writeable = False
        return found

    def _texts(self, column: str) -> list[str]:
        return texts_of(self._said, column)

    def faults(self) -> Iterator[str]:
        """Nothing: there is no byte of a line that its values and texts do not tell."""
        return iter(())

    def close(self) -> None:
        """Release the file."""
        super().close()
        self._last = None
        self._file.close()


def texts_of(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    """Give one column of texts of what `row_objects` wrote. Raises KeyError where there is none."""
    if column != "fields":
        return [str(row["path" if column == "paths" else column]) for row in rows]
    fields = [row.get("fields") for row in rows]
    if not any(fields):
        raise KeyError(column)
    return [json.dumps(field) if field else "" for field in fields]
