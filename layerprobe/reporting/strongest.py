"""Which rows excite each channel most, gathered block by block; which channels a row excites most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from layerprobe.statistics import by_position

if TYPE_CHECKING:
    from layerprobe.records import Array


def strengths(activations: Array, channel_axis: int) -> Array:
    """How much each row excites each channel: the largest finite value at any position.

    Args:
        activations: (n, ...) of any real type.
        channel_axis: Of one row.

    Returns:
        (n, C) float64; -inf where a channel has no finite value.
    """
    values = by_position(activations, channel_axis)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    finite = np.isfinite(values)
    found = np.max(values, 1, initial=-np.inf) if finite.all() else None
    if found is None:
        found = np.max(values, 1, initial=-np.inf, where=finite)
    return np.asarray(found, np.float64)


class StrongestRows:
    """The K rows that excite each channel most, whatever the number of rows that were added.

    Args:
        count: K.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.rows: Array = np.empty((0, 0), np.int64)
        """(k, C), strongest first, of equal ones the first first; -1 where there is no such row."""
        self.values: Array = np.empty((0, 0))
        """(k, C) their strengths; -inf where there is none."""

    def add(self, strength: Array, rows: Array) -> None:
        """Count in rows; blocks come in the order of rows.

        Args:
            strength: (n, C), see `strengths`.
            rows: (n,) their numbers.
        """
        if not self.rows.shape[1]:
            self.rows = np.empty((0, strength.shape[1]), np.int64)
            self.values = np.empty((0, strength.shape[1]))
        values = np.concatenate([self.values, strength])
        numbers = np.concatenate([self.rows, np.broadcast_to(rows[:, np.newaxis], strength.shape)])
        # Earlier rows stand first, and a stable sort leaves equal ones in that order.
        order = np.argsort(-values, 0, kind="stable")[: self._count]
        self.values = np.take_along_axis(values, order, 0)
        self.rows = np.where(np.isneginf(self.values), -1, np.take_along_axis(numbers, order, 0))


def strongest_channels(strength: Array, count: int) -> list[tuple[int, float]]:
    """The channels that one row excites most, strongest first, with its strengths; (C,) are given."""
    order = np.argsort(-strength, kind="stable")[:count]
    return [(int(channel), float(strength[channel])) for channel in order if strength[channel] > -np.inf]
