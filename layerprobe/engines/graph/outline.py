"""What the graph engine would build: the model with weights that nobody reads, and that is not compiled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.build import Builder
from layerprobe.engines.graph.engine import build_taps, description, output_specs
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import in_keras_order
from layerprobe.engines.openvino_cpu import check_precision
from layerprobe.engines.planned import Planned
from layerprobe.errors import ModelError
from layerprobe.modelfile.graph import Graph, walk
from layerprobe.modelfile.weights import Weights
from layerprobe.records import Tap, TensorSpec

if TYPE_CHECKING:
    from layerprobe.records import Array


_OPENVINO = 50 << 20
"""Bytes that OpenVINO itself takes; with the sum in `outline` within a third of what six runs took."""


class UnreadWeights:
    """The weights of a model as the layers ask for them, their numbers aside."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def arrays(self, address: str) -> dict[str, Array]:
        """Arrays of the right shapes; raises Unsupported where a run would raise ModelError."""
        try:
            return self._weights.unread(address)
        except ModelError as error:
            raise Unsupported(str(error)) from error


def outline(
    graph: Graph,
    weights: Weights,
    taps: Sequence[Tap],
    *,
    inputs: Sequence[TensorSpec],
    batch_size: int | None,
    precision: str,
    max_memory: int,
    masks_with_states: bool,
) -> Planned:
    """Tell what `GraphEngine` would be with these arguments.

    Raises:
        Unsupported: The taps need something that the graph engine cannot build as Keras does.
        PrecisionError: The processor does not compute in that precision.
    """
    check_precision(precision)
    places = {(tap.address, tap.kind) for tap in taps}
    builder = Builder(UnreadWeights(weights), places, max_memory, masks_with_states)
    parameters, found = build_taps(builder, graph, taps, inputs, batch_size)
    nodes = [in_keras_order(tensor) for tensor in found.values()]
    outputs = output_specs(found, nodes, dict(walk(graph)), batch_size)
    model = ov.Model([op.result(node) for node in nodes], list(parameters), "layerprobe")
    # The file of a Sequential model need not have the input layer that the graph has.
    having = [node.name for node in graph.layers if node.class_name != "InputLayer"]
    numbers = sum(weights.parameters(name) or 0 for name in having)
    # Weights are there as they were read and as OpenVINO lays them out; two batches share some memory.
    alive = _activations(model)
    memory = _OPENVINO + 2 * 4 * numbers + 3 * alive // 2
    return Planned(outputs, batch_size or 1, description(precision), memory, alive)


def _activations(model: ov.Model) -> int:
    """The most bytes of one batch that are alive at once, when every tensor goes once it was last used."""
    operations = [node for node in model.get_ordered_ops() if node.get_type_name() != "Constant"]
    uses = {
        (node.get_friendly_name(), output.index): len(output.get_target_inputs())
        for node in operations
        for output in node.outputs()
    }
    alive = most = 0
    for node in operations:
        alive += sum(_bytes([output]) for output in node.outputs())
        most = max(most, alive)
        for given in node.inputs():
            source = given.get_source_output()
            name = source.get_node().get_friendly_name(), source.index
            if name in uses:
                uses[name] -= 1
                alive -= 0 if uses[name] else _bytes([source])
    return most


def _bytes(outputs: Iterable[ov.Output]) -> int:
    return sum(
        math.prod(size.get_length() if size.is_static else 1 for size in output.get_partial_shape())
        * output.get_element_type().size
        for output in outputs
    )
