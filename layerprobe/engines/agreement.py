"""Whether an engine computes what Keras computes: one measure and one limit, wherever two are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from layerprobe.records import Array

DEEP = 100
"""A model of more layers adds up more rounding."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far one engine's values are from Keras's, over all layers that were compared."""

    difference: float
    """The largest of any layer; infinite where shapes, types, NaN or infinities are not the same."""
    layer: str
    """The name under which it was seen."""
    limit: float
    """What it may be."""
    rows: int
    """How many inputs were compared."""

    @property
    def agreed(self) -> bool:
        """Whether the engine may stand in for Keras."""
        return self.difference <= self.limit

    def __str__(self) -> str:
        rows = f"{self.rows} row{'s' * (self.rows != 1)}"
        if not math.isfinite(self.difference):
            return f"not comparable in {self.layer!r}, {rows}"
        return f"largest relative difference {self.difference:.1e}, in {self.layer!r}, {rows}"


def compare(found: Mapping[str, Array], wanted: Mapping[str, Array], layers: int) -> Agreement:
    """Compare one batch of an engine's values with Keras's.

    Args:
        found: The engine's, (n, ...) by name.
        wanted: Keras's, under the same names.
        layers: How many layers the model has.
    """
    name, difference = max(
        ((name, relative_difference(found[name], values)) for name, values in wanted.items()),
        key=lambda pair: pair[1],
    )
    return Agreement(difference, name, limit(layers), len(wanted[name]))


def limit(layers: int) -> float:
    """The largest relative difference that rounding explains, in float32, for a model of so many layers."""
    return 1e-5 if layers <= DEEP else 1e-4


def relative_difference(found: Array, wanted: Array, largest: float | None = None) -> float:
    """The largest absolute difference over the largest absolute value that is wanted.

    Args:
        found: What is compared.
        wanted: The reference.
        largest: That value, where `wanted` is a part of what it belongs to; see `largest_value`.

    Returns:
        0 or more; infinite where shape or type differ, where NaN or infinities are not in the same
        places, and where whole numbers or truth values are not equal.
    """
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return math.inf
    if wanted.dtype.kind in "biu":
        return 0.0 if np.array_equal(found, wanted) else math.inf
    ours, theirs = _exact(found), _exact(wanted)
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return math.inf
    ours, theirs = ours[finite], theirs[finite]
    if not np.isfinite(ours).all():
        return math.inf
    largest = largest_value(wanted) if largest is None else largest
    difference = float(np.abs(ours - theirs).max(initial=0.0))
    if largest == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return difference / largest


def largest_value(values: Array) -> float:
    """The largest absolute value that is finite; 0 where there is none."""
    exact = _exact(values)
    return float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0))


def _exact(values: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    return values.astype(np.float64)
