"""A tar file as WebDataset has them: `KEY.LAYER.npy` for each layer and `KEY.json` for each row.

KEY is the path without its suffix, or the name within the tar file that the image came from; what a file name
may not hold or a reader would split is escaped, as `stored_names` does; a KEY that came before is numbered.
The path itself, the status and what the list of inputs said are in `KEY.json`. The last member is
`provenance.json`.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.formats.counting import Counted
from layerprobe.formats.jsonl import row_objects, texts_of
from layerprobe.formats.npydata import npy_header, read_npy_header
from layerprobe.formats.placement import FOLDER_RECORD
from layerprobe.formats.reading import ArrayPlace, OutputReader, reporting_damage
from layerprobe.formats.remote import open_for_reading
from layerprobe.formats.rows import StreamedBlocks, stored_layers
from layerprobe.formats.schema import KEY_NAMES, MEMBER_NAMES, dump_record, stored_names

if TYPE_CHECKING:
    from layerprobe.formats.row_texts import RowTexts
    from layerprobe.formats.sinks import Sink
    from layerprobe.records import Array, Provenance, TensorSpec, WrittenBlock

_SUFFIX = re.compile(r"(?<=.)\.\w{1,5}\Z", re.ASCII)
_END = bytes(2 * tarfile.BLOCKSIZE)


class TarStream:
    """Writes a tar file; see `protocols.FileStream`."""

    def __init__(self, sink: Sink, layers: Sequence[TensorSpec]) -> None:
        self._sink = sink
        self._layers = stored_layers(layers, 0, MEMBER_NAMES)
        self._headers = [npy_header(layer.dtype, layer.shape[1:]) for layer in self._layers]
        self._blocks = StreamedBlocks(self._layers)
        self._keys = Counted()

    def append(self, texts: RowTexts, activations: Mapping[str, Array]) -> WrittenBlock:
        """Write the members of each row."""
        block, arrays = self._blocks.add(texts, activations)
        columns = [arrays[layer.layer] for layer in self._layers]
        for place, said in enumerate(row_objects(texts)):
            key = self._unused(key_of(texts.keys[place]))
            for layer, header, column in zip(self._layers, self._headers, columns, strict=True):
                self._write(f"{key}.{layer.stored}.npy", header + column[place].tobytes())
            self._write(f"{key}.json", said.encode())
        return block

    def adopt(self, texts: RowTexts, block: WrittenBlock) -> None:
        """Take the members of the next rows as written."""
        self._blocks.adopt(texts, block)
        for key in texts.keys:
            self._unused(key_of(key))

    def _unused(self, key: str) -> str:
        """Number a key that came before; none of its own ends so, for `key_of` escapes "~"."""
        count = self._keys.add(key)
        return key if count == 1 else f"{key}~{count}"

    def commit(self, provenance: Provenance) -> None:
        """Write the record and the end, and name the file."""
        names = {layer.layer: layer.stored for layer in self._layers}
        record = dump_record(names, provenance, self._blocks.checksums())
        self._write(FOLDER_RECORD, record.encode())
        self._sink.write(_END)
        self._sink.commit()

    def _write(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        self._sink.write(header + data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def abort(self) -> None:
        """Remove what was written."""
        self._sink.abort()


def key_of(path: str) -> str:
    """Say what the members of a row are called, before the first "."."""
    parts = [part for part in path.rpartition("::")[2].split("/") if part not in ("", ".")] or [""]
    parts[-1] = _SUFFIX.sub("", parts[-1])
    return "/".join(stored_names([part], KEY_NAMES)[part] for part in parts)


class TarReader(OutputReader):
    """Reads a tar file; see `protocols.Reader`. A layer is in memory as a whole when it is asked for."""

    def __init__(self, path: str) -> None:
        with ExitStack() as on_error, reporting_damage(path):
            self._file = on_error.enter_context(open_for_reading(path))
            self._members = self._find_members()
            name, *record = self._members.pop()
            if name != FOLDER_RECORD:
                raise ValueError(f"its last member is not {FOLDER_RECORD}")
            super().__init__(path, self._read(*record))
            self._order = {stored: place for place, stored in enumerate(self._stored.values())}
            self._width = len(self._order) + 1
            """Members of each row."""
            rows, rest = divmod(len(self._members), self._width)
            if rest:
                raise ValueError("members are missing")
            self._locate(rows)
            on_error.pop_all()

    def _find_members(self) -> list[tuple[str, int, int]]:
        """Name, place and size of each member."""
        members = []
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    members.append((info.name, info.offset_data, info.size))
                    archive.members = []  # type: ignore[attr-defined]  # it would keep every header in memory
                end = archive.offset
        except tarfile.TarError as error:
            raise ValueError(str(error)) from error
        self._file.seek(end)
        if self._file.read(len(_END) + 1) != _END or not members:
            raise ValueError("its end is missing")
        return members

    def _read(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        return self._file.read(size)

    def _row(self, stored: str, row: int) -> tuple[np.dtype[Any], tuple[int, ...], bytes]:
        """Dtype, shape and bytes of one row of a layer."""
        name, *where = self._members[row * self._width + self._order[stored]]
        if not name.endswith(f".{stored}.npy"):
            raise ValueError(f"member {name!r} is not in its place")
        file = io.BytesIO(self._read(*where))
        shape, dtype = read_npy_header(file)
        return dtype, shape, file.read()

    def _place(self, stored: str) -> ArrayPlace:
        dtype, shape, _ = self._row(stored, 0)
        return ArrayPlace(dtype, (len(self._members) // self._width, *shape), 0)

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        values = np.empty(place.shape, place.dtype)
        for row in range(len(values)):
            dtype, shape, data = self._row(stored, row)
            if (dtype, shape) != (place.dtype, place.shape[1:]):
                raise ValueError(f"row {row} of {stored!r} is {dtype} of {shape}")
            values[row] = np.frombuffer(data, dtype).reshape(shape)
        values.flags.writeable = False
        return values

    def _texts(self, column: str) -> list[str]:
        rows = [json.loads(self._read(*where)) for _, *where in self._members[self._width - 1 :: self._width]]
        return texts_of(rows, column)

    def faults(self) -> Iterator[str]:
        """Look whether the members of every row have one key, and no other row has it."""
        seen = set()
        for start in range(0, len(self._members), self._width):
            key = self._members[start + self._width - 1][0].removesuffix(".json")
            wanted = [f"{key}.{stored}.npy" for stored in self._order] + [f"{key}.json"]
            if [name for name, *_ in self._members[start : start + self._width]] != wanted or key in seen:
                yield f"the members of row {start // self._width} are not called as they should be"
            seen.add(key)

    def close(self) -> None:
        """Release the file."""
        super().close()
        self._file.close()
