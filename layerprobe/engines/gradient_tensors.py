"""What differentiating a model gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerprobe.records import Array


@dataclass(frozen=True, slots=True)
class GradientTensors:
    """What outputs of a model change by with what its layers give, for the rows of one batch."""

    outputs: Mapping[str, Array]
    """(B, ...) values by name."""
    layers: Mapping[str, Array]
    """(B, ...) values by name."""
    gradients: Mapping[str, Mapping[str, Array]]
    """Output -> layer -> (B, ...), of the layer's shape."""
