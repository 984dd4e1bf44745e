"""From what the engine gives to what is stored: the reduction, the cast, and the places of failed rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from layerprobe.reductions import finished, stored_dtype

if TYPE_CHECKING:
    from layerprobe.options import Finish
    from layerprobe.protocols import Outline
    from layerprobe.records import Array, Batch, TensorSpec


class Storing:
    """Finishes the activations of one batch after the other, where the engine does not.

    Args:
        engine: Whose results they are.
        finish: The reduction and the cast.

    Raises:
        UsageError: The reduction cannot be made of one of the outputs.
    """

    def __init__(self, engine: Outline, finish: Finish) -> None:
        self._engine, self._finish = engine, finish
        self.overflows: Mapping[str, int] = {}
        """Layer -> values of the last block that became infinite because float16 cannot hold them."""
        self.specs: tuple[TensorSpec, ...] = tuple(self._stored(spec) for spec in engine.outputs)
        """What is stored of the engine's outputs, in the same order."""

    def block(self, batch: Batch, results: Mapping[str, Array]) -> dict[str, Array]:
        """Give what is stored of one batch.

        Args:
            batch: Whose failed rows become NaN, or 0 where the type has no NaN.
            results: (len(batch.rows), ...) arrays by name, as the engine gives them; not modified.

        Returns:
            (batch.size, ...) arrays by name. They may be `results` themselves.
        """
        overflows: dict[str, int] = {}
        reduced = {
            spec.name: self._kept(spec, results[spec.name], overflows)
            for spec in self._engine.outputs
            if results
        }
        self.overflows = overflows
        if len(batch.rows) == batch.size:
            return reduced
        blocks = {}
        for spec in self.specs:
            fill = np.nan if "float" in spec.dtype else 0
            blocks[spec.name] = np.full((batch.size, *cast(tuple[int, ...], spec.shape)), fill, spec.dtype)
            if batch.rows:
                blocks[spec.name][list(batch.rows)] = reduced[spec.name]
        return blocks

    def _kept(self, spec: TensorSpec, values: Array, overflows: dict[str, int]) -> Array:
        if self._engine.finish is not None:
            stored, lost = values, self._engine.overflowed.get(spec.name, 0)
        else:
            stored, infinite = finished(values, spec.channel_axis, self._finish)
            stored, lost = np.ascontiguousarray(stored), 0 if infinite is None else int(infinite.sum())
        if lost:
            overflows[spec.name] = lost
        return stored

    def _stored(self, spec: TensorSpec) -> TensorSpec:
        dtype = stored_dtype(spec.dtype, self._finish.dtype)
        zeros = np.zeros((1, *cast(tuple[int, ...], spec.shape)), dtype)
        one, _ = finished(zeros, spec.channel_axis, self._finish)
        return dataclasses.replace(spec, shape=one.shape[1:], dtype=str(one.dtype))
