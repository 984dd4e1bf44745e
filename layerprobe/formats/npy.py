"""A folder of `.npy` files, one per layer, for `numpy.load(..., mmap_mode="r")`, and `provenance.json`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import IO, TYPE_CHECKING

from layerprobe.errors import NoInputError
from layerprobe.formats.laid_out import LaidOutWriter
from layerprobe.formats.npydata import npy_header, read_npy_header, read_texts, text_blocks, text_dtype
from layerprobe.formats.pending import PendingFolder
from layerprobe.formats.placement import FOLDER_RECORD
from layerprobe.formats.places import RowPlaces
from layerprobe.formats.reading import ArrayPlace, OutputReader, map_array, reporting_damage
from layerprobe.formats.remote import names_in, open_for_reading
from layerprobe.formats.rows import StoredLayer, check_size
from layerprobe.formats.schema import FOLDER_NAMES
from layerprobe.stores.urls import is_url

if TYPE_CHECKING:
    from layerprobe.records import Array, Provenance, WrittenBlock


class NpyWriter(LaidOutWriter):
    """Writes a folder of `.npy` files, laid out first; see `protocols.Writer`."""

    rules = FOLDER_NAMES
    file_format = "npy"

    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        self._headers = {layer.layer: npy_header(layer.dtype, layer.shape) for layer in self._layers}
        return {layer: len(header) for layer, header in self._headers.items()}

    def _open(self, path: str, resume: bool) -> None:
        self._folder = PendingFolder(path, self.file_format, resume=resume)

    def _begin(self, resume: Mapping[str, int] | None) -> None:
        sizes = {_file(layer): self.layout[layer.layer] + layer.size for layer in self._layers}
        if resume is None:
            self._folder.create(sizes)
        else:
            self._folder.discard(FOLDER_RECORD)
            for name, size in sizes.items():
                check_size(self._folder.path, self._folder.size(name), size)
        for layer in self._layers:
            self._folder.write(_file(layer), 0, self._headers[layer.layer])
        self._write_texts("paths.npy", self._paths)

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Put a block of rows at its place."""
        return self._blocks.write(start, activations, self._put)

    def _put(self, layer: StoredLayer, place: int, data: memoryview) -> None:
        self._folder.write(_file(layer), self.layout[layer.layer] + place, data)

    def adopt(self, block: WrittenBlock) -> None:
        """Take rows as written."""
        self._blocks.adopt(block)
        for layer in self._layers:
            self._folder.touch(_file(layer))

    @property
    def places(self) -> RowPlaces:
        """Where the rows go, for other processes to put them there."""
        files = {
            layer.layer: (self._folder.name(_file(layer)), self.layout[layer.layer]) for layer in self._layers
        }
        return RowPlaces(self._folder.path, self._layers, self._blocks.rows, files)

    def sync(self) -> None:
        """Bring what was written to disk."""
        self._folder.sync()

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write the texts, and name the folder."""
        columns, record = self._blocks.described(self._paths, provenance, failures, fields)
        for name, texts in columns.items():
            self._write_texts(f"{name}.npy", texts)
        data = record.encode()
        self._folder.create({FOLDER_RECORD: len(data)})
        self._folder.write(FOLDER_RECORD, 0, data)
        self._folder.commit()

    def _write_texts(self, name: str, texts: Sequence[str]) -> None:
        dtype = text_dtype(texts)
        header = npy_header(dtype, (len(texts),))
        self._folder.discard(name)
        self._folder.create({name: len(header) + len(texts) * dtype.itemsize})
        self._folder.write(name, 0, header)
        place = len(header)
        for part in text_blocks(texts, dtype):
            self._folder.write(name, place, part)
            place += len(part)

    def suspend(self) -> None:
        """Leave the folder unfinished."""
        self._folder.suspend()

    def abort(self) -> None:
        """Remove what was written."""
        self._folder.abort()


def _file(layer: StoredLayer) -> str:
    return f"{layer.stored}.npy"


class NpyReader(OutputReader):
    """Reads a folder of `.npy` files; see `protocols.Reader`."""

    def __init__(self, path: str) -> None:
        with ExitStack() as on_error, reporting_damage(path):
            # Held open, so that a folder that replaces this one is not taken for it.
            here = os.open in os.supports_dir_fd and not is_url(path)
            self._folder = os.open(path, os.O_RDONLY) if here else -1
            on_error.callback(self.close)
            self._place_of_files = path.rstrip("/")
            with self._open(FOLDER_RECORD) as file:
                super().__init__(path, file.read())
            with self._open("status.npy") as file:
                shape, _ = read_npy_header(file)
            self._locate(*shape)
            on_error.pop_all()

    def _open(self, name: str) -> IO[bytes]:
        if os.path.basename(name) != name:
            raise ValueError(f"{name!r} is not in the folder")
        if self._folder == -1:
            try:
                return open_for_reading(os.path.join(self._place_of_files, name))
            except NoInputError as error:
                raise FileNotFoundError(errno.ENOENT, f"{name!r} is missing") from error
        return open(name, "rb", opener=lambda name, flags: os.open(name, flags, dir_fd=self._folder))

    def _place(self, stored: str) -> ArrayPlace:
        with self._open(f"{stored}.npy") as file:
            shape, dtype = read_npy_header(file)
            return ArrayPlace(dtype, shape, file.tell())

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        with self._open(f"{stored}.npy") as file:
            return map_array(file, place)

    def _texts(self, column: str) -> list[str]:
        with self._open(f"{column}.npy") as file:
            return read_texts(file)

    def faults(self) -> Iterator[str]:
        """Compare the header and the length of every file, and look for others."""
        columns = ["paths", "status", "error", *([] if self.fields is None else ["fields"])]
        names = {f"{name}.npy" for name in [*self._stored.values(), *columns]}
        for name in sorted(names):
            with reporting_damage(self.path), self._open(name) as file:
                shape, dtype = read_npy_header(file)
                header, size = npy_header(dtype, shape), file.seek(0, os.SEEK_END)
                file.seek(0)
                if file.read(len(header)) != header:
                    yield f"the header of {name!r} is not what was written"
                if size != len(header) + prod(shape) * dtype.itemsize:
                    yield f"{name!r} has {size} bytes, its array takes another number"
        for name in sorted(set(names_in(self._place_of_files)) - names - {FOLDER_RECORD}):
            yield f"{name!r} in the folder is not the output's"

    def close(self) -> None:
        """Release the folder."""
        super().close()
        folder, self._folder = self._folder, -1
        if folder != -1:
            os.close(folder)
