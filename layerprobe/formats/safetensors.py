"""safetensors: one file with a JSON header and arrays behind it, for `safetensors.numpy.load_file`.

The format knows arrays only. So `status` is a boolean (N,) array, true where a row is "ok", and other texts
are JSON in uint8 arrays: `json.loads(found["paths"].tobytes())`. The header stands first and says where all
arrays are; its space is kept, zeros until the end, so that nobody takes an unfinished file for a whole one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import UnrecordableLayerError
from layerprobe.formats.laid_out import LaidOutFile
from layerprobe.formats.reading import ArrayPlace, OutputReader, map_array, reporting_damage
from layerprobe.formats.remote import open_for_reading
from layerprobe.formats.rows import StoredLayer, check_size
from layerprobe.formats.schema import SAFETENSORS_NAMES

if TYPE_CHECKING:
    from layerprobe.records import Array, Provenance

METADATA = {"layerprobe_format": "1", "format": "np"}
"""Texts in the header; "np" is what NumPy's users of the format write, and others look at."""
_CODES = {
    **{np.dtype(f"u{size}"): f"U{8 * size}" for size in (1, 2, 4, 8)},
    **{np.dtype(f"i{size}"): f"I{8 * size}" for size in (1, 2, 4, 8)},
    **{np.dtype(f"f{size}"): f"F{8 * size}" for size in (2, 4, 8)},
    **{np.dtype("bool"): "BOOL", np.dtype("c8"): "C64"},
}
_DTYPES = {code: dtype.newbyteorder("<") for dtype, code in _CODES.items()}
_TEXTS = ("paths", "status", "error", "fields", "provenance")
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000
"""What readers take."""
_ALIGNMENT = 64
_TEXTS_AT_ONCE = 1000

Arrays = dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]
"""Stored name -> dtype, shape, and place in the bytes behind the header; in the order of places."""


