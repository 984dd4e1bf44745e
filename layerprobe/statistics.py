"""What a layer's activations are like over a data set: one pass over the rows, parts of it merged exactly.

Sums are kept as two float64 each (T. J. Dekker, "A floating-point technique for extending the available
precision", 1971), so that neither the size of the blocks nor the order of merging shows in a result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import UsageError
from layerprobe.formats.one_run import OneRun
from layerprobe.formats.opening import open_output
from layerprobe.formats.reading import check_names

if TYPE_CHECKING:
    from layerprobe.records import Array

CHUNK_VALUES = 1 << 20
"""So many values are worked on at once, or one row."""

BINS = 2048
"""One per sign, exponent and upper two bits of the mantissa of a float32: four to each doubling."""


class ChannelStatistics:
    """Statistics of one layer, per channel; `add` rows, `merge` others, read `result`.

    Args:
        channel_axis: Of one row: -1, or 0 for `channels_first` layers.
    """

    def __init__(self, channel_axis: int = -1) -> None:
        self._channel_axis = channel_axis
        self._rows = 0
        self._channels: _Channels | None = None

    def add(self, activations: Array) -> None:
        """Count in (n, ...) rows; rows are of one shape throughout."""
        values = by_position(activations, self._channel_axis)
        if self._channels is None:
            self._channels = _Channels(values.shape[2])
        self._rows += len(values)
        step = max(1, CHUNK_VALUES // max(1, values[0].size)) if len(values) else 1
        for start in range(0, len(values), step):
            self._channels.add(values[start : start + step])

    def merge(self, other: ChannelStatistics) -> None:
        """Count in what another has counted of the same layer.

        Raises:
            UsageError: It is of another number of channels.
        """
        if other._channels is None:
            return
        if self._channels is None:
            self._channels = _Channels(len(other._channels.count))
        self._channels.merge(other._channels)
        self._rows += other._rows

    @property
    def result(self) -> LayerStatistics:
        """What was counted so far."""
        return (self._channels or _Channels(0)).result(self._rows)


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """Per channel, each array (C,); NaN and infinite values are counted, and left out of all else."""

    rows: int
    count: Array
    """Finite values."""
    nan: Array
    infinite: Array
    mean: Array
    variance: Array
    """Of the population: divided by `count`."""
    minimum: Array
    maximum: Array
    zeros: Array
    """How many of the finite values are 0."""
    histogram: Array
    """(2048,) counts of the finite values of all channels; `bin_edges` says of which."""

    @property
    def dead(self) -> Array:
        """Whether a channel was 0 wherever it was finite."""
        return np.equal(self.zeros, self.count)

    @property
    def overall(self) -> tuple[float, float, float, float]:
        """Mean, variance, minimum and maximum of all finite values; NaN where there is none."""
        used = self.count > 0
        if not used.any():
            return (math.nan,) * 4
        share = self.count[used] / self.count.sum()
        mean = float((self.mean[used] * share).sum())
        variance = float(((self.variance[used] + (self.mean[used] - mean) ** 2) * share).sum())
        return mean, variance, float(np.nanmin(self.minimum)), float(np.nanmax(self.maximum))


def bin_edges(number: int) -> tuple[float, float]:
    """The values of one bin of a histogram: from the first, inclusive, to the second, the further from 0."""
    edges = np.array([number, number + 1], np.uint32) << 21
    first, last = (float(edge) for edge in edges.view(np.float32))
    return first, last


def linear_histogram(statistics: LayerStatistics, bins: int) -> Array:
    """(bins,) counts in equal steps from the least to the largest value, as far as the kept bins can tell."""
    used = np.flatnonzero(statistics.histogram)
    counts = np.zeros(bins)
    if not len(used):
        return counts
    low, high = float(np.nanmin(statistics.minimum)), float(np.nanmax(statistics.maximum))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for number in used:
        first, last = np.clip(sorted(bin_edges(int(number))), low, high)
        spread = np.diff(np.clip(edges, first, last))
        if last > first:
            counts += statistics.histogram[number] * spread / spread.sum()
        else:
            place = min(int(np.searchsorted(edges, first, side="right")) - 1, bins - 1)
            counts[place] += statistics.histogram[number]
    return counts


class _Channels:
    """The running counts behind `LayerStatistics`."""

    def __init__(self, channels: int) -> None:
        self.count = np.zeros(channels, np.int64)
        self.nan = np.zeros(channels, np.int64)
        self.infinite = np.zeros(channels, np.int64)
        self.zeros = np.zeros(channels, np.int64)
        self.minimum = np.full(channels, np.inf)
        self.maximum = np.full(channels, -np.inf)
        self.sum = _Sum(channels)
        self.squares = _Sum(channels)
        self.histogram = np.zeros(BINS, np.int64)

    def add(self, values: Array) -> None:
        """Count in (n, positions, C) values of any numeric type."""
        # In C order, so that a row's sum does not depend on how it lay in memory.
        wide = np.array(values, np.float64, order="C")
        finite = np.isfinite(wide)
        if finite.all():
            self.count += wide.shape[0] * wide.shape[1]
        else:
            self.count += finite.sum((0, 1))
            nan = np.isnan(wide).sum((0, 1))
            self.nan += nan
            self.infinite += (~finite).sum((0, 1)) - nan
        np.minimum(self.minimum, np.min(wide, (0, 1), initial=np.inf, where=finite), out=self.minimum)
        np.maximum(self.maximum, np.max(wide, (0, 1), initial=-np.inf, where=finite), out=self.maximum)
        self.zeros += (wide == 0).sum((0, 1))
        self.histogram += np.bincount(_bin_of(wide[finite]), minlength=BINS)
        wide[~finite] = 0
        self.sum.add(wide.sum(1))
        self.squares.add(np.square(wide, out=wide).sum(1))

    def merge(self, other: _Channels) -> None:
        """Count in another's counts."""
        if len(other.count) != len(self.count):
            raise UsageError(
                f"statistics of {len(self.count)} and of {len(other.count)} channels cannot be merged: "
                "give outputs of the same layers."
            )
        for name in ("count", "nan", "infinite", "zeros", "histogram"):
            getattr(self, name).__iadd__(getattr(other, name))
        np.minimum(self.minimum, other.minimum, out=self.minimum)
        np.maximum(self.maximum, other.maximum, out=self.maximum)
        self.sum.merge(other.sum)
        self.squares.merge(other.squares)

    def result(self, rows: int) -> LayerStatistics:
        """The counts as statistics; NaN for channels without any finite value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.sum.total / self.count
        empty = self.count == 0
        return LayerStatistics(
            rows=rows,
            count=self.count.copy(),
            nan=self.nan.copy(),
            infinite=self.infinite.copy(),
            mean=mean,
            variance=_variance(self.squares, self.sum, self.count),
            minimum=np.where(empty, np.nan, self.minimum),
            maximum=np.where(empty, np.nan, self.maximum),
            zeros=self.zeros.copy(),
            histogram=self.histogram.copy(),
        )


class _Sum:
    """Sums per channel, each as a float64 and what it lacks."""

    def __init__(self, channels: int) -> None:
        self.high = np.zeros(channels)
        self.low = np.zeros(channels)

    def add(self, rows: Array) -> None:
        """Add (n, C) float64, two by two."""
        high, low = rows, np.zeros_like(rows)
        while len(high) > 1:
            half = len(high) // 2
            total, lost = _two_sum(high[:half], high[half : 2 * half])
            rest = low[:half] + low[half : 2 * half] + lost
            high = np.concatenate([total, high[2 * half :]])
            low = np.concatenate([rest, low[2 * half :]])
        if len(high):
            self._take(high[0], low[0])

    def merge(self, other: _Sum) -> None:
        """Add another's sums."""
        self._take(other.high, other.low)

    def _take(self, high: Array, low: Array) -> None:
        total, lost = _two_sum(self.high, high)
        self.high, self.low = _two_sum(total, self.low + low + lost)

    @property
    def total(self) -> Array:
        """(C,) float64."""
        return self.high + self.low

    def exact(self, channel: int) -> Fraction:
        """One channel's sum, without rounding it to a float64."""
        return Fraction(float(self.high[channel])) + Fraction(float(self.low[channel]))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum and the error of rounding it (D. E. Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    shown = total - a
    return total, (a - (total - shown)) + (b - shown)


def _variance(squares: _Sum, sums: _Sum, count: Array) -> Array:
    """(C,): the mean square less the squared mean, exactly, for they may be nearly equal; NaN for none."""
    found = np.full(len(count), np.nan)
    for channel in np.flatnonzero(count).tolist():
        number = int(count[channel])
        square, total = squares.exact(channel), sums.exact(channel)
        found[channel] = max(0.0, float((square - total * total / number) / number))
    return found


def by_position(activations: Array, channel_axis: int) -> Array:
    """Rows, (n, ...), as (n, positions, C)."""
    if activations.ndim == 1:
        return activations[:, np.newaxis, np.newaxis]
    if channel_axis == 0 and activations.ndim > 2:
        activations = np.moveaxis(activations, 1, -1)
    positions = math.prod(activations.shape[1:-1])
    return activations.reshape(len(activations), positions, activations.shape[-1])


def _bin_of(values: Array) -> Any:
    """The bin of each value, as its float32 has it; beyond float32 is in the outermost."""
    limit = np.finfo(np.float32).max
    bits = np.clip(values, -limit, limit).astype(np.float32).view(np.uint32)
    # -0.0 is 0.
    return np.where(bits == 0x80000000, 0, bits >> 21)


def output_statistics(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], layers: Sequence[str] = ()
) -> dict[str, LayerStatistics]:
    """Statistics of what `extract` wrote, of all outputs together, as of one; failed rows are left out.

    Args:
        paths: An output, or those of one run's shards, in any order.
        layers: Only these; empty: all.

    Returns:
        By layer, in the order in which the first output has them.

    Raises:
        OutputFormatError: An output is damaged.
        UsageError: The outputs are not of one run, or two of them hold the same row.
    """
    check_names(layers)
    found: dict[str, ChannelStatistics] = {}
    run = OneRun()
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        with open_output(path) as reader:
            run.add(str(path), reader)
            axes = {layer["name"]: layer.get("channel_axis", -1) for layer in reader.provenance["layers"]}
            good = np.array([status == "ok" for status in reader.status], bool)
            for name in layers or list(reader):
                of_layer = found.setdefault(name, ChannelStatistics(axes.get(name, -1)))
                _add_rows(of_layer, reader[name], good, name)
    return {name: of_layer.result for name, of_layer in found.items()}


def check_ordered(name: str, dtype: np.dtype[Any]) -> None:
    """Raise UsageError for a layer whose values have no order."""
    if dtype.kind == "c":
        raise UsageError(f"layer {name!r} holds complex numbers, which have no order: leave it out.")


def _add_rows(statistics: ChannelStatistics, array: Any, good: Array, name: str) -> None:
    check_ordered(name, array.dtype)
    row = max(1, array[:1].size)
    step = max(1, CHUNK_VALUES // row)
    for start in range(0, len(array), step):
        statistics.add(np.asarray(array[start : start + step])[good[start : start + step]])
