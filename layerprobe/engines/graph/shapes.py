"""The shape of what every layer gives: the model built as for a run, with weights that nobody reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import numpy as np
from openvino import opset13 as op

from layerprobe.engines.graph.build import Builder, Place, fitted
from layerprobe.engines.graph.outline import UnreadWeights
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import FLOATS, INTEGERS, value
from layerprobe.modelfile.graph import LayerNode
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.records import LayerInfo

Shapes = tuple[tuple[int | None, ...], ...]
"""Of one row of each output of a layer, all calls together."""

_ROWS = 7
"""B, where the model leaves it open: a number that few layers have as a size of their own."""
_FREE_SIZES = (512, 768)
"""What is put for sizes that the model leaves open; what differs between the two is open in the layer too."""


def layer_shapes(file: ModelFile, layers: Sequence[LayerInfo]) -> dict[str, Shapes]:
    """Find the shapes of all layers that the graph engine can compute.

    Args:
        file: The model; its weights are not read.
        layers: All of its layers.

    Returns:
        Address -> shapes, for those layers; None for a size that the inputs decide.
    """
    nodes = [file.graph.layer(reference.layer) for reference in flat(file.graph.inputs) if file.graph.layers]
    shapes = [node.config["batch_shape"] for node in nodes]
    if not nodes or None in shapes or not file.weights.present:
        return {}
    calls = {layer.address: layer.calls for layer in layers if layer.problem is None}
    if not any(None in shape[1:] for shape in shapes):
        return _shapes_with(file, nodes, calls, 0)
    small, large = (_shapes_with(file, nodes, calls, size) for size in _FREE_SIZES)
    return {address: _alike(small[address], large[address]) for address in small if address in large}


def _alike(small: Shapes, large: Shapes) -> Shapes:
    """Sizes that are the same for two sizes of input; None for the others."""
    return tuple(
        tuple(size if size == other else None for size, other in zip(*pair, strict=True))
        for pair in zip(small, large, strict=True)
    )


def _shapes_with(
    file: ModelFile, nodes: Sequence[LayerNode], calls: Mapping[str, int], free: int
) -> dict[str, Shapes]:
    """The same with `free` in place of every open size of the inputs."""
    builder = _EveryLayer(file, calls)
    with suppress(Unsupported):
        given = {node.name: fitted(node, value(_parameter(node, free))) for node in nodes}
        builder.model(file.graph, given)
    found = {}
    for (address, _), seen in builder.seen.items():
        shapes = [tensor.shape for path in sorted(seen) for tensor in seen[path]]
        rows = nodes[0].config["batch_shape"][0] or _ROWS
        whole = all(shape[:1] == (rows,) and None not in shape for shape in shapes)
        if whole and len(seen) == calls[address] and address not in builder.lacking:
            found[address] = tuple(shape[1:] for shape in shapes)
    return found


def _parameter(node: LayerNode, free: int) -> op.Node:
    rows, *sizes = node.config["batch_shape"]
    if node.config["dtype"] not in (FLOATS, *INTEGERS):
        raise Unsupported(f"input {node.name!r} of type {node.config['dtype']}")
    return op.parameter([rows or _ROWS, *(size or free for size in sizes)], np.dtype(node.config["dtype"]))


class _EveryLayer(Builder):
    """Builds all that can be built, and remembers what cannot."""

    def __init__(self, file: ModelFile, addresses: Collection[str]) -> None:
        wanted: set[Place] = {(address, "output") for address in addresses}
        super().__init__(UnreadWeights(file.weights), wanted, file.options.max_memory, file.masks_with_states)
        self.lacking: set[str] = set()

    def give_up(self, address: str, reason: Unsupported) -> None:
        """Go on without this layer and those behind it."""
        self.lacking.add(address)
