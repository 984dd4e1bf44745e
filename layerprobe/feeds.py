"""One feed per input of the model: from a sample to the row that the model takes."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from layerprobe.decode import MAX_PIXELS, decode
from layerprobe.errors import SampleError, UsageError
from layerprobe.plan import channels_first
from layerprobe.preprocess import enough, preprocess
from layerprobe.records import Failure, Preprocessing, Sample, TensorSpec

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.records import Array

Stage = Literal["read", "decode", "preprocess"]

KEYS_AT_ONCE = 10_000
"""So many names are hashed in one step."""


class Clock:
    """Seconds per stage, added up over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, since: float) -> float:
        """Count the time from `since` (of `time.perf_counter`) to now; gives now."""
        now = time.perf_counter()
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now


class ImageFeed:
    """Image files for one input of the model.

    Args:
        spec: The input, as the model declares it.
        source: Its images.
        preprocessing: How they are made fit.
        max_pixels: Larger images are refused; None for the decoder's own limit.
        clock: Counts the seconds of each stage.
    """

    def __init__(
        self,
        spec: TensorSpec,
        source: Source,
        preprocessing: Preprocessing,
        max_pixels: int | None,
        clock: Clock,
    ) -> None:
        self.source = source
        self.preprocessing = preprocessing
        self._first = channels_first(spec)
        self._max_pixels = max_pixels or MAX_PIXELS
        self._enough = partial(enough, spec=preprocessing) if preprocessing.fast_decode else None
        self._clock = clock
        self.animated = 0
        """Images of several frames, of which the first was taken."""
        (height, width), channels = preprocessing.size, preprocessing.channels
        shape = (channels, height, width) if self._first else (height, width, channels)
        self.spec = TensorSpec(spec.name, shape, spec.dtype)

    def row(self, sample: Sample) -> Array:
        """Read, decode and preprocess one image -> `spec.shape`, `spec.dtype`. Raises _Failed."""
        stage: Stage = "read"
        now = time.perf_counter()
        try:
            data = cast(bytes, sample.read())
            now, stage = self._clock.add("read", now), "decode"
            how = self.preprocessing
            decoded = decode(
                data,
                exif=how.exif,
                channels=how.channels,
                background=how.background,
                max_pixels=self._max_pixels,
                enough=self._enough,
            )
            self.animated += decoded.frames > 1
            now, stage = self._clock.add("decode", now), "preprocess"
            row = preprocess(decoded.image, how)
            if self._first:
                row = np.moveaxis(row, 2, 0)
            return row.astype(self.spec.dtype, copy=False)
        except SampleError as error:
            raise _Failed(stage, str(error)) from error
        finally:
            self._clock.add(stage, now)


class ArrayFeed:
    """Rows of arrays for one input of the model, taken as they are.

    Args:
        spec: The input, as the model declares it; free sizes take the array's.
        source: An `ArraySource`.
        clock: Counts the seconds of reading.

    Raises:
        UsageError: The rows do not have the input's shape.
    """

    preprocessing = None
    animated = 0

    def __init__(self, spec: TensorSpec, source: Source, clock: Clock) -> None:
        self.source = source
        self._clock = clock
        shape: tuple[int, ...] = source.row_shape  # type: ignore[attr-defined]
        fits = len(shape) == len(spec.shape) and all(
            wanted in (None, size) for size, wanted in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"input {spec.name!r} takes arrays of shape {_readable(('N', *spec.shape))}: reshape it. "
                f"Received: {_readable(('N', *shape))}"
            )
        self.spec = TensorSpec(spec.name, shape, spec.dtype)

    def row(self, sample: Sample) -> Array:
        """Read one row -> `spec.shape`, `spec.dtype`. Raises _Failed."""
        now = time.perf_counter()
        try:
            return np.asarray(sample.read()).astype(self.spec.dtype, copy=False)
        except SampleError as error:
            raise _Failed("read", str(error)) from error
        finally:
            self._clock.add("read", now)


Feed = ImageFeed | ArrayFeed


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
        self.animated_elsewhere = 0
        """Those that other processes came across."""
        images = [feed for feed in feeds if isinstance(feed, ImageFeed)]
        self.preprocessing = images[0].preprocessing if images else None
        self._named = images[0] if images else feeds[0]
        check_equal_lengths({feed.spec.name: feed.source for feed in feeds})
        rows = len(self._named.source)
        self.listed = rows if limit is None else min(rows, limit)
        """How many rows the list of inputs has, of which these are all, or a part."""
        self.place = range(self.listed)
        """Which of them these are."""

    def __len__(self) -> int:
        return len(self.place)

    def take(self, place: range) -> None:
        """Keep only some rows of the list, one after the other; they are counted from 0 again."""
        self.place = place

    def samples(self) -> Iterator[tuple[Sample, ...]]:
        """One sample of every feed for each row, in order; nothing is opened."""
        rows = zip(*(feed.source for feed in self._feeds), strict=True)
        return itertools.islice(rows, self.place.start, self.place.stop)

    def keys(self) -> list[str]:
        """What each row is called: after its image where there is one."""
        source = itertools.islice(self._named.source, self.place.start, self.place.stop)
        return [sample.key for sample in source]

    def part(self, shard: str | None) -> dict[str, Any] | None:
        """Say which rows of which list these are, for the provenance; None where they are no shard."""
        if shard is None:
            return None
        place = [self.place.start, self.place.stop]
        return {"shard": shard, "rows": place, "listed": self.listed, "sha256_of_names": self.digest}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what all rows of the list are called, as hexadecimal digits."""
        found = sha256()
        keys = (sample.key for sample in itertools.islice(self._named.source, self.listed))
        while some := list(itertools.islice(keys, KEYS_AT_ONCE)):
            found.update("".join(f"{key}\0" for key in some).encode("utf-8", "surrogatepass"))
        return found.hexdigest()

    def empty(self, size: int) -> list[Array]:
        """Memory for `size` rows of each input of the model."""
        return [np.empty((size, *cast(tuple[int, ...], spec.shape)), spec.dtype) for spec in self.specs]

    def file_states(self, samples: tuple[Sample, ...]) -> bytes:
        """Say which version of its files one row is made of: their sizes and times, as they are now."""
        return b" ".join(map(_file_state, samples))

    def fill(self, samples: tuple[Sample, ...], places: Sequence[Array]) -> Failure | None:
        """Put one row of each input in its place, or say why there is none. Runs in worker threads."""
        for feed, sample, place in zip(self._feeds, samples, places, strict=True):
            try:
                place[...] = feed.row(sample)
            except _Failed as failed:
                return Failure(sample.index - self.place.start, sample.key, failed.stage, failed.reason)
        return None

    @property
    def animated(self) -> int:
        """Images of several frames, of which the first was taken."""
        return self.animated_elsewhere + sum(feed.animated for feed in self._feeds)


def check_equal_lengths(sources: Mapping[str, Source]) -> None:
    """Raise UsageError unless every input of the model has as many rows."""
    counts = {name: len(source) for name, source in sources.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise UsageError(f"the model's inputs need equally many rows. Received: {listed}")


def _file_state(sample: Sample) -> bytes:
    if not sample.file:
        return b""
    try:
        found = os.stat(sample.file)
    except (OSError, ValueError):
        return b"-"
    return b"%d:%d" % (found.st_size, found.st_mtime_ns)


class _Failed(Exception):
    """One input of one row is broken; becomes its `Failure`."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


def _readable(shape: Sequence[object]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
