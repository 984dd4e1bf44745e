"""Zarr, version 3: a group with one array for each layer, for zarr-python and xarray.

Arrays are cut along the rows: into shards, one file each, and within them into chunks that are compressed by
themselves. The shards of all layers have the same rows. Until these are all there they wait, as they are, in
a file of the shard, so that they can be brought to disk and noted as they come, by several processes if need
be. Then every shard is written once, whole, and the file goes. Only who lays out the output makes such files:
a process that was given up, and writes all the same, does not find the file of a complete shard, and cannot
make another, which would be taken for the shard's rows. Metadata come last: nobody can open an unfinished
group, and take rows that are missing for values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.errors import ResumeError
from layerprobe.formats.laid_out import LaidOutWriter
from layerprobe.formats.legible import dump_exact
from layerprobe.formats.pending import PendingFolder
from layerprobe.formats.places import RowPlaces
from layerprobe.formats.rows import StoredLayer
from layerprobe.formats.schema import ZARR_NAMES, text_columns
from layerprobe.formats.zarr_group import GroupFiles, ShardCodec, rows_per_shard, shard_file

if TYPE_CHECKING:
    from layerprobe.records import Array, Provenance, WrittenBlock

_WAITING = ".rows-"
"""How the files of waiting rows are called; no layer is called so."""


class ZarrWriter(LaidOutWriter):
    """Writes a group of sharded arrays; see `protocols.Writer` and the module."""

    rules = ZARR_NAMES
    file_format = "zarr"

    def _lay_out(self, resume: Mapping[str, int] | None) -> dict[str, int]:
        self._step = rows_per_shard(self._layers)
        self._counts: dict[int, int] = {}
        """Shard -> how many of its rows are there."""
        self._may_be_encoded = resume is not None
        """Whether there are shards of which some rows may come again."""
        self._codecs = {
            layer.layer: ShardCodec(layer, self._step) for layer in self._layers if layer.row_bytes
        }
        # What waits has its place by this.
        return {layer.layer: self._step for layer in self._layers}

    def _open(self, path: str, resume: bool) -> None:
        self._folder = PendingFolder(path, self.file_format, resume=resume)

    def _begin(self, resume: Mapping[str, int] | None) -> None:
        for layer in self._layers:
            self._folder.make_folder(layer.stored)

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Put a block of rows where they wait, and write the shards that are complete with it."""
        self._make_ready()
        places = self._placed()

        def put(layer: StoredLayer, place: int, data: memoryview) -> None:
            for name, offset, part in places.pieces(layer, place, data):
                self._folder.write(os.path.basename(name), offset, part, create_it=True)

        block = self._blocks.write(start, activations, put)
        self._count(block)
        return block

    def adopt(self, block: WrittenBlock) -> None:
        """Take rows as written, and write the shards that are complete with them."""
        self._blocks.adopt(block)
        for shard, _ in self._shards_of(block):
            if self._folder.exists(f"{_WAITING}{shard}"):
                self._folder.touch(f"{_WAITING}{shard}")
        self._count(block)

    @property
    def places(self) -> RowPlaces:
        """Where the rows go, for other processes to put them there, in files that are made now."""
        self._make_ready()
        self._folder.make_files(f"{_WAITING}{shard}" for shard in self._incomplete())
        return self._placed()

    def _make_ready(self) -> None:
        """Once, before the first rows are written: see to it that those of incomplete shards wait."""
        if self._may_be_encoded:
            self._may_be_encoded = False
            for shard in self._incomplete():
                if shard in self._counts:
                    self._restore(shard)

    def _incomplete(self) -> Iterator[int]:
        for shard in range(-(-self._blocks.rows // self._step)):
            if self._counts.get(shard, 0) < len(self._rows(shard)):
                yield shard

    def _placed(self) -> RowPlaces:
        files, end = {}, 0
        for layer in self._layers:
            files[layer.layer] = (self._folder.name(_WAITING), end)
            end += self._step * layer.row_bytes
        return RowPlaces(self._folder.path, self._layers, self._blocks.rows, files, self._step)

    def _rows(self, shard: int) -> range:
        return range(shard * self._step, min((shard + 1) * self._step, self._blocks.rows))

    def _shards_of(self, block: WrittenBlock) -> Iterator[tuple[int, int]]:
        """Say which shards a block is in, and with how many rows."""
        for shard in range(block.start // self._step, -(-block.stop // self._step)):
            rows = self._rows(shard)
            yield shard, min(block.stop, rows.stop) - max(block.start, rows.start)

    def _count(self, block: WrittenBlock) -> None:
        for shard, count in self._shards_of(block):
            self._counts[shard] = self._counts.get(shard, 0) + count
            if self._counts[shard] == len(self._rows(shard)):
                self._encode(shard)

    def _encode(self, shard: int) -> None:
        """Write a shard of every layer, and remove the rows that waited for it."""
        waiting = f"{_WAITING}{shard}"
        if not self._folder.exists(waiting):
            self._check_encoded(shard)
            return
        rows, start = len(self._rows(shard)), 0
        for layer in self._layers:
            if layer.row_bytes:
                data = self._folder.read(waiting, start, rows * layer.row_bytes)
                if len(data) != rows * layer.row_bytes:
                    raise self._damaged()
                values = np.frombuffer(data, layer.dtype).reshape(rows, *layer.shape[1:])
                self._folder.put(shard_file(layer, shard), self._codecs[layer.layer].encoded(values))
            start += self._step * layer.row_bytes
        self._folder.sync()
        self._folder.discard(waiting)

    def _check_encoded(self, shard: int) -> None:
        for layer in self._layers:
            if layer.row_bytes and not self._folder.exists(shard_file(layer, shard)):
                raise self._damaged()

    def _restore(self, shard: int) -> None:
        """Have the rows of a shard wait again, for some of them are going to be written anew."""
        waiting = f"{_WAITING}{shard}"
        if self._folder.exists(waiting) or not self._codecs:
            return
        self._check_encoded(shard)
        # Under another name until all of it is there: a run that is killed here has lost nothing.
        parts, rows = [], len(self._rows(shard))
        for layer in self._layers:
            whole = bytearray(self._step * layer.row_bytes)
            if layer.row_bytes:
                data = self._folder.read(shard_file(layer, shard), 0, -1)
                found = self._codecs[layer.layer].decoded(data, rows, self._folder.path).tobytes()
                whole[: len(found)] = found
            parts.append(bytes(whole))
        self._folder.put(f".{_WAITING}{shard}", b"".join(parts))
        self._folder.sync()
        self._folder.rename(f".{_WAITING}{shard}", waiting)

    def _damaged(self) -> ResumeError:
        return ResumeError(
            f"the unfinished {self._folder.path!r} is damaged, rows of it are gone: "
            "give --restart to begin again."
        )

    def sync(self) -> None:
        """Bring what was written to disk."""
        self._folder.sync()

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write texts and metadata, and name the folder."""
        self._blocks.finish()
        columns = {"paths": self._paths, **text_columns(self._blocks.rows, failures, fields)}
        files = GroupFiles(self._layers, self._specs, self._step)
        files.add_texts(columns)
        files.finish(provenance, self._blocks.checksums(), columns, dump_exact(columns))
        for name, data in files:
            self._folder.make_folder(os.path.dirname(name))
            self._folder.put(name, data)
        for name in self._folder.left_over(_WAITING):
            self._folder.discard(name)
        self._folder.commit()

    def suspend(self) -> None:
        """Leave the folder unfinished."""
        self._folder.suspend()

    def abort(self) -> None:
        """Remove what was written."""
        self._folder.abort()
