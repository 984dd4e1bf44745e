"""Statistics of what a run writes, gathered on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.statistics import ChannelStatistics, check_ordered

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Array, TensorSpec
    from layerprobe.statistics import LayerStatistics

_BYTES_AT_ONCE = 8 << 20
"""So much of a layer is read back at once, or one row."""


class RunStatistics:
    """Statistics of what a run writes, block by block: those that `output_statistics` finds in its output.

    Args:
        layers: What is stored.

    Raises:
        UsageError: A layer's values have no order.
    """

    def __init__(self, layers: Sequence[TensorSpec]) -> None:
        for spec in layers:
            check_ordered(spec.name, np.dtype("float32" if "float" in spec.dtype else spec.dtype))
        self._layers = {spec.name: ChannelStatistics(spec.channel_axis) for spec in layers}

    def add(self, block: Mapping[str, Array], good: Sequence[int]) -> None:
        """Count in those rows of a block that did not fail.

        Args:
            block: (n, ...) arrays by layer.
            good: Places of the rows.
        """
        whole = len(good) == len(next(iter(block.values())))
        for name, statistics in self._layers.items():
            statistics.add(block[name] if whole else block[name][list(good)])

    def add_written(self, reader: Reader, ranges: Sequence[tuple[int, int]]) -> None:
        """Count in rows that an earlier run wrote: from a first to before a last."""
        good = np.array([status == "ok" for status in reader.status], bool)
        for name, statistics in self._layers.items():
            rows = reader[name]
            step = max(1, _BYTES_AT_ONCE // max(1, rows[:1].nbytes))
            for first, last in ranges:
                for start in range(first, last, step):
                    stop = min(start + step, last)
                    statistics.add(np.asarray(rows[start:stop])[good[start:stop]])

    @property
    def results(self) -> dict[str, LayerStatistics]:
        """By layer, in the order asked for."""
        return {name: statistics.result for name, statistics in self._layers.items()}
