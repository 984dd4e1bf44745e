"""Tables of vectors, and the watch on what is looked up in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import Value, constant, in_keras_order
from layerprobe.errors import UsageError

if TYPE_CHECKING:
    import openvino as ov

    from layerprobe.records import Array


@dataclass(frozen=True, slots=True)
class Lookup:
    """Indices that a run computes, and the table that they have to be within."""

    address: str
    size: int
    indices: ov.Output

    def check(self, indices: Array, rows: int, computed: int) -> None:
        """Raise UsageError for an index outside the table, which OpenVINO would not notice.

        Args:
            indices: What `indices` was in one run, of any real type; the batch leads its first axis.
            rows: How many rows the batch had.
            computed: How many it had with those that it was padded with.
        """
        outside = ~((indices > -self.size - 1) & (indices < self.size))
        if not outside.any():
            return
        place = int(np.flatnonzero(outside)[0])
        row = f" (row {place * computed // indices.size} of the batch)" if rows > 1 else ""
        raise UsageError(
            f"layer {self.address!r} cannot look up index {indices.flat[place]:.15g}{row}: "
            f"its table has {self.size} entries, so give 0 to {self.size - 1}."
        )


def _embedding(layer: Layer, inputs: Sequence[Value]) -> Value:
    """Entries of a table; negative indices count from its end."""
    (tensor,) = inputs
    size, width = layer.config["input_dim"], layer.config["output_dim"]
    table = layer.arrays(embeddings=(size, width))["embeddings"]
    if tensor.dtype not in ("float32", "int32", "int64", "uint8", "int16", "uint16", "int8"):
        raise Unsupported(f"indices of type {tensor.dtype}")
    given = in_keras_order(tensor)
    layer.watch(Lookup(layer.address, size, given))
    node = op.gather(constant(table), op.convert(given, "i32"), constant(0, np.int32))
    zero = constant(0, tensor.dtype)
    mask = op.not_equal(given, zero).output(0) if layer.config["mask_zero"] else None
    return Value(node.output(0), mask=mask)


LAYERS: dict[str, BuildLayer] = {"Embedding": _embedding}
