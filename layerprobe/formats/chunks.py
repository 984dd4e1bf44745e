"""How compressed arrays are cut into chunks: of some rows, or of a part of one; each is compressed alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from layerprobe.formats.rows import StoredLayer
    from layerprobe.records import Array

CHUNK_BYTES = 1 << 20
"""No chunk is larger: so much is decompressed to read one value, and so much HDF5 keeps of each dataset."""
LEAST_CHUNK_BYTES = 1 << 16
"""Smaller ones, of very many rows, would make what says where they are larger than they."""


def chunk_shape(layer: StoredLayer, rows: int | None, batch_size: int) -> tuple[int, ...]:
    """Choose the shape of one chunk of a layer.

    Args:
        layer: Of which no size but N is 0.
        rows: N; None where it is not known yet.
        batch_size: B: where a batch can be cut into chunks it is compressed at once.

    Returns:
        As many sizes as the layer's array has, each 1 or more.
    """
    if layer.row_bytes > CHUNK_BYTES:
        return 1, *_part_of_row(layer.shape[1:], layer.dtype.itemsize)
    most = CHUNK_BYTES // layer.row_bytes
    within = max(count for count in range(1, min(most, batch_size) + 1) if not batch_size % count)
    count = within if within * layer.row_bytes >= LEAST_CHUNK_BYTES else most
    return count if rows is None else min(count, rows), *layer.shape[1:]


def _part_of_row(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Cut a row that is too large, along the first axis where that is enough."""
    sizes = list(shape)
    for axis, size in enumerate(shape):
        rest = prod(shape[axis + 1 :]) * itemsize
        if rest <= CHUNK_BYTES:
            # Parts of one size, not many large ones and a small one.
            parts = -(-size // (CHUNK_BYTES // rest))
            sizes[axis] = -(-size // parts)
            break
        sizes[axis] = 1
    return tuple(sizes)


def chunks_of(array: Array, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Cut (n, ...) rows into chunks.

    Args:
        array: The rows.
        shape: Of a chunk.

    Yields:
        Where each begins in the array, in C order of these places; and the chunk itself, C-contiguous, with
        zeros where the array has ended.
    """
    for place in chunk_places(array.shape, shape):
        part = array[tuple(slice(at, at + size) for at, size in zip(place, shape, strict=True))]
        if part.shape != shape:
            whole = np.zeros(shape, array.dtype)
            whole[tuple(map(slice, part.shape))] = part
            part = whole
        yield place, np.ascontiguousarray(part)


def chunk_places(array: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Say where the chunks of an array begin, from its shape and theirs."""
    return product(*(range(0, size, step) for size, step in zip(array, chunk, strict=True)))
