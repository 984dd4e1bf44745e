"""Which values of a layer have which colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.views.colours import amounts, signed

if TYPE_CHECKING:
    from layerprobe.records import Array

OWN_SCALE = "each channel on its own scale"


@dataclass(frozen=True, slots=True)
class Scale:
    """From 0, or as far below 0 as above where values are negative, so that 0 keeps its colour."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> Scale:
        """The scale on which all these values can be seen."""
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        if low < 0 < high or high <= 0 > low:
            most = max(abs(low), abs(high))
            return cls(-most, most)
        return cls(min(low, 0.0), high)

    @property
    def has_sign(self) -> bool:
        """Whether there are values below 0."""
        return self.low < 0

    def colours(self, values: Array) -> Array:
        """(...) as (..., 3) uint8."""
        if self.has_sign:
            return signed(values / self.high)
        return amounts(values / self.high if self.high else values * 0.0)

    def ink(self, value: float) -> tuple[int, int, int]:
        """The colour of a bar, of which its length tells the value: dark enough on paper for any."""
        shown = signed(np.array(math.copysign(0.8, value))) if self.has_sign else amounts(np.array(0.45))
        red, green, blue = shown.tolist()
        return red, green, blue

    @property
    def text(self) -> str:
        """Its ends."""
        return f"{self.low:.3g} to {self.high:.3g}"
