"""Rows put together to batches ahead of the engine, in threads, in memory that is used again and again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Container, Generator, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from layerprobe.records import Batch, ExtractOptions, Failure
from layerprobe.run.feeds import Feeds
from layerprobe.run.prefetch import ordered_map

if TYPE_CHECKING:
    from layerprobe.records import Array, Sample

FAR_THREADS = 16
"""Threads that read through a network, where each waits most of the time."""


def batches(feeds: Feeds, size: int, workers: int, done: Container[int] = ()) -> Generator[Batch, None, None]:
    """Read, decode and preprocess every row; give them `size` at a time, in order.

    The threads write each row where the engine will read it. While the caller holds two batches (one being
    computed, one waiting for that), a third is filled; memory for more is never taken, because fresh pages
    cost as much time as filling them.

    Args:
        feeds: The model's inputs, row by row.
        size: B.
        workers: How many threads.
        done: First rows of batches that are left out.

    Yields:
        Batches whose `inputs` stay as they are until the second batch after has been asked for.
    """
    window = max(size, workers)
    needed = batches_ahead(size, workers)
    if feeds.rows is not None:
        needed = min(needed, sum(start not in done for start in range(0, feeds.rows, size)))
    buffers = [feeds.empty(size) for _ in range(needed)]
    starts = (start for start in itertools.count(0, size) if start not in done)
    wanted = (samples for row, samples in enumerate(feeds.samples()) if row - row % size not in done)

    def fill(numbered: tuple[int, tuple[Sample, ...]]) -> _Filled:
        count, samples = numbered
        batch, place = divmod(count, size)
        # Before it is read: if it is changed in between, that shows later.
        states = feeds.file_states(samples)
        failure = feeds.fill(samples, [array[place] for array in buffers[batch % len(buffers)]])
        named = feeds.named(samples)
        return _Filled(failure, states, named.key, named.fields)

    outcomes = ordered_map(fill, enumerate(wanted), workers=workers, window=window)
    with closing(outcomes):
        number = 0
        while taken := list(itertools.islice(outcomes, size)):
            yield _batch(next(starts), taken, buffers[number % len(buffers)])
            number += 1


def batches_ahead(size: int, workers: int) -> int:
    """How many batches of inputs are in memory at most: one computed, one waiting, and those being filled."""
    return 2 + -(-max(size, workers) // size)


def worker_threads(how: ExtractOptions, feeds: Feeds) -> int:
    """How many threads read, decode and preprocess; what comes through a network is waited for in more."""
    return how.workers or max(len(os.sched_getaffinity(0)), FAR_THREADS if feeds.far else 1)


def changed_batches(feeds: Feeds, size: int, earlier: Mapping[int, str]) -> set[int]:
    """Find the batches of which a file was changed.

    Args:
        feeds: The model's inputs.
        size: B.
        earlier: First row -> what `Batch.files` was.

    Returns:
        First rows.
    """
    states: dict[int, list[bytes]] = {start: [] for start in earlier}
    rows = ((row - row % size, samples) for row, samples in enumerate(feeds.samples()))
    known = ((start, samples) for start, samples in rows if start in states)

    def state(of: tuple[int, tuple[Sample, ...]]) -> tuple[int, bytes]:
        return of[0], feeds.file_states(of[1])

    found = ordered_map(state, known, workers=FAR_THREADS, window=4 * FAR_THREADS) if feeds.far else None
    for start, told in map(state, known) if found is None else found:
        states[start].append(told)
    return {start for start, files in earlier.items() if _digest(states[start]) != files}


def _digest(states: Sequence[bytes]) -> str:
    return sha256(b"\n".join(states)).hexdigest()[:16]


class _Filled(NamedTuple):
    """One row that stands in its place."""

    failure: Failure | None
    states: bytes
    key: str
    fields: str


def _batch(start: int, taken: Sequence[_Filled], arrays: Sequence[Array]) -> Batch:
    outcomes = [filled.failure for filled in taken]
    good = [place for place, failure in enumerate(outcomes) if failure is None]
    whole = len(good) == len(outcomes)
    return Batch(
        start=start,
        size=len(outcomes),
        rows=good,
        inputs=tuple(array[: len(good)] if whole else array[np.array(good, int)] for array in arrays),
        failures=tuple(failure for failure in outcomes if failure is not None),
        files=_digest([filled.states for filled in taken]),
        keys=[filled.key for filled in taken],
        fields=[filled.fields for filled in taken],
    )
