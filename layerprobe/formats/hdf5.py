"""HDF5: contiguous datasets in one flat group, for `h5py.File` and every other HDF5 reader.

Texts are variable-length strings, marked as UTF-8; a path keeps the bytes that the file system has for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import h5py
import numpy as np

from layerprobe.errors import LayerprobeError
from layerprobe.formats.codecs import method_of, require
from layerprobe.formats.compressed_rows import CompressedRows, OpenFile
from layerprobe.formats.joined import PartFiles
from layerprobe.formats.laid_out import LaidOutFile
from layerprobe.formats.pending import PendingFile
from layerprobe.formats.reading import ArrayPlace, OutputReader, map_array, reporting_damage
from layerprobe.formats.rows import StoredLayer, check_layout, check_size, laid_out_differently
from layerprobe.formats.schema import (
    HDF5_NAMES,
    VERSION,
    VERSION_KEY,
)

if TYPE_CHECKING:
    from layerprobe.records import Array, Provenance

_TEXT = h5py.string_dtype("utf-8")
_ALIGNMENT = 64
_TEXTS_AT_ONCE = 1000
_METADATA_BYTES = 1 << 16
_LONGEST_ATTRIBUTE = 60_000
"""HDF5 keeps attributes of less than 64 KiB; the record has longer names too."""


class HDF5Writer(LaidOutFile):
    """Writes an HDF5 file, laid out first; see `protocols.Writer`."""

    rules = HDF5_NAMES
    file_format = "hdf5"

    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        return dict(resume or {})  # HDF5 itself decides: `_begin` asks it

    def _begin(self, resume: Mapping[str, int] | None) -> None:
        # A run killed in `commit` leaves any state: all but the rows is written anew, and is the same.
        places = self._places_of_rows(resume or {})
        check_size(self._file.path, self._file.size(), max((end for _, end in places), default=0))
        with editing(self._file, "w", places) as (file, port):
            file.attrs[VERSION_KEY] = VERSION
            self.layout = {layer.layer: self._place_of(file, layer) for layer in self._layers}
            check_layout(self._file.path, self.layout, resume)
            _write_texts(file, "paths", self._paths)
        self._file.reserve(port.size)
        self._file.truncate(port.size)

    def _place_of(self, file: h5py.File, layer: StoredLayer) -> int:
        """Make a layer's dataset and give the offset of its bytes, which are written past HDF5."""
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.CONTIGUOUS)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        how.set_obj_track_times(False)
        dtype = h5py.h5t.py_create(layer.dtype, logical=True)
        space = h5py.h5s.create_simple(layer.shape)
        dataset = file[layer.stored] = h5py.Dataset(h5py.h5d.create(file.id, None, dtype, space, how))
        name_layer(dataset, layer)
        # An empty dataset has no place, and no bytes to put there.
        return dataset.id.get_offset() or 0

    def _places_of_rows(self, layout: Mapping[str, int]) -> list[tuple[int, int]]:
        """Where no byte of HDF5's own may go: (first, one after the last)."""
        sizes = {layer.layer: layer.size for layer in self._layers}
        return [(place, place + sizes.get(layer, 0)) for layer, place in layout.items()]

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write the texts, and name the file."""
        columns, record = self._blocks.described(self._paths, provenance, failures, fields)
        with editing(self._file, "r+", self._places_of_rows(self.layout)) as (file, port):
            write_columns(file, columns, record)
        self._file.truncate(port.size)
        self._file.commit()


def name_layer(dataset: h5py.Dataset, layer: StoredLayer) -> None:
    """Write the layer's address to its dataset, whose own name may be another."""
    address = _encode(layer.layer)
    if len(address) < _LONGEST_ATTRIBUTE:
        dataset.attrs.create("layer", address, dtype=_TEXT)


def write_columns(file: h5py.File, columns: Mapping[str, Sequence[str]], record: str) -> None:
    """Write the texts of rows, and the record."""
    for name, texts in columns.items():
        _write_texts(file, name, texts)
    file.create_dataset("provenance", data=record, dtype=_TEXT)


