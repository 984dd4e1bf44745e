"""The graph engine: what runs a model file without Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.finite import FiniteWeights
from layerprobe.engines.graph.build import Builder, Seen, fitted
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import FLOATS, INTEGERS, Value, dims, dtype_of, in_keras_order, value
from layerprobe.engines.openvino_cpu import CompiledModel, finish_all
from layerprobe.modelfile.graph import Graph, LayerNode, walk
from layerprobe.modelfile.weights import Weights
from layerprobe.options import MAX_MEMORY, Finish
from layerprobe.records import Tap, TensorSpec

if TYPE_CHECKING:
    from layerprobe.protocols import Collect
    from layerprobe.records import Array


class GraphEngine:
    """Runs a model as OpenVINO computes it.

    Args:
        graph: The model, cut down to what the taps need.
        weights: Of the model; read while this is constructed, not afterwards.
        taps: What to record, in order.
        inputs: One spec per input that is needed, in the model's order, with every size known.
        batch_size: B; None takes any number of rows and pads nothing.
        precision: "float32" or "bfloat16".
        max_memory: Bytes that one tensor of one row may have.
        masks_with_states: Whether a mask reaches a recurrent layer that is given its first state, as it did
            before Keras 3, which drops it.
        finish: What is done with the results; None: nothing.

    Raises:
        Unsupported: The taps need something that the graph engine cannot build as Keras does.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        taps: Sequence[Tap],
        *,
        inputs: Sequence[TensorSpec],
        batch_size: int | None,
        precision: str = "float32",
        max_memory: int = MAX_MEMORY,
        masks_with_states: bool = False,
        finish: Finish | None = None,
    ) -> None:
        self.finish = finish
        self.overflowed: dict[str, int] = {}
        self.batch_size = batch_size or 1
        self._padded = batch_size
        self._precision = precision
        builder = Builder(
            FiniteWeights(weights), {(tap.address, tap.kind) for tap in taps}, max_memory, masks_with_states
        )
        parameters, found = build_taps(builder, graph, taps, inputs, batch_size)
        nodes = [in_keras_order(tensor) for tensor in found.values()]
        self.outputs = output_specs(found, nodes, dict(walk(graph)), batch_size)
        self._lookups = builder.lookups
        nodes += [lookup.indices for lookup in self._lookups]
        model = ov.Model([op.result(node) for node in nodes], list(parameters), "layerprobe")
        self._compiled = CompiledModel(model, batch_size, precision)

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`: the last batch is padded, so that every row is computed alike."""
        return self._named(self._compiled.run(inputs), len(inputs[0]))

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`: the results are OpenVINO's own memory."""
        collect = self._compiled.start(inputs)
        return lambda: self._named(collect(), len(inputs[0]))

    def _named(self, results: Sequence[Array], rows: int) -> dict[str, Array]:
        for place, lookup in enumerate(self._lookups, len(self.outputs)):
            lookup.check(results[place], rows, self._padded or rows)
        named = {spec.name: results[place][:rows] for place, spec in enumerate(self.outputs)}
        found, self.overflowed = finish_all(named, self.outputs, self.finish)
        return found

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        return description(self._precision)


def description(precision: str) -> dict[str, Any]:
    """What the graph engine says of itself."""
    return {"name": "graph", "backend": "openvino", "device": "CPU", "precision": precision}


def build_taps(
    builder: Builder, graph: Graph, taps: Sequence[Tap], inputs: Sequence[TensorSpec], batch_size: int | None
) -> tuple[list[ov.Node], dict[Tap, Value]]:
    """The model's parameters, and the tensors that the taps mean."""
    nodes = [graph.layer(reference.layer) for reference in flat(graph.inputs)]
    for spec in inputs:
        if spec.dtype not in (FLOATS, *INTEGERS):
            raise Unsupported(f"input {spec.name!r} of type {spec.dtype}")
    parameters = [
        op.parameter([batch_size or -1, *spec.shape], np.dtype(spec.dtype), name=spec.name) for spec in inputs
    ]
    given = {
        node.name: fitted(node, value(parameter)) for node, parameter in zip(nodes, parameters, strict=True)
    }
    outputs = flat(builder.model(graph, given))
    found: dict[Tap, Value] = {}
    for tap in taps:
        calls: Seen = {(0,): outputs} if not tap.address else builder.seen[tap.address, tap.kind]
        found.update(_expand(tap, [calls[path] for path in sorted(calls)]))
    return parameters, found


def _expand(tap: Tap, calls: Sequence[Sequence[Value]]) -> dict[Tap, Value]:
    """One entry per tensor that the tap means; `@` and `:` are added where there are several."""
    if not calls or (tap.call is not None and tap.call >= len(calls)):
        raise Unsupported(f"the tap {tap.name!r}")
    found = {}
    for call, tensors in enumerate(calls):
        if tap.call not in (None, call):
            continue
        if tap.output is not None and tap.output >= len(tensors):
            raise Unsupported(f"the tap {tap.name!r}")
        for place, tensor in enumerate(tensors):
            if tap.output in (None, place):
                one_call = tap.call if len(calls) == 1 else call
                one_output = tap.output if len(tensors) == 1 else place
                found[Tap(tap.address, tap.kind, one_call, one_output)] = tensor
    return found


def output_specs(
    found: dict[Tap, Value],
    nodes: Sequence[ov.Output],
    layers: dict[str, LayerNode],
    batch_size: int | None,
) -> tuple[TensorSpec, ...]:
    """What the taps give; raises Unsupported where that is not a row for each input."""
    specs = []
    for tap, node in zip(found, nodes, strict=True):
        sizes = dims(node)
        if not sizes or sizes[0] != batch_size or None in sizes[1:]:
            raise Unsupported(f"{tap.name!r}, of shape {sizes}, without a row for each input")
        layer = layers.get(tap.address)
        first = layer is not None and layer.config.get("data_format") == "channels_first"
        axis = 0 if first and len(sizes) > 2 else -1
        specs.append(TensorSpec(tap.name, sizes[1:], dtype_of(node), axis, tap.address))
    return tuple(specs)
