"""Rows that a model cannot take, such as an index that a table lacks: found, and left out of their batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerprobe.errors import UsageError
from layerprobe.records import Batch, Failure

if TYPE_CHECKING:
    from layerprobe.protocols import Engine
    from layerprobe.records import Array


def without_refused(batch: Batch, engine: Engine) -> Batch:
    """Give a batch without the rows that the engine refuses; they are among its failures."""
    reasons = _refused(engine, batch.inputs, batch.rows)
    failures = [
        Failure(batch.start + place, batch.keys[place], "compute", reason)
        for place, reason in reasons.items()
    ]
    kept = [number for number, place in enumerate(batch.rows) if place not in reasons]
    return dataclasses.replace(
        batch,
        rows=[batch.rows[number] for number in kept],
        inputs=tuple(column[kept] for column in batch.inputs),
        failures=(*batch.failures, *failures),
    )


def _refused(engine: Engine, inputs: Sequence[Array], rows: Sequence[int]) -> dict[int, str]:
    """Why the engine refuses some rows of a batch, by place: it is halved until they are alone."""
    try:
        engine.run(inputs)
    except UsageError as error:
        if len(rows) == 1:
            return {rows[0]: str(error)}
        middle = len(rows) // 2
        first = _refused(engine, [column[:middle] for column in inputs], rows[:middle])
        return first | _refused(engine, [column[middle:] for column in inputs], rows[middle:])
    return {}