def _write_texts(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    dataset = file.create_dataset(name, (len(texts),), _TEXT)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = _encoded(texts[start : start + _TEXTS_AT_ONCE])
        dataset[start : start + len(part)] = np.array(part, dtype=object)


def _encoded(texts: Sequence[str]) -> list[bytes]:
    """`_encode` each of some texts, all in one step where none is odd."""
    joined = "\0".join(texts)
    if joined.count("\0") == len(texts) - 1:
        with suppress(UnicodeEncodeError):
            return joined.encode("utf-8", "surrogateescape").split(b"\0")
    return list(map(_encode, texts))


def _encode(text: str) -> bytes:
    """Give a path's own bytes back, other texts as UTF-8; a NUL, at which HDF5 stops, is spelt out."""
    text = text.replace("\0", "\\x00")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


class _Port(io.RawIOBase):
    """A pending file as HDF5 sees it: one that never fails, and ends where HDF5 thinks that it does.

    HDF5 can crash the process when the disk is full. So the first failure is kept for `editing` to raise,
    and HDF5 is told that all is well.

    Args:
        file: What is read and written; its own length does not matter.
        size: Where it ends at first.
        rows: Places, (first, one after the last), that hold rows; to write there is a failure.
    """

    def __init__(self, file: PendingFile, size: int, rows: Sequence[tuple[int, int]]) -> None:
        self._file, self.size, self._rows = file, size, rows
        self._position = 0
        self.failure: LayerprobeError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the beginning, the position or the end."""
        self._position = (0, self._position, self.size)[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read at the position; zeros beyond the end, and after a failure: HDF5 may follow what it gets."""
        data, wanted = b"", min(len(buffer), max(0, self.size - self._position))
        with self._keeping_failure():
            if self.failure is None:
                data = self._file.read(self._position, wanted)
        buffer[:] = data.ljust(len(buffer), b"\0")
        self._position += len(buffer)
        return len(buffer)

    def write(self, data: Any) -> int:
        """Write at the position."""
        end = self._position + len(data)
        with self._keeping_failure():
            if any(self._position < stop and start < end for start, stop in self._rows):
                raise laid_out_differently(self._file.path)
            self._file.write(self._position, data)
        self._position = end
        self.size = max(self.size, end)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the size; None: the position."""
        self.size = self._position if size is None else size
        return self.size

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except LayerprobeError as error:
            # Not the error itself: its traceback would keep h5py's own objects alive until Python has ended,
            # and HDF5, which cleans up only then, would call back into nothing.
            self.failure = self.failure or type(error)(str(error))


def _keep_little(file: h5py.File) -> None:
    """Have HDF5 write texts out as they come; by itself it keeps up to 32 MiB until the file is closed."""
    how = file.id.get_mdc_config()
    how.set_initial_size, how.initial_size = True, _METADATA_BYTES
    how.max_size = _METADATA_BYTES
    how.min_size = min(how.min_size, _METADATA_BYTES)
    file.id.set_mdc_config(how)


@contextmanager
def editing(
    file: PendingFile, mode: str, rows: Sequence[tuple[int, int]]
) -> Iterator[tuple[h5py.File, _Port]]:
    """Open a pending file with h5py, "w" or "r+"; raises WriteError when something could not be written.

    It is raised at the end; who has much to write looks at the port's `failure` meanwhile.
    """
    port = _Port(file, 0 if mode == "w" else file.size(), rows)
    try:
        with h5py.File(port, mode, alignment_interval=_ALIGNMENT) as opened:
            _keep_little(opened)
            yield opened, port
    except Exception:  # told that all is well after a failed write, HDF5 stumbles over that in any way
        if port.failure is None:
            raise
    if port.failure is not None:
        raise port.failure


class HDF5Reader(OutputReader):
    """Reads an HDF5 file; see `protocols.Reader`."""

    def __init__(self, path: str) -> None:
        self._parts: PartFiles | None = None
        """Where the rows are, if they are in other files."""
        with ExitStack() as on_error, reporting_damage(path):
            opened = self._opened = OpenFile(path)
            on_error.callback(opened.close)
            self._file = opened.hdf5
            super().__init__(path, self._file["provenance"][()])
            run = self.provenance.get("run")
            if isinstance(run, dict) and run.get("virtual"):
                self._parts = PartFiles(path, run["parts"])
            self._locate(*self._file["status"].shape)
            on_error.pop_all()

    def _place(self, stored: str) -> ArrayPlace:
        dataset = self._file[stored]
        offset = dataset.id.get_offset()
        if self._parts is None and dataset.chunks is not None:
            method = method_of(dataset)
            if method is None:
                raise ValueError(f"dataset {stored!r} is in chunks, and not compressed")
            require(method)
            self.compression = method.name
        elif self._parts is None and offset is None and dataset.size:
            raise ValueError(f"dataset {stored!r} is not contiguous")
        self.stored_bytes += dataset.id.get_storage_size()
        return ArrayPlace(dataset.dtype, dataset.shape, offset or 0)

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        if self._parts is not None:
            layer = next(layer for layer, name in self._stored.items() if name == stored)
            return cast("Array", self._parts.rows_of(layer, place))
        dataset = self._file[stored]
        if dataset.chunks is None:
            return map_array(self._opened.bytes, place)
        return cast("Array", CompressedRows(self.path, self._opened, dataset))

    def _texts(self, column: str) -> list[str]:
        return [text.decode("utf-8", "surrogateescape") for text in self._file[column][:]]

    def faults(self) -> Iterator[str]:
        """Compare the names and the attributes of what is in the file."""
        with reporting_damage(self.path):
            if self._file.attrs.get(VERSION_KEY) != VERSION:
                yield f"its attribute {VERSION_KEY!r} is not what was written"
            for layer, stored in self._stored.items():
                address = _encode(layer)
                told = self._file[stored].attrs.get("layer", "").encode("utf-8", "surrogateescape")
                if len(address) < _LONGEST_ATTRIBUTE and told != address:
                    yield f"the attribute 'layer' of dataset {stored!r} is not what was written"
            ours = {*self._stored.values(), "paths", "status", "error", "fields", "provenance"}
            for name in sorted(set(self._file) - ours):
                yield f"dataset {name!r} is not the output's"

    def close(self) -> None:
        """Release the file."""
        super().close()
        if self._parts is not None:
            self._parts.close()
        if self.compression is None and hasattr(self, "_opened"):
            self._opened.close()
        # Else rows that were given away may still read from it.
        self.__dict__.pop("_file", None)
        self.__dict__.pop("_opened", None)
