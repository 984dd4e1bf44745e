"""What an output says, layer by layer: first all rows in one pass, then what is shown of some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.reporting.maps import Maps, as_map, map_size
from layerprobe.reporting.strongest import StrongestRows, strengths, strongest_channels
from layerprobe.statistics import CHUNK_VALUES, ChannelStatistics, LayerStatistics
from layerprobe.views.scale import Scale

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Array
    from layerprobe.reporting.budget import Plan
    from layerprobe.reporting.origin import Origin

STRONGEST = 5
"""So many channels of each layer, and classes, are told of an image."""
MOST_CHANNELS = 4096
"""So many channels of a layer are shown; of more, those with the largest values."""
SPARSE = 8
"""Where fewer than one of so many rows are wanted they are read one by one."""
_SUM_TOLERANCE = 1e-2
"""Of probabilities, which float16 and bfloat16 may have rounded."""

Done = Callable[[int], None]
"""Called with so many more rows of one layer."""


@dataclass(slots=True)
class LayerSurvey:
    """One layer of an output."""

    name: str
    class_name: str
    shape: tuple[int, ...]
    """Of one row."""
    dtype: str
    channel_axis: int
    statistics: LayerStatistics
    strongest: StrongestRows
    channels: Array
    """(n,) numbers of the channels that are shown, in order."""
    is_probabilities: bool
    """Whether every row is a vector of probabilities, such as a softmax gives."""
    maps: Maps | None = None
    """Of each channel's strongest rows; None where the layer has none, or they are left out."""
    maps_of_rows: Maps | None = None
    """Of each listed row's strongest channels, likewise."""
    of_rows: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    """For some rows, the channels that they excite most."""

    def scale(self, channel: int) -> Scale:
        """The scale on which all values of a channel can be seen, in whatever row."""
        ends = np.array([self.statistics.minimum[channel], self.statistics.maximum[channel]])
        return Scale.of(ends)


def survey_layer(reader: Reader, name: str, origin: Origin, good: Array, top: int, done: Done) -> LayerSurvey:
    """Go through all rows of a layer once, in blocks.

    Args:
        reader: An output.
        name: Of the layer.
        origin: What the output says of it.
        good: (rows,) whether to count a row; rows beyond its end are left out.
        top: So many rows are kept for each channel.
        done: Progress.
    """
    axis = origin.channel_axes.get(name, -1)
    array = reader[name]
    statistics, strongest = ChannelStatistics(axis), StrongestRows(top)
    shape = tuple(array.shape[1:])
    class_name = origin.classes.get(name, "")
    probabilities = len(shape) == 1 and shape[0] > 1 and array.dtype.kind == "f" and bool(good.any())
    probabilities = probabilities and class_name != "InputLayer"  # which may be given one-hot vectors
    for start, values in _blocks(array, len(good)):
        kept = good[start : start + len(values)]
        values = values[kept]
        statistics.add(values)
        strongest.add(strengths(values, axis), start + np.flatnonzero(kept))
        probabilities = probabilities and _are_probabilities(values)
        done(len(kept))
    found = statistics.result
    return LayerSurvey(
        name=name,
        class_name=class_name,
        shape=shape,
        dtype=str(array.dtype),
        channel_axis=axis,
        statistics=found,
        strongest=strongest,
        channels=_shown_channels(found),
        is_probabilities=probabilities,
    )


def survey_rows(
    reader: Reader, layer: LayerSurvey, rows: Sequence[int], plan: Plan, row_side: int, done: Done
) -> None:
    """Find out what is shown of some rows: their strongest channels, and maps.

    Args:
        reader: The output.
        layer: What is known of the layer; `of_rows`, `maps` and `maps_of_rows` are filled.
        rows: Their numbers, rising.
        plan: How many rows of each channel have maps, and of which size.
        row_side: Maps of the rows' own channels are no longer or wider than this; 0: there are none.
        done: Progress.
    """
    if (size := map_size(layer.shape, layer.channel_axis, plan.side)) is not None:
        layer.maps = Maps(len(layer.channels), plan.top, size)
    if (size := map_size(layer.shape, layer.channel_axis, row_side)) is not None:
        layer.maps_of_rows = Maps(len(rows), STRONGEST, size)
    shown = layer.strongest.rows[: plan.top, layer.channels]
    for place, (row, values) in enumerate(_some_rows(reader[layer.name], rows)):
        strength = strengths(values[np.newaxis], layer.channel_axis)[0]
        layer.of_rows[row] = strongest_channels(strength, STRONGEST)
        if layer.maps is not None:
            whole = as_map(values, layer.channel_axis)
            for rank, channel in zip(*np.nonzero(shown == row), strict=True):
                number = int(layer.channels[channel])
                layer.maps.put(int(channel), int(rank), whole[..., number], layer.scale(number))
        if layer.maps_of_rows is not None:
            whole = as_map(values, layer.channel_axis)
            for rank, (number, _) in enumerate(layer.of_rows[row]):
                layer.maps_of_rows.put(place, rank, whole[..., number], layer.scale(number))
        done(1)


def _blocks(array: Any, rows: int) -> Iterator[tuple[int, Array]]:
    step = max(1, CHUNK_VALUES // max(1, array[:1].size))
    for start in range(0, rows, step):
        yield start, np.asarray(array[start : min(start + step, rows)])


def _some_rows(array: Any, rows: Sequence[int]) -> Iterator[tuple[int, Array]]:
    """Rows that lie close together are read at once, as compressed ones are by themselves."""
    step = max(1, CHUNK_VALUES // max(1, array[:1].size))
    for block, within in groupby(rows, lambda row: row // step):
        wanted = list(within)
        if len(wanted) * SPARSE < step:
            yield from ((row, np.asarray(array[row])) for row in wanted)
            continue
        values = np.asarray(array[block * step : (block + 1) * step])
        yield from ((row, values[row - block * step]) for row in wanted)


def _are_probabilities(rows: Array) -> bool:
    """(n, C): whether nothing is below 0 and every row adds up to 1."""
    sums = rows.sum(1, dtype=np.float64)
    return bool((rows >= 0).all() and (np.abs(sums - 1) < _SUM_TOLERANCE).all())


def _shown_channels(statistics: LayerStatistics) -> Array:
    """All channels, or those with the largest values, in order."""
    strength = np.nan_to_num(statistics.maximum, nan=-np.inf)
    return np.sort(np.argsort(-strength, kind="stable")[:MOST_CHANNELS])
