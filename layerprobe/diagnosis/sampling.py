"""Some of many images, spread over their list; each decoded once, however many ways it is prepared."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

import numpy as np

from layerprobe.errors import SampleError
from layerprobe.images.decode import MAX_PIXELS, decode
from layerprobe.images.preprocess import resize
from layerprobe.records import Failure, Preprocessing, Sample
from layerprobe.run.prefetch import ordered_map

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.records import Array


class SampledSource:
    """Some images of a source, as a source of their own; the same ones of the same list, always.

    Args:
        source: All images; not a stream.
        rows: So many of it count, the first ones.
        count: How many are taken, each from the middle of a part of the list, all parts of one length.
    """

    kind = "images"

    def __init__(self, source: Source, rows: int, count: int) -> None:
        self.far: bool = getattr(source, "far", False)
        """Whether any of them are read through a network."""
        self.places = spread(rows, count)
        self._samples = list(_at(source, self.places))

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        for row, sample in enumerate(self._samples):
            yield dataclasses.replace(sample, index=row)


def _at(source: Source, places: Sequence[int]) -> Iterator[Sample]:
    """The samples of a source at certain places, which are in order."""
    if (rows := getattr(source, "rows", None)) is not None:
        for place in places:
            yield from rows(place, place + 1)
        return
    wanted = set(places)
    taken = itertools.islice(iter(source), places[-1] + 1 if places else 0)
    yield from (sample for place, sample in enumerate(taken) if place in wanted)


def spread(rows: int, count: int) -> list[int]:
    """The middles of `count` equal parts of `rows` rows; all of them where there are no more."""
    if rows <= count:
        return list(range(rows))
    return [(2 * part + 1) * rows // (2 * count) for part in range(count)]


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What one image is like, before its pixels are scaled."""

    size: tuple[int, int]
    """(width, height), upright."""
    grey: bool
    """Whether its channels are alike."""
    plain: bool
    """Whether it is of one colour."""
    digest: int
    """Of its pixels in the model's size."""


Resized = tuple[str, str]
"""A filter and a way to crop."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pictures:
    """The next images that could be read."""

    looks: Sequence[Look]
    pixels: dict[Resized, Array]
    """(n, H, W, C) uint8, in RGB order, for each way to resize."""
    failures: Sequence[Failure]


def pictures(
    source: SampledSource, ways: Sequence[Preprocessing], size: int, workers: int, max_pixels: int | None
) -> Generator[Pictures, None, None]:
    """Read and decode every image of a sample once, and resize it in every way, `size` images at a time.

    Args:
        source: The sample.
        ways: Preprocessings that differ in nothing that decoding minds; at least one.
        size: Images at once.
        workers: Threads.
        max_pixels: Larger images are refused; None for the decoder's own limit.
    """
    resized = list({(way.resize, way.crop): way for way in ways}.items())

    def read(sample: Sample) -> Failure | tuple[Look, list[Array]]:
        first = resized[0][1]
        try:
            decoded = decode(
                cast(bytes, sample.read()),
                exif=first.exif,
                channels=first.channels,
                background=first.background,
                max_pixels=max_pixels or MAX_PIXELS,
            )
        except SampleError as error:
            return Failure(sample.index, sample.key, "decode", str(error))
        rows = [resize(decoded.image, way) for _, way in resized]
        return _look(decoded.image.size, rows[0]), rows

    outcomes = ordered_map(read, source, workers=workers, window=size + workers)
    with closing(outcomes):
        while taken := list(itertools.islice(outcomes, size)):
            good = [outcome for outcome in taken if not isinstance(outcome, Failure)]
            yield Pictures(
                [look for look, _ in good],
                {way: np.stack([rows[place] for _, rows in good]) for place, (way, _) in enumerate(resized)}
                if good
                else {},
                [outcome for outcome in taken if isinstance(outcome, Failure)],
            )


def _look(size: tuple[int, int], pixels: Array) -> Look:
    colours = pixels[..., :3]
    return Look(
        size,
        bool((colours == colours[..., :1]).all()),
        bool((pixels == pixels[0, 0]).all()),
        hash(pixels.tobytes()),
    )
