"""Outputs that are put together at the end of a run, from blocks of rows that wait in a spool.

For formats whose rows have no places of their own, because they are compressed, or because nobody knows how
many come. The blocks are brought to disk as they come, and the journal knows them, so that such a run is
resumed as any other; `commit` reads them back in the order of their rows, whatever order they came in.

A format derives its writer from `SpooledWriter` and says two things:

    class CompressedHDF5Writer(SpooledWriter):
        rules = HDF5_NAMES                          # how layers are called in it

        def _pack(self, start, arrays):             # while the run goes: what waits of a block,
            return [...]                            # best the bytes that the output will hold

        def _assemble(self, finished):              # at the end: write all, and name the output
            file = PendingFile(self.path, "hdf5")
            ...
            for block in finished.blocks:           # in the order of their rows, without gaps
                pieces = self._pieces(block)        # as `_pack` gave them
            ...

Whatever `_assemble` raises, the spool stays as it is, so that a later run can try again; what it has begun to
write it removes. Its file is made anew: a run that was killed there may have left another.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from layerprobe import registry
from layerprobe.formats.placement import check_target
from layerprobe.formats.rows import RowBlocks, check_layout, checksums_of, stored_layers
from layerprobe.formats.schema import NPZ_NAMES, NameRules
from layerprobe.formats.spool import Spool
from layerprobe.records import WrittenBlock

if TYPE_CHECKING:
    from layerprobe.protocols import Writer
    from layerprobe.records import Array, Provenance, TensorSpec

Keys = Sequence[str] | Callable[[], Sequence[str]]
"""What the N rows are called; a function where that is known at the end only, with N."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What is to be written beside the values, when all rows are there."""

    keys: Sequence[str]
    """N of them."""
    failures: Mapping[int, str]
    """Row -> reason."""
    fields: Sequence[str] | None
    """See `protocols.Writer.commit`."""
    provenance: Provenance
    blocks: RowBlocks
    """In the order of their rows, as often as they are asked for; each row is in one of them."""
    columns: Mapping[str, Sequence[str]]
    """status, error and, where there are any, fields: N texts each."""
    record: str
    """The JSON text that every output holds as its provenance; see `schema.dump_record`."""


class SpooledWriter(ABC):
    """Keeps blocks of rows in a spool until `commit`; see `protocols.Writer` and the module.

    Args:
        path: Of the output.
        layers: With every size known.
        paths: What the rows are called.
        resume: The layout of an earlier writer, whose spool this one goes on with.
    """

    rules: ClassVar[NameRules]
    """For the names of layers in the output."""
    file_format: ClassVar[str]
    """A name in `registry.WRITERS`."""

    def __init__(
        self,
        path: str,
        layers: Sequence[TensorSpec],
        paths: Keys,
        resume: Mapping[str, int] | None = None,
    ) -> None:
        self.path, self._keys = path, paths
        self._layers = stored_layers(layers, 0 if callable(paths) else len(paths), self.rules)
        self._blocks = RowBlocks(self._layers, None if callable(paths) else len(paths), each=True)
        self.layout = self._lay_out()
        check_layout(path, self.layout, resume)
        check_target(path, self.file_format, overwrite=True)
        self._spool = Spool(path, resume=resume is not None)

    def _lay_out(self) -> dict[str, int]:
        """A number for each layer, on which what is in the spool depends."""
        return {layer.layer: 0 for layer in self._layers}

    @abstractmethod
    def _pack(self, start: int, arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
        """Turn a block into what waits in the spool.

        Args:
            start: Row of the first.
            arrays: (n, ...) by layer, as they are stored.
        """

    @abstractmethod
    def _assemble(self, finished: Finished) -> None:
        """Write the output from the blocks, and give it its name. Raises WriteError."""

    def _pieces(self, block: WrittenBlock, wanted: slice = slice(None)) -> list[bytes]:
        """Read what waits of a block. Raises ResumeError where it is damaged."""
        return self._spool.read(block.place, wanted)

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Put a block of rows into the spool."""
        arrays = self._blocks.checked(start, activations)
        rows = max(map(len, arrays.values()), default=0)
        place = self._spool.append(self._pack(start, arrays))
        block = WrittenBlock(start, start + rows, checksums_of(arrays), place)
        self._blocks.adopt(block)
        return block

    def adopt(self, block: WrittenBlock) -> None:
        """Take rows as written. Raises ResumeError where they are gone."""
        self._spool.check(block.place)
        self._blocks.adopt(block)

    def sync(self) -> None:
        """Bring what was written to disk."""
        self._spool.sync()

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Put the output together, name it, and remove the spool."""
        keys = self._keys() if callable(self._keys) else self._keys
        self._blocks.rows = len(keys)
        self._layers = [
            dataclasses.replace(layer, shape=(len(keys), *layer.shape[1:])) for layer in self._layers
        ]
        columns, record = self._blocks.described(keys, provenance, failures, fields)
        self._assemble(Finished(keys, failures, fields, provenance, self._blocks, columns, record))
        self._spool.abort()

    def suspend(self) -> None:
        """Leave the spool for a later writer."""
        self._spool.suspend()

    def abort(self) -> None:
        """Remove the spool; a second call, or one after `commit` or `suspend`, does nothing."""
        self._spool.abort()


class GrowingWriter(SpooledWriter):
    """Rows of an unknown number for a format whose rows have places: they get them when all came.

    Args:
        file_format: A name in `registry.WRITERS`.
        path: Of the output.
        layers: With every size known.
        paths: What the rows are called.
        resume: As for any writer.
    """

    # A spool has no names; those of the output are its writer's business.
    rules = NPZ_NAMES

    def __init__(
        self,
        file_format: str,
        path: str,
        layers: Sequence[TensorSpec],
        paths: Keys,
        resume: Mapping[str, int] | None = None,
    ) -> None:
        self._specs = layers
        self.file_format = file_format  # type: ignore[misc]  # here it is not one for all
        self._writer_class = registry.find(registry.WRITERS, file_format, "format")
        super().__init__(path, layers, paths, resume)

    def _pack(self, start: int, arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
        return [array.reshape(-1).view(np.uint8).data for array in arrays.values()]

    def _assemble(self, finished: Finished) -> None:
        with ExitStack() as on_error:
            writer: Writer = self._writer_class(self.path, self._specs, finished.keys)
            on_error.callback(writer.abort)
            for block in finished.blocks:
                pieces = zip(self._layers, self._pieces(block), strict=True)
                rows = block.stop - block.start
                writer.write(
                    block.start,
                    {
                        layer.layer: np.frombuffer(piece, np.uint8)
                        .view(layer.dtype)
                        .reshape(rows, *layer.shape[1:])
                        for layer, piece in pieces
                    },
                )
            writer.commit(finished.failures, finished.provenance, finished.fields)
