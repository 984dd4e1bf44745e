"""`.npz`: one file for `numpy.load`, its members uncompressed so that rows have places and can be mapped.

Texts are compressed, for NumPy pads each to the length of the longest. Layer names keep their "/", so that
`numpy.load(file)["backbone/conv1"]` works.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING

from zlib_ng import zlib_ng

from layerprobe.formats.laid_out import LaidOutFile
from layerprobe.formats.npydata import npy_header, read_npy_header, read_texts, text_blocks, text_dtype
from layerprobe.formats.reading import ArrayPlace, OutputReader, map_array, reporting_damage
from layerprobe.formats.remote import open_for_reading
from layerprobe.formats.rows import StoredLayer, check_size
from layerprobe.formats.schema import NPZ_NAMES
from layerprobe.formats.zip64 import DEFLATED, Member, central_directory, local_header

if TYPE_CHECKING:
    from layerprobe.records import Array, Provenance


class NpzWriter(LaidOutFile):
    """Writes an `.npz` file, laid out first; see `protocols.Writer`."""

    rules = NPZ_NAMES
    file_format = "npz"

    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        self._members: dict[str, Member] = {}
        self._end = 0
        self._headers = [self._add(layer) for layer in self._layers]
        return {layer.layer: self._members[layer.layer].end - layer.size for layer in self._layers}

    def _begin(self, resume: Mapping[str, int] | None) -> None:
        if resume is not None:
            check_size(self._file.path, self._file.size(), self._end)
        self._file.reserve(self._end)
        for member, header in zip(self._members.values(), self._headers, strict=True):
            self._file.write(member.data_place, header)
        self._texts = [self._write_texts("paths", self._paths)]

    def _add(self, layer: StoredLayer) -> bytes:
        header = npy_header(layer.dtype, layer.shape)
        size = len(header) + layer.size
        name = f"{layer.stored}.npy".encode()
        member = Member(name, self._end, size, stored_size=size, crc=zlib.crc32(header))
        self._members[layer.layer] = member
        self._end = member.end
        return header

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write the texts and what makes the file an archive, and name it."""
        self._count_checksums()
        columns, record = self._blocks.described(self._paths, provenance, failures, fields)
        for name, texts in columns.items():
            self._texts.append(self._write_texts(name, texts))
        self._texts.append(self._write_texts("provenance", record))
        members = [*self._members.values(), *self._texts]
        for member in members:
            self._file.write(member.place, local_header(member))
        directory = central_directory(members, self._end)
        self._file.write(self._end, directory)
        # A run that was killed here may have written more.
        self._file.truncate(self._end + len(directory))
        self._file.commit()

    def _count_checksums(self) -> None:
        for block in self._blocks.finish():
            for layer in self._layers:
                member, size = self._members[layer.layer], (block.stop - block.start) * layer.row_bytes
                member.crc = zlib_ng.crc32_combine(member.crc, block.checksums[layer.layer], size)

    def _write_texts(self, name: str, given: str | Sequence[str]) -> Member:
        texts, shape = ([given], ()) if isinstance(given, str) else (given, (len(given),))
        dtype = text_dtype(texts)
        header = npy_header(dtype, shape)
        member = Member(
            f"{name}.npy".encode(), self._end, len(header) + len(texts) * dtype.itemsize, DEFLATED
        )
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        for part in chain([header], text_blocks(texts, dtype)):
            member.crc = zlib.crc32(part, member.crc)
            self._append(member, compressor.compress(part))
        self._append(member, compressor.flush())
        self._end = member.end
        return member

    def _append(self, member: Member, data: bytes) -> None:
        self._file.write(member.end, data)
        member.stored_size += len(data)


class NpzReader(OutputReader):
    """Reads an `.npz` file; see `protocols.Reader`."""

    def __init__(self, path: str) -> None:
        with ExitStack() as on_error, reporting_damage(path):
            self._file = on_error.enter_context(open_for_reading(path))
            self._archive = zipfile.ZipFile(self._file)
            super().__init__(path, self._read("provenance")[0])
            with self._archive.open("status.npy") as status:
                shape, _ = read_npy_header(status)
            self._locate(*shape)
            on_error.pop_all()

    def _place(self, stored: str) -> ArrayPlace:
        info = self._archive.getinfo(f"{stored}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{info.filename!r} is compressed")
        self._file.seek(info.header_offset + 26)
        self._file.seek(sum(struct.unpack("<HH", self._file.read(4))), 1)
        shape, dtype = read_npy_header(self._file)
        return ArrayPlace(dtype, shape, self._file.tell())

    def _map(self, stored: str, place: ArrayPlace) -> Array:
        return map_array(self._file, place)

    def _texts(self, column: str) -> list[str]:
        return self._read(column)

    def _read(self, name: str) -> list[str]:
        with self._archive.open(f"{name}.npy") as member:
            return read_texts(member)

    def faults(self) -> Iterator[str]:
        """Compare every byte that makes the file an archive, and the checksum of every member."""
        with reporting_damage(self.path):
            damaged = self._archive.testzip()
        if damaged is not None:
            yield f"its member {damaged!r} is not what was written (CRC-32)"
        members = [
            Member(
                info.orig_filename.encode(),
                info.header_offset,
                info.file_size,
                info.compress_type,
                info.compress_size,
                info.CRC,
            )
            for info in self._archive.infolist()
        ]
        expected = [(member.place, local_header(member)) for member in members]
        end = max((member.end for member in members), default=0)
        expected.append((end, central_directory(members, end)))
        for place, wanted in expected:
            self._file.seek(place)
            if self._file.read(len(wanted)) != wanted:
                yield f"the archive's structure at byte {place} is not what was written"
        if self._file.read(1):
            yield "it goes on behind its end"

    def close(self) -> None:
        """Release the file."""
        super().close()
        self._file.close()
