"""An engine that is not built yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layerprobe.options import Finish
from layerprobe.records import TensorSpec


@dataclass(slots=True)
class Planned:
    """What is known of an engine from the model file; see `protocols.Outline`."""

    outputs: tuple[TensorSpec, ...]
    batch_size: int
    about: Mapping[str, Any]
    memory: int = 0
    """Bytes that weights and activations of two batches take, as far as that can be told; 0: it cannot."""
    alive: int = 0
    """Bytes of one batch's inputs and activations that are in memory at once; 0: nobody knows."""
    finish: Finish | None = None
    overflowed: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        return dict(self.about)
