"""From what the engine gives to what is stored: the reduction, the cast, and the places of failed rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from layerprobe import registry

if TYPE_CHECKING:
    from layerprobe.protocols import Reduction
    from layerprobe.records import Array, Batch, TensorSpec


class Storing:
    """Reduces and casts the activations of one batch after the other.

    Args:
        outputs: What the engine gives, with every size known.
        pool: A name in `registry.REDUCTIONS`.
        dtype: "float32" or "float16", for floats; all other values keep their type.

    Raises:
        UsageError: The reduction cannot be made of one of the outputs.
    """

    def __init__(self, outputs: Sequence[TensorSpec], pool: str, dtype: str) -> None:
        self._outputs = tuple(outputs)
        self._reduce: Reduction = registry.find(registry.REDUCTIONS, pool, "reduction")
        self._dtype = dtype
        self.overflows: dict[str, int] = {}
        """Layer -> values that became infinite because float16 cannot hold them."""
        self.specs: tuple[TensorSpec, ...] = tuple(self._stored(spec) for spec in outputs)
        """What is stored of `outputs`, in the same order."""

    def block(self, batch: Batch, results: Mapping[str, Array]) -> dict[str, Array]:
        """Give what is stored of one batch.

        Args:
            batch: Whose failed rows become NaN, or 0 where the type has no NaN.
            results: (len(batch.rows), ...) arrays by name, as the engine gives them; not modified.

        Returns:
            (batch.size, ...) arrays by name. They may be `results` themselves.
        """
        reduced = {spec.name: self._kept(spec, results[spec.name]) for spec in self._outputs if results}
        if len(batch.rows) == batch.size:
            return reduced
        blocks = {}
        for spec in self.specs:
            fill = np.nan if "float" in spec.dtype else 0
            blocks[spec.name] = np.full((batch.size, *cast(tuple[int, ...], spec.shape)), fill, spec.dtype)
            if batch.rows:
                blocks[spec.name][list(batch.rows)] = reduced[spec.name]
        return blocks

    def _kept(self, spec: TensorSpec, values: Array) -> Array:
        reduced = self._reduce(values, spec.channel_axis)
        with np.errstate(over="ignore"):
            stored = reduced.astype(_stored_dtype(str(reduced.dtype), self._dtype), copy=False)
        if stored.dtype == np.float16:
            lost = int(np.isinf(stored).sum()) - int(np.isinf(reduced).sum())
            if lost:
                self.overflows[spec.name] = self.overflows.get(spec.name, 0) + lost
        return stored

    def _stored(self, spec: TensorSpec) -> TensorSpec:
        zeros = np.zeros((1, *cast(tuple[int, ...], spec.shape)), _stored_dtype(spec.dtype, self._dtype))
        one = self._reduce(zeros, spec.channel_axis)
        return dataclasses.replace(spec, shape=one.shape[1:], dtype=str(one.dtype))


def _stored_dtype(dtype: str, asked: str) -> str:
    """What values of one type are stored as: floats as asked for, all others as they are."""
    return asked if "float" in dtype else dtype
