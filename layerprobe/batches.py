"""Rows put together to batches ahead of the engine, in threads, in memory that is used again and again."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.feeds import Feeds
from layerprobe.prefetch import ordered_map
from layerprobe.records import Batch, Failure

if TYPE_CHECKING:
    from layerprobe.records import Array, Sample


def batches(feeds: Feeds, size: int, workers: int) -> Generator[Batch, None, None]:
    """Read, decode and preprocess every row; give them `size` at a time, in order.

    The threads write each row where the engine will read it. While the caller holds two batches (one being
    computed, one waiting for that), a third is filled; memory for more is never taken, because fresh pages
    cost as much time as filling them.

    Args:
        feeds: The model's inputs, row by row.
        size: B.
        workers: How many threads.

    Yields:
        Batches whose `inputs` stay as they are until the second batch after has been asked for.
    """
    window = max(size, workers)
    buffers = [feeds.empty(size) for _ in range(min(2 + -(-window // size), -(-len(feeds) // size)))]

    def fill(numbered: tuple[int, tuple[Sample, ...]]) -> Failure | None:
        row, samples = numbered
        batch, place = divmod(row, size)
        return feeds.fill(samples, [array[place] for array in buffers[batch % len(buffers)]])

    outcomes = ordered_map(fill, enumerate(feeds.samples()), workers=workers, window=window)
    with closing(outcomes):
        for number, start in enumerate(range(0, len(feeds), size)):
            yield _batch(start, list(itertools.islice(outcomes, size)), buffers[number % len(buffers)])


def _batch(start: int, outcomes: Sequence[Failure | None], arrays: Sequence[Array]) -> Batch:
    good = [place for place, failure in enumerate(outcomes) if failure is None]
    whole = len(good) == len(outcomes)
    return Batch(
        start=start,
        size=len(outcomes),
        rows=good,
        inputs=tuple(array[: len(good)] if whole else array[np.array(good, int)] for array in arrays),
        failures=tuple(failure for failure in outcomes if failure is not None),
    )
