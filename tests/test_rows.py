"""What is kept of the blocks of rows of an output."""

import random
import zlib
from itertools import pairwise

import numpy as np
import pytest

from layerprobe.formats.rows import CHECKED_PARTS, RowBlocks, StoredLayer
from layerprobe.records import WrittenBlock


def layer(rows: int, name: str = "map", width: int = 3) -> StoredLayer:
    return StoredLayer(name, name, np.dtype("uint8"), "uint8", (rows, width))


def cut(rows: int, chance: random.Random, most: int) -> list[tuple[int, int]]:
    ends = [0]
    while ends[-1] < rows:
        ends.append(min(rows, ends[-1] + chance.randint(1, most)))
    return list(pairwise(ends))


def by_hand(values: np.ndarray, blocks: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """A part begins with the first block that is far enough from where the one before begins."""
    least = -(-len(values) // CHECKED_PARTS)
    starts = [0]
    for start, _ in blocks:
        if start - starts[-1] >= least:
            starts.append(start)
    return starts, [zlib.crc32(values[a:b].tobytes()) for a, b in pairwise([*starts, len(values)])]


@pytest.mark.parametrize("order", ["as they are", "nearly", "any", "from the end"])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(("rows", "most"), [(1, 1), (999, 3), (5000, 1), (5000, 40), (20_000, 7)])
def test_checksums_are_those_of_the_bytes_in_whatever_order_blocks_come(
    rows: int, most: int, each: bool, order: str
) -> None:
    chance = random.Random(f"{rows} {most}")
    values = np.random.default_rng(rows).integers(0, 256, (rows, 3), np.uint8)
    cuts = cut(rows, chance, most)
    keys = {
        "as they are": lambda at: at,
        "nearly": lambda at: at + 20 * chance.random(),
        "any": lambda at: chance.random(),
        "from the end": lambda at: -at,
    }
    blocks = RowBlocks([layer(rows), layer(rows, "other")], rows, each=each)
    for at in sorted(range(len(cuts)), key=keys[order]):
        start, stop = cuts[at]
        checksum = zlib.crc32(values[start:stop].tobytes())
        blocks.adopt(WrittenBlock(start, stop, {"map": checksum, "other": checksum}))
    starts, checksums = by_hand(values, cuts)
    assert blocks.checksums() == {"rows": starts, "crc32": {"map": checksums, "other": checksums}}
    assert len(blocks) == (len(cuts) if each else len(starts))


def test_what_is_kept_does_not_grow_with_the_blocks() -> None:
    rows = 200_000
    blocks = RowBlocks([layer(rows)], rows)
    most = 0
    for span in range(0, rows, 50):
        # Two workers, each with a part of the span.
        for start in (*range(span + 25, span + 50), *range(span, span + 25)):
            blocks.adopt(WrittenBlock(start, start + 1, {"map": start}))
            most = max(most, len(blocks))
    assert len(blocks) == CHECKED_PARTS
    assert most <= CHECKED_PARTS + 25


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("again", [(0, 1), (5, 6), (9, 11), (10, 11), (0, 30), (15, 16), (28, 31), (-1, 0)])
def test_rows_that_came_are_refused(each: bool, again: tuple[int, int]) -> None:
    blocks = RowBlocks([layer(30)], 30, each=each)
    for start, stop in ((0, 5), (5, 10), (15, 16), (28, 30), (10, 11)):
        blocks.adopt(WrittenBlock(start, stop, {"map": 0}))
    with pytest.raises(ValueError, match="announced"):
        blocks.adopt(WrittenBlock(*again, {"map": 0}))
    with pytest.raises(ValueError, match="only 14 of 30 rows"):
        blocks.checksums()
