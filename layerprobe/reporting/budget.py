"""What fits into a file of a given size: how many rows and maps, how large, and which pictures first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.reporting.maps import map_size

if TYPE_CHECKING:
    from layerprobe.records import Array
    from layerprobe.reporting.survey import LayerSurvey

MAP_SIDE = 32
"""Most values along a side of a map, where there is room."""
_CHANNELS_SHARE, _ROWS_SHARE, _ROW_MAPS_SHARE = 0.45, 0.15, 0.15
"""Of the file; the rest is for pictures."""
_CHANNEL_BYTES, _TOP_BYTES, _ROW_BYTES, _STRONG_BYTES = 60, 14, 220, 70
"""About what is written of a channel, of one of its top rows, of a row, of its channels in one layer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is shown of each channel."""

    top: int
    """So many of its strongest rows."""
    side: int
    """The longer side of their maps; 0: none."""


def plan_channels(layers: Sequence[LayerSurvey], top: int, size: int) -> Plan:
    """Choose the most that fits into a file of `size` bytes beside everything else."""
    steps = [Plan(top, side) for side in (MAP_SIDE, MAP_SIDE // 2, MAP_SIDE // 4)]
    steps += [Plan(few, side) for few in (top * 3 // 4, top // 2, top // 4, 1) for side in (8, 4) if few]
    steps += [Plan(few, 0) for few in (top // 2, 1) if few]
    return next((plan for plan in steps if _bytes_of(layers, plan) <= size * _CHANNELS_SHARE), steps[-1])


def _bytes_of(layers: Sequence[LayerSurvey], plan: Plan) -> int:
    total = 0
    for layer in layers:
        height, width = map_size(layer.shape, layer.channel_axis, plan.side) or (0, 0)
        # Deflated and in base64 a map takes about a byte for each of its own.
        each = _CHANNEL_BYTES + plan.top * (_TOP_BYTES + height * width)
        total += each * len(layer.channels)
    return total


def most_rows(layers: int, size: int) -> int:
    """How many rows can be listed in a file of `size` bytes."""
    return max(1, int(size * _ROWS_SHARE) // (_ROW_BYTES + _STRONG_BYTES * layers))


def plan_row_maps(layers: Sequence[LayerSurvey], rows: int, maps: int, size: int) -> int:
    """The longer side of the maps of each row's own strongest channels; 0: there is no room for any.

    Args:
        layers: What is known of them.
        rows: How many rows have such maps.
        maps: How many each of them has of each layer.
        size: Bytes of the whole file.
    """
    for side in (MAP_SIDE, 16, 8, 4):
        sizes = [map_size(layer.shape, layer.channel_axis, side) or (0, 0) for layer in layers]
        if rows * maps * sum(height * width for height, width in sizes) <= size * _ROW_MAPS_SHARE:
            return side
    return 0


def by_importance(layers: Sequence[LayerSurvey], plan: Plan, good: Array) -> list[int]:
    """The rows that did not fail: those that excite most channels, then the others in their order."""
    counts: Counter[int] = Counter()
    for layer in layers:
        counts.update(layer.strongest.rows[: plan.top, layer.channels].ravel().tolist())
    return sorted(np.flatnonzero(good).tolist(), key=lambda row: (-counts[row], row))


def rows_to_list(order: Sequence[int], good: Array, most: int) -> list[int]:
    """At most so many rows, rising: failed ones, as long as they are no more than a quarter, then the first.

    Args:
        order: As `by_importance` gives it.
        good: (rows,) whether a row did not fail.
        most: How many.
    """
    failed = np.flatnonzero(~good).tolist()
    kept = failed[: max(most // 4, most - len(order))]
    return sorted([*kept, *order[: most - len(kept)]])
