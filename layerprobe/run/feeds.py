"""All inputs of the model, side by side: what its rows are called, and where they come from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from hashlib import sha256
from itertools import starmap
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from layerprobe.columns import Column, Packed
from layerprobe.errors import SampleError
from layerprobe.records import Failure, Sample
from layerprobe.run.earlier_rows import EarlierRows, Named
from layerprobe.run.feed import ArrayFeed, Feed, ImageFeed, RowError
from layerprobe.run.lengths import check_equal_lengths, length
from layerprobe.run.ranges import together

if TYPE_CHECKING:
    from layerprobe.records import Array

KEYS_AT_ONCE = 1000
"""So many names are hashed in one step."""


class Filled(NamedTuple):
    """Consecutive rows, each in its place or with the reason why it is not."""

    failures: Sequence[Failure | None]
    states: Sequence[bytes]
    """`Feeds.file_states` of each, from before it was read."""
    named: Sequence[Named]
    frames: Sequence[int]
    """How many images of each have several frames, of which the first was taken."""


Fill = Callable[[Sequence["Array"]], Filled]
"""Puts rows in their places, an array for each input of the model. Runs in worker threads."""


class Feeds:
    """All inputs of the model, side by side: row i holds sample i of every feed.

    Args:
        feeds: One per input, in the model's order.
        limit: Only the first so many rows; None for all.

    Raises:
        UsageError: The feeds do not have equally many rows.
    """

    def __init__(self, feeds: Sequence[Feed], limit: int | None = None) -> None:
        self._feeds = feeds
        self.specs = tuple(feed.spec for feed in feeds)
        images = [feed for feed in feeds if isinstance(feed, ImageFeed)]
        self.preprocessing = images[0].preprocessing if images else None
        self._naming = feeds.index(images[0]) if images else 0
        self._named = feeds[self._naming]
        check_equal_lengths({feed.spec.name: feed.source for feed in feeds})
        self._limit = limit
        rows = length(self._named.source)
        self._rows = rows if rows is None or limit is None else min(rows, limit)
        self._came: Packed[Named] = Packed()
        """The rows of a stream, as far as it was read."""
        self.earlier: EarlierRows | None = None
        """Those of a stream that an earlier run has done."""
        self._place: range | None = None

    def __len__(self) -> int:
        return len(self.place)

    @property
    def far(self) -> bool:
        """Whether any of them are read through a network."""
        return any(getattr(feed.source, "far", False) for feed in self._feeds)

    @property
    def rows(self) -> int | None:
        """N, before the first sample is read; None for a stream, where only its end tells."""
        return None if self._rows is None else len(self)

    @property
    def listed(self) -> int:
        """How many rows the list has, of which these are all or a part; of a stream, those that came."""
        return len(self._came) if self._rows is None else self._rows

    @property
    def place(self) -> range:
        """Which of them these are."""
        return range(self.listed) if self._place is None else self._place

    def take(self, place: range) -> None:
        """Keep only some rows of the list, one after the other; they are counted from 0 again."""
        self._place = place

    def samples(self, ranges: Iterable[tuple[int, int]] | None = None) -> Iterator[tuple[Sample, ...]]:
        """One sample of every feed for each row, in order; nothing is opened.

        Args:
            ranges: Only these rows, first and one after the last, in order; None: all. Of a stream it is
                all but those that an earlier run has done.
        """
        if self._rows is None:
            return self._noted(itertools.islice(self._side_by_side(), self._limit))
        wanted = [(0, len(self))] if ranges is None else ranges
        return self._placed((start + self.place.start, stop + self.place.start) for start, stop in wanted)

    def _side_by_side(self) -> Iterator[tuple[Sample, ...]]:
        return zip(*(feed.source for feed in self._feeds), strict=True)

    def _placed(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[Sample, ...]]:
        sources = [feed.source for feed in self._feeds]
        if all(hasattr(source, "rows") for source in sources):
            for start, stop in together(ranges, KEYS_AT_ONCE):
                yield from zip(*(source.rows(start, stop) for source in sources), strict=True)  # type: ignore[attr-defined]
            return
        rows, at = self._side_by_side(), 0
        for start, stop in ranges:
            yield from itertools.islice(rows, start - at, stop - at)
            at = stop

    def _noted(self, rows: Iterator[tuple[Sample, ...]]) -> Iterator[tuple[Sample, ...]]:
        """Keep what the rows of a stream are called: it cannot be asked again."""
        for row, samples in enumerate(rows):
            named = self.named(samples)
            self._came.append(named)
            if self.earlier is not None and row in self.earlier:
                self.earlier.compare(row, named, self.file_states(samples))
            else:
                yield samples
        if self.earlier is not None:
            self.earlier.end(len(self._came))

    def named(self, samples: tuple[Sample, ...]) -> Named:
        """What a row is called and what is said of it: after its image where there is one."""
        return Named(samples[self._naming].key, samples[self._naming].fields)

    def _names(self, start: int, stop: int) -> Sequence[tuple[str, str]]:
        """Key and fields of rows of the list; of a stream, of those that came."""
        if self._rows is None:
            return self._came[start:stop]
        if hasattr(self._named.source, "names"):
            found: Sequence[tuple[str, str]] = self._named.source.names(start, stop)
            return found
        return self._all_names[start:stop]

    @cached_property
    def _all_names(self) -> Packed[tuple[str, str]]:
        return Packed((sample.key, sample.fields) for sample in self._named.source)

    def said(self, rows: range) -> list[Named]:
        """What is said of some rows; of a stream, of those that came or that an earlier run has done."""
        if self._rows is not None:
            start = self.place.start
            return list(starmap(Named, self._names(start + rows.start, start + rows.stop)))
        came = self._came[rows.start : rows.stop]
        missing = range(rows.start + len(came), rows.stop)
        return came if self.earlier is None else [*came, *(self.earlier[row] for row in missing)]

    def keys(self) -> Sequence[str]:
        """What each row is called; of a stream, each that came."""
        return self._column(lambda names: [key for key, _ in names])

    def fields(self) -> Sequence[str] | None:
        """What the list of inputs says of each row beside its path; None: nothing of any."""
        fields = self._column(lambda names: [fields for _, fields in names])
        return fields if any(fields) else None

    def _column(self, of: Callable[[Sequence[tuple[str, str]]], Sequence[str]]) -> Column[str]:
        place = self.place
        return Column(
            len(place), lambda start, stop: of(self._names(place.start + start, place.start + stop))
        )

    def part(self, shard: str | None) -> dict[str, Any] | None:
        """Say which rows of which list these are, for the provenance; None where they are no shard."""
        if shard is None:
            return None
        place = [self.place.start, self.place.stop]
        return {"shard": shard, "rows": place, "listed": self.listed, "sha256_of_names": self.digest}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the list says of all its rows, as hexadecimal digits."""
        found = sha256()
        for start in range(0, self.listed, KEYS_AT_ONCE):
            names = self._names(start, min(start + KEYS_AT_ONCE, self.listed))
            texts = (f"{key}\0{fields}\0" if fields else f"{key}\0" for key, fields in names)
            found.update("".join(texts).encode("utf-8", "surrogatepass"))
        return found.hexdigest()

    def empty(self, size: int) -> list[Array]:
        """Memory for `size` rows of each input of the model."""
        return [np.empty((size, *cast(tuple[int, ...], spec.shape)), spec.dtype) for spec in self.specs]

    def file_states(self, samples: tuple[Sample, ...]) -> bytes:
        """Say which version of its files one row is made of, as they are now."""
        return b" ".join(b"" if sample.state is None else sample.state() for sample in samples)

    def states(self, start: int, stop: int) -> list[bytes]:
        """`file_states` of the rows from one to before another, without their samples where a source can."""
        start, stop = start + self.place.start, stop + self.place.start
        sources = [feed.source for feed in self._feeds]
        if not all(hasattr(source, "states") for source in sources):
            return [self.file_states(samples) for samples in self._placed([(start, stop)])]
        found = [source.states(start, stop) for source in sources]  # type: ignore[attr-defined]
        return [b" ".join(row) for row in zip(*found, strict=True)]

    @property
    def in_parts(self) -> bool:
        """Whether many rows can be read in one step."""
        return self._rows is not None and all(
            isinstance(feed, ArrayFeed) and hasattr(feed.source, "values") for feed in self._feeds
        )

    def parts(self, ranges: Iterable[tuple[int, int]] | None, most: int) -> Iterator[tuple[int, Fill]]:
        """Say how rows are filled, in order: how many at a time, and with what.

        Args:
            ranges: As for `samples`; no part has rows of two of them.
            most: So many rows are filled in one step, where they can be read so; else it is one.
        """
        if ranges is None or not self.in_parts:
            return ((1, partial(self._fill_row, samples)) for samples in self.samples(ranges))
        starts = ((first, stop) for start, stop in ranges for first in range(start, stop, most))
        parts = ((first, min(first + most, stop)) for first, stop in starts)
        return ((stop - first, partial(self._fill_rows, first, stop)) for first, stop in parts)

    def _fill_rows(self, start: int, stop: int, places: Sequence[Array]) -> Filled:
        # Before they are read: if one is changed in between, that shows later.
        states, first = self.states(start, stop), self.place.start
        try:
            for feed, place in zip(self._feeds, places, strict=True):
                cast(ArrayFeed, feed).fill(first + start, first + stop, place)
        except SampleError:
            return self._fill_one_by_one(start, stop, places)
        rows = stop - start
        return Filled([None] * rows, states, self.said(range(start, stop)), [0] * rows)

    def _fill_one_by_one(self, start: int, stop: int, places: Sequence[Array]) -> Filled:
        """Find out which of the rows it is that cannot be read."""
        one_by_one = [
            self._fill_row(samples, [place[row : row + 1] for place in places])
            for row, samples in enumerate(self.samples([(start, stop)]))
        ]
        columns = zip(*one_by_one, strict=True)
        return Filled(*(list(itertools.chain.from_iterable(column)) for column in columns))

    def _fill_row(self, samples: tuple[Sample, ...], places: Sequence[Array]) -> Filled:
        states, named = self.file_states(samples), self.named(samples)
        failure, several = None, 0
        for feed, sample, place in zip(self._feeds, samples, places, strict=True):
            try:
                place[0], has_several = feed.row(sample)
            except RowError as error:
                row = sample.index - self.place.start
                failure = Failure(row, sample.key, error.stage, error.reason)
                break
            several += has_several
        return Filled([failure], [states], [named], [several])
