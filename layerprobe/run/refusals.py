"""Rows that a model cannot take, such as an index that a table lacks: left out of their batch."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from layerprobe.errors import LayerprobeError, ResourceError
from layerprobe.records import Batch, Failure
from layerprobe.run.fitting import refused

if TYPE_CHECKING:
    from layerprobe.protocols import Engine


def without_refused(batch: Batch, engine: Engine) -> Batch:
    """Give a batch without the rows that the engine refuses; they are among its failures."""
    reasons = refused(engine, batch.inputs, batch.rows)
    failures = [
        Failure(batch.start + place, batch.keys[place], _stage(error), str(error))
        for place, error in reasons.items()
    ]
    kept = [number for number, place in enumerate(batch.rows) if place not in reasons]
    return dataclasses.replace(
        batch,
        rows=[batch.rows[number] for number in kept],
        inputs=tuple(column[kept] for column in batch.inputs),
        failures=(*batch.failures, *failures),
    )


def _stage(error: LayerprobeError) -> Literal["compute", "memory"]:
    return "memory" if isinstance(error, ResourceError) else "compute"
