"""Blocks of rows that are noted together as one: a journal stays small, however small the batches are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layerprobe.formats.rows import combined, least_part
from layerprobe.formats.space import row_bytes
from layerprobe.records import WrittenBlock
from layerprobe.run.batches import joined_digest
from layerprobe.run.entries import Entry

if TYPE_CHECKING:
    from layerprobe.records import TensorSpec


class Joining:
    """Joins the blocks of neighbouring batches, none across the parts of which an output has checksums.

    So the checksums that the output gets are the same whatever was joined, and whoever wrote the rows.

    Args:
        stored: What is stored.
        rows: N.
        batch_size: B.
    """

    def __init__(self, stored: Sequence[TensorSpec], rows: int, batch_size: int) -> None:
        self._part = max(1, -(-least_part(rows) // batch_size)) * batch_size
        self._row_bytes = {spec.name: row_bytes(spec) for spec in stored}

    def joined(self, entries: Sequence[Entry]) -> list[Entry]:
        """Give fewer blocks for those of single batches, in the order of rows."""
        found: list[Entry] = []
        run: list[Entry] = []
        for entry in sorted(entries, key=lambda entry: entry.block.start):
            if run and not self._touch(run[-1], entry):
                found.append(self._one(run))
                run = []
            run.append(entry)
        return [*found, self._one(run)] if run else found

    def _touch(self, first: Entry, second: Entry) -> bool:
        one, two = first.block, second.block
        # A place in a spool is of one block; names are a stream's, whose N is not known.
        alone = one.place or two.place or first.keys or second.keys
        return not alone and one.stop == two.start and one.start // self._part == two.start // self._part

    def _one(self, entries: Sequence[Entry]) -> Entry:
        if len(entries) == 1:
            return entries[0]
        blocks = [entry.block for entry in entries]
        overflows: dict[str, int] = {}
        for entry in entries:
            for layer, count in entry.overflows.items():
                overflows[layer] = overflows.get(layer, 0) + count
        return Entry(
            WrittenBlock(blocks[0].start, blocks[-1].stop, self._checksums(blocks)),
            tuple(failure for entry in entries for failure in entry.failures),
            joined_digest([entry.files for entry in entries]),
            sum(entry.several_frames for entry in entries),
            overflows,
        )

    def _checksums(self, blocks: Sequence[WrittenBlock]) -> Mapping[str, int]:
        found = dict(blocks[0].checksums)
        for block in blocks[1:]:
            for layer, checksum in block.checksums.items():
                size = (block.stop - block.start) * self._row_bytes[layer]
                found[layer] = combined(found[layer], checksum, size)
        return found
