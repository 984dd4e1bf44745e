"""The graph engine: what runs a model file without Keras."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.build import Builder, Seen, fitted, last_line
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import FLOATS, INTEGERS, Value, dims, dtype_of, in_keras_order, value
from layerprobe.errors import ResourceError, UsageError
from layerprobe.modelfile.graph import Graph, LayerNode, walk
from layerprobe.modelfile.weights import Weights
from layerprobe.records import MAX_MEMORY, Tap, TensorSpec

if TYPE_CHECKING:
    from layerprobe.protocols import Collect
    from layerprobe.records import Array

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


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
    ) -> None:
        self.finish = None  # What it gives lies in memory already.
        self.overflowed: dict[str, int] = {}
        self.batch_size = batch_size or 1
        self._padded = batch_size
        self._precision = precision
        builder = Builder(weights, {(tap.address, tap.kind) for tap in taps}, max_memory, masks_with_states)
        parameters, found = _build(builder, graph, taps, inputs, batch_size)
        nodes = [in_keras_order(tensor) for tensor in found.values()]
        self.outputs = _specs(found, nodes, dict(walk(graph)), batch_size)
        self._lookups = builder.lookups
        nodes += [lookup.indices for lookup in self._lookups]
        self._compiled = _compile(nodes, parameters, precision, streams=2 if self.batch_size > 1 else 1)

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`: the last batch is padded, so that every row is computed alike."""
        results = self._started(self._for_run, inputs)()
        return {name: array.copy() for name, array in results.items()}

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`: the results are OpenVINO's own memory."""
        request = self._in_turn[0]
        self._in_turn.rotate()
        return self._started(request, inputs)

    @cached_property
    def _for_run(self) -> ov.InferRequest:
        return self._compiled.create_infer_request()

    @cached_property
    def _in_turn(self) -> deque[ov.InferRequest]:
        """Two: while the results of one are read, the other computes."""
        return deque(self._compiled.create_infer_request() for _ in range(2))

    def _started(self, request: ov.InferRequest, inputs: Sequence[Array]) -> Collect:
        rows = len(inputs[0])
        fed = [np.ascontiguousarray(_padded(array, self._padded)) for array in inputs]
        computed = len(fed[0])

        def collect() -> dict[str, Array]:
            with _reported(computed):
                request.wait()
            for place, lookup in enumerate(self._lookups, len(self.outputs)):
                lookup.check(request.get_output_tensor(place).data, rows, computed)
            return {
                spec.name: request.get_output_tensor(place).data[:rows]
                for place, spec in enumerate(self.outputs)
            }

        with _reported(computed):
            request.start_async(dict(enumerate(fed)), share_inputs=True)
        return collect

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        return {"name": "graph", "backend": "openvino", "device": "CPU", "precision": self._precision}


def _build(
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


def _specs(
    found: dict[Tap, Value],
    nodes: Sequence[ov.Output],
    layers: dict[str, LayerNode],
    batch_size: int | None,
) -> tuple[TensorSpec, ...]:
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


def _compile(
    nodes: Sequence[ov.Output], parameters: Sequence[ov.Node], precision: str, streams: int
) -> ov.CompiledModel:
    """Compile for so many batches at a time.

    Two on half of the processor each cost less than one on all of it after the other: cores that wait for
    each other at the end of every layer take 15 % more time, and a quarter more where decoding comes between.
    """
    model = ov.Model([op.result(node) for node in nodes], list(parameters), "layerprobe")
    # Without the hint OpenVINO may take bfloat16 where the processor has it.
    options = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision], "NUM_STREAMS": str(streams)}
    try:
        return ov.Core().compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise Unsupported(last_line(error)) from error


@contextmanager
def _reported(rows: int) -> Iterator[None]:
    """Turn what OpenVINO says of a batch into the error that it is to the user."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = last_line(error)
        if isinstance(error, MemoryError) or "allocate" in reason:
            raise ResourceError(
                f"not enough memory for a batch of {rows} rows: give a smaller --batch-size."
            ) from error
        raise UsageError(f"the model cannot compute with these inputs: {reason.rstrip('.')}.") from error


def _padded(array: Array, rows: int | None) -> Array:
    """Repeat the last row until there are `rows`: real values, so that nothing overflows."""
    if rows is None or len(array) == rows:
        return array
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])
