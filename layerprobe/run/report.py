"""What `extract` says that it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerprobe.records import Failure, TensorSpec

if TYPE_CHECKING:
    from layerprobe.statistics import LayerStatistics


@dataclass(frozen=True, slots=True)
class RunReport:
    """What `extract` did."""

    output: str
    rows: int
    failures: tuple[Failure, ...]
    """The first 1,000 of them; `failed` counts them all."""
    failed: int
    layers: tuple[TensorSpec, ...]
    seconds: Mapping[str, float]
    """Wall-clock time in all, "total", and of that how long the run was busy with or waited for "list",
    "load", "input", "compute", "reduce", "write" and, to a store, "upload"; also of "read", "decode" and
    "preprocess", which together make the input, added up over the threads that do them."""
    bound_by: str
    """The stage that the run waited for longest: what to make faster first."""
    notes: tuple[str, ...] = field(default=())
    """Sentences the user should see: what was assumed, what was converted."""
    statistics: Mapping[str, LayerStatistics] | None = None
    """By layer, as `output_statistics` gives them; None where they were not asked for."""
