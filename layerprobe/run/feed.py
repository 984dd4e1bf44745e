"""One input of the model: from a sample to the row that the model takes."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from layerprobe.errors import SampleError
from layerprobe.images.decode import MAX_PIXELS, decode
from layerprobe.images.preprocess import enough, preprocess
from layerprobe.records import Preprocessing, Sample, TensorSpec
from layerprobe.run.clock import Clock
from layerprobe.run.plan import channels_first
from layerprobe.run.row_shapes import check_row_shape

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.records import Array

Stage = Literal["read", "decode", "preprocess"]


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
        (height, width), channels = preprocessing.size, preprocessing.channels
        shape = (channels, height, width) if self._first else (height, width, channels)
        self.spec = TensorSpec(spec.name, shape, spec.dtype)

    def row(self, sample: Sample) -> tuple[Array, bool]:
        """Read, decode and preprocess one image -> `spec.shape`, `spec.dtype`. Raises RowError.

        Returns:
            The row, and whether the image has several frames, of which the first was taken.
        """
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
            now, stage = self._clock.add("decode", now), "preprocess"
            row = preprocess(decoded.image, how)
            if self._first:
                row = np.moveaxis(row, 2, 0)
            return row.astype(self.spec.dtype, copy=False), decoded.frames > 1
        except SampleError as error:
            raise RowError(stage, str(error)) from error
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

    def __init__(self, spec: TensorSpec, source: Source, clock: Clock) -> None:
        self.source = source
        self._clock = clock
        shape: tuple[int, ...] = source.row_shape  # type: ignore[attr-defined]
        check_row_shape(spec, shape)
        self.spec = TensorSpec(spec.name, shape, spec.dtype)

    def fill(self, start: int, stop: int, places: Array) -> None:
        """Read the rows from one to before another, of a source that gives many. Raises SampleError."""
        now, at = time.perf_counter(), 0
        for values in self.source.values(start, stop):  # type: ignore[attr-defined]
            places[at : at + len(values)] = values
            at += len(values)
        self._clock.add("read", now)

    def row(self, sample: Sample) -> tuple[Array, bool]:
        """Read one row -> `spec.shape`, `spec.dtype`; it has no frames. Raises RowError."""
        now = time.perf_counter()
        try:
            return np.asarray(sample.read()).astype(self.spec.dtype, copy=False), False
        except SampleError as error:
            raise RowError("read", str(error)) from error
        finally:
            self._clock.add("read", now)


Feed = ImageFeed | ArrayFeed


class RowError(Exception):
    """One input of one row is broken; becomes its `Failure`."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason
