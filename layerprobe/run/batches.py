"""Rows put together to batches ahead of the engine, in threads, in memory that is used again and again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.errors import ResourceError
from layerprobe.options import ExtractOptions
from layerprobe.processors import processors
from layerprobe.records import Batch
from layerprobe.run.earlier_rows import digest_of
from layerprobe.run.feeds import Feeds, Fill, Filled
from layerprobe.run.prefetch import ordered_map
from layerprobe.run.ranges import together

if TYPE_CHECKING:
    from layerprobe.records import Array
    from layerprobe.run.entries import Entry

PART_BYTES = 2**20
"""Of the inputs of so many rows, where a thread reads several in one step."""
STATES_AT_ONCE = 512
"""So many files a thread looks at in one step."""
FAR_THREADS = 16
"""Threads that read through a network, where each waits most of the time, or look at files anywhere."""


def batches(
    feeds: Feeds,
    size: int,
    workers: int,
    wanted: Sequence[int] | None = None,
    room: Callable[[int], bool] = lambda row_bytes: False,
) -> Generator[Batch, None, None]:
    """Read, decode and preprocess rows; give them `size` at a time, in order.

    The threads write each row where the engine will read it. While the caller holds two batches (one being
    computed, one waiting for that), a third is filled; memory for more is never taken, because fresh pages
    cost as much time as filling them.

    Args:
        feeds: The model's inputs, row by row.
        size: B.
        workers: How many threads.
        wanted: First rows of the batches; None: all.
        room: Makes room where there is no memory for rows of so many bytes; False: it cannot.

    Yields:
        Batches whose `inputs` stay as they are until the second batch after has been asked for.

    Raises:
        ResourceError: There is no memory for the rows.
    """
    needed = batches_ahead(size, workers)
    at_once = min(-(-size // workers), max(1, PART_BYTES // input_bytes(feeds))) if feeds.in_parts else 1
    if wanted is None and feeds.rows is not None:
        wanted = range(0, feeds.rows, size)
    if wanted is not None:
        needed = min(needed, len(wanted))
    buffers = _buffers(feeds, size, needed, room)
    starts = iter(wanted) if wanted is not None else _starts_of_stream(feeds, size)

    def fill(part: tuple[int, int, Fill]) -> Filled:
        count, rows, put = part
        batch, place = divmod(count, size)
        return put([array[place : place + rows] for array in buffers[batch % len(buffers)]])

    parts = feeds.parts(None if wanted is None else _ranges(wanted, size, len(feeds)), at_once)
    window = -(-max(size, workers) // at_once)
    filled = ordered_map(fill, _counted(parts), workers=workers, window=window)
    with closing(filled):
        for number, taken in enumerate(_whole(filled, size)):
            yield _batch(next(starts), taken, buffers[number % len(buffers)])


def _counted(parts: Iterable[tuple[int, Fill]]) -> Iterator[tuple[int, int, Fill]]:
    """How many rows come before each part, how many it has, and what fills them."""
    count = 0
    for rows, put in parts:
        yield count, rows, put
        count += rows


def _whole(filled: Iterable[Filled], size: int) -> Iterator[list[Filled]]:
    """The parts of one batch after the other; the last batch may be shorter."""
    taken: list[Filled] = []
    missing = size
    for part in filled:
        taken.append(part)
        missing -= len(part.failures)
        if not missing:
            yield taken
            taken, missing = [], size
    if taken:
        yield taken


def _buffers(feeds: Feeds, size: int, count: int, room: Callable[[int], bool]) -> list[list[Array]]:
    """Memory for so many batches."""
    while True:
        try:
            return [feeds.empty(size) for _ in range(count)]
        except MemoryError:
            pass
        row_bytes = input_bytes(feeds)
        if not room(row_bytes):
            raise ResourceError(
                f"not enough memory for {count * size} rows at a time, of {row_bytes:,} bytes of input each: "
                "give a smaller --batch-size."
            )


def input_bytes(feeds: Feeds) -> int:
    """Of one row of all inputs of the model."""
    return sum(array.nbytes for array in feeds.empty(1))


def batches_ahead(size: int, workers: int) -> int:
    """How many batches of inputs are in memory at most: one computed, one waiting, and those being filled."""
    return 2 + -(-max(size, workers) // size)


def worker_threads(how: ExtractOptions, feeds: Feeds) -> int:
    """How many threads read, decode and preprocess; what comes through a network is waited for in more."""
    return threads(how, feeds.far)


def threads(how: ExtractOptions, far: bool) -> int:
    """The same, where only `far` is known: whether anything comes through a network."""
    if isinstance(how.workers, int) and how.cluster is None:
        return how.workers
    return max(len(processors()), FAR_THREADS if far else 1)


def unchanged(feeds: Feeds, size: int, entries: Sequence[Entry]) -> list[Entry]:
    """Leave out the blocks of which a file was changed.

    Args:
        feeds: The model's inputs.
        size: B.
        entries: Blocks of whole batches, in order, as an earlier run noted them.
    """
    ranges = [(entry.block.start, entry.block.stop) for entry in entries]
    some = (
        (first, min(first + STATES_AT_ONCE, stop))
        for start, stop in together(ranges, STATES_AT_ONCE)
        for first in range(start, stop, STATES_AT_ONCE)
    )
    looked = ordered_map(lambda rows: feeds.states(*rows), some, workers=FAR_THREADS, window=4 * FAR_THREADS)
    with closing(looked):
        states = itertools.chain.from_iterable(looked)
        return [
            entry
            for entry, (start, stop) in zip(entries, ranges, strict=True)
            if joined_digest(_digests(states, stop - start, size)) == entry.files
        ]


def joined_digest(digests: Sequence[str]) -> str:
    """Of the files of several batches, of each `Batch.files`; that of one is its own."""
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()[:16]


def _digests(states: Iterator[bytes], rows: int, size: int) -> list[str]:
    return [
        digest_of(list(itertools.islice(states, min(size, rows - start)))) for start in range(0, rows, size)
    ]


def _starts_of_stream(feeds: Feeds, size: int) -> Iterator[int]:
    return (start for start in itertools.count(0, size) if not feeds.earlier or start not in feeds.earlier)


def _ranges(starts: Iterable[int], size: int, rows: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, rows)) for start in starts)


def _batch(start: int, taken: Sequence[Filled], arrays: Sequence[Array]) -> Batch:
    outcomes, states, named, frames = (
        list(itertools.chain.from_iterable(column)) for column in zip(*taken, strict=True)
    )
    good = [place for place, failure in enumerate(outcomes) if failure is None]
    whole = len(good) == len(outcomes)
    return Batch(
        start=start,
        size=len(outcomes),
        rows=good,
        inputs=tuple(array[: len(good)] if whole else array[np.array(good, int)] for array in arrays),
        failures=tuple(failure for failure in outcomes if failure is not None),
        files=digest_of(states),
        keys=[row.key for row in named],
        fields=[row.fields for row in named],
        frames=frames,
    )
