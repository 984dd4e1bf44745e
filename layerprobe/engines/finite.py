"""NaN and infinity, which OpenVINO does not pass on as Keras does: its ReLU makes 0 of NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from layerprobe.engines.graph.unsupported import Unsupported

if TYPE_CHECKING:
    from layerprobe.modelfile.weights import Weights
    from layerprobe.records import Array


class FiniteWeights:
    """The weights of a model, every number of which is one.

    Args:
        weights: As the file has them.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def arrays(self, address: str) -> dict[str, Array]:
        """Read a layer's own weights. Raises Unsupported where some are NaN or infinite, and ModelError."""
        arrays = self._weights.arrays(address)
        for name, array in arrays.items():
            if not all_finite(array):
                count = array.size - int(np.isfinite(array).sum())
                raise Unsupported(f"{count} NaN or infinite values in {name} of layer {address!r}")
        return arrays


def all_finite(array: Array) -> bool:
    """Whether an array of any type holds neither NaN nor infinity; the sum tells, at the speed of memory."""
    if array.dtype.kind not in "fcV":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())