class SafetensorsWriter(LaidOutFile):
    """Writes a safetensors file, laid out first; see `protocols.Writer`."""

    rules = SAFETENSORS_NAMES
    file_format = "safetensors"

    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        self._arrays: Arrays = {}
        self._end = 0
        # The format has no gaps: larger types first, so that all are aligned.
        for layer in sorted(self._layers, key=lambda layer: -layer.dtype.itemsize):
            _check_storable(layer)
            self._add(layer.stored, layer.dtype, layer.shape)
        texts = dict.fromkeys(_TEXTS, (np.dtype("u1"), (10**18,), 10**18))
        self._start = len(_header({**self._arrays, **texts}, _ALIGNMENT))
        return {layer.layer: self._start + self._arrays[layer.stored][2] for layer in self._layers}

    def _begin(self, resume: Mapping[str, int] | None) -> None:
        if resume is not None:
            check_size(self._file.path, self._file.size(), self._start + self._end)
        self._file.reserve(self._start + self._end)
        # A run killed in `commit` may have written one.
        self._file.write(0, bytes(self._start))
        self._write_texts("paths", _as_json(self._paths))

    def _add(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._arrays[name] = dtype, shape, self._end
        self._end += prod(shape) * dtype.itemsize

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write the texts and the header, and name the file."""
        columns, record = self._blocks.described(self._paths, provenance, failures, fields)
        self._write_array("status", np.array([status == "ok" for status in columns.pop("status")], bool))
        for name, texts in columns.items():
            self._write_texts(name, _as_json(texts))
        self._write_texts("provenance", [record.encode()])
        self._file.truncate(self._start + self._end)
        self._file.write(0, _header(self._arrays, self._start))
        self._file.commit()

    def _write_array(self, name: str, array: Array) -> None:
        self._file.write(self._start + self._end, array.tobytes())
        self._add(name, array.dtype, array.shape)

    def _write_texts(self, name: str, parts: Iterator[bytes] | Sequence[bytes]) -> None:
        size = 0
        for part in parts:
            self._file.write(self._start + self._end + size, part)
            size += len(part)
        self._add(name, np.dtype("u1"), (size,))


def _check_storable(layer: StoredLayer) -> None:
    if layer.dtype not in _CODES:
        raise UnrecordableLayerError(
            f"the values of layer {layer.layer!r} cannot be stored as safetensors, which has no "
            f"{layer.dtype.name}: give -o NAME.npz or NAME.h5. Received: {layer.given}."
        )


def _header(arrays: Arrays, size: int) -> bytes:
    """Write what stands before the arrays, blanks at its end up to a multiple of `size` bytes."""
    entries: dict[str, Any] = {"__metadata__": METADATA}
    for name, (dtype, shape, place) in arrays.items():
        stop = place + prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [place, stop]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % size)
    return _LENGTH.pack(len(text)) + text


def _as_json(texts: Sequence[str]) -> Iterator[bytes]:
    """Write the JSON text of a list, a part at a time; in ASCII, which has every text that is possible."""
    yield b"["
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = ", ".join(map(json.dumps, texts[start : start + _TEXTS_AT_ONCE]))
        yield f"{', ' if start else ''}{part}".encode()
    yield b"]"


class SafetensorsReader(OutputReader):
    """Reads a safetensors file; see `protocols.Reader`."""

    def __init__(self, path: str) -> None:
        with ExitStack() as on_error, reporting_damage(path):
            self._file = on_error.enter_context(open_for_reading(path))
            self._arrays, self._start = _read_header(self._file)
            super().__init__(path, self._bytes("provenance"))
            self._locate(*self._arrays["status"][1])
            on_error.pop_all()

    def _place(self, stored: str) -> ArrayPlace:
        dtype, shape, place = self._arrays[stored]
        return ArrayPlace(dtype, shape, self._start + place)

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        return map_array(self._file, place)

    def _bytes(self, name: str) -> bytes:
        return np.asarray(map_array(self._file, self._place(name))).tobytes()

    def _texts(self, column: str) -> list[str]:
        if column == "status":
            ok = np.frombuffer(self._bytes("status"), "u1")
            if ok.size and ok.max() > 1:
                raise ValueError("a status is neither true nor false")
            return ["ok" if each else "failed" for each in ok.tolist()]
        return list(map(str, json.loads(self._bytes(column))))

    def faults(self) -> Iterator[str]:
        """Compare the header and the length of the file, and look for other arrays."""
        with reporting_damage(self.path):
            self._file.seek(0)
            if self._file.read(self._start) != _header(self._arrays, self._start):
                yield "its header is not what was written"
            end = 0
            for name, (dtype, shape, place) in self._arrays.items():
                if name not in (*self._stored.values(), *_TEXTS):
                    yield f"array {name!r} is not the output's"
                if place != end:
                    yield f"array {name!r} begins at byte {place}, the one before it ends at {end}"
                end = place + prod(shape) * dtype.itemsize
            if self._file.seek(0, 2) != self._start + end:
                yield "it goes on behind its end"
            for name in ("paths", "error", "fields"):
                if name in self._arrays:
                    found = self._bytes(name)
                    if b"".join(_as_json(json.loads(found))) != found:
                        yield f"{name!r} is not spelt as it was written"

    def close(self) -> None:
        """Release the file."""
        super().close()
        self._file.close()


def _read_header(file: IO[bytes]) -> tuple[Arrays, int]:
    """Read which arrays there are, in the order of their places, and where the first begins."""
    (size,) = _LENGTH.unpack(file.read(_LENGTH.size))
    text = file.read(min(size, _LONGEST_HEADER))
    if len(text) != size:
        raise ValueError("its header is cut short")
    entries = json.loads(text)
    if entries.pop("__metadata__") != METADATA:
        raise ValueError("its metadata are not layerprobe's")
    arrays: Arrays = {}
    for name, entry in entries.items():
        dtype, shape = _DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
        start, stop = map(int, entry["data_offsets"])
        if min(shape, default=0) < 0 or start < 0 or stop - start != prod(shape) * dtype.itemsize:
            raise ValueError(f"array {name!r} is not as large as its shape")
        arrays[name] = dtype, shape, start
    return arrays, _LENGTH.size + size
