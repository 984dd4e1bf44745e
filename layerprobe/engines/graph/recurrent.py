"""Recurrent layers as loops over time, and the wrappers around them.

What goes in is multiplied by its kernel once for all steps; the loop's body has the recurrent part alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.activations import apply_named
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.merge import LAYERS as MERGES
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Node,
    Value,
    as_float,
    constant,
    dims,
    in_keras_order,
    known,
    only_float,
    value,
    whole,
)
from layerprobe.modelfile.graph import LayerNode

if TYPE_CHECKING:
    from layerprobe.records import Array

Step = Callable[["_Cell", Node, Sequence[Node]], list[Node]]
"""One step: its (B, gates * units) of the projected input and the states to the new states."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """What the steps of one layer share."""

    layer: Layer
    units: int
    recurrent_kernel: Array
    recurrent_bias: Array | None = None

    def activation(self, x: Node) -> Node:
        return self._apply("activation", x)

    def gate(self, x: Node) -> Node:
        return self._apply("recurrent_activation", x)

    def _apply(self, argument: str, x: Node) -> Node:
        name = self.layer.config[argument]
        if isinstance(name, LayerNode):
            raise Unsupported(f"a layer as its {argument}")
        return apply_named(name, value(x)).node

    def recur(self, state: Node) -> Node:
        """The state times the recurrent kernel."""
        return op.matmul(state, constant(self.recurrent_kernel), False, False)


def _parts(x: Node, count: int) -> list[Node]:
    return list(op.split(x, constant(1, "int64"), count).outputs())


def _simple_step(cell: _Cell, x: Node, states: Sequence[Node]) -> list[Node]:
    return [cell.activation(op.add(x, cell.recur(states[0])))]


def _lstm_step(cell: _Cell, x: Node, states: Sequence[Node]) -> list[Node]:
    hidden, carry = states
    into, forget, new, out = _parts(op.add(x, cell.recur(hidden)), 4)
    kept = op.multiply(cell.gate(forget), carry)
    carry = op.add(kept, op.multiply(cell.gate(into), cell.activation(new)))
    return [op.multiply(cell.gate(out), cell.activation(carry)), carry]


def _gru_step(cell: _Cell, x: Node, states: Sequence[Node]) -> list[Node]:
    (hidden,) = states
    update, reset, new = _parts(x, 3)
    if cell.layer.config["reset_after"]:
        inner = cell.recur(hidden)
        if cell.recurrent_bias is not None:
            inner = op.add(inner, constant(cell.recurrent_bias))
        inner_update, inner_reset, inner_new = _parts(inner, 3)
        gated = cell.gate(op.add(reset, inner_reset))
        new = cell.activation(op.add(new, op.multiply(gated, inner_new)))
    else:
        kernel = cell.recurrent_kernel
        both = op.matmul(hidden, constant(kernel[:, : 2 * cell.units]), False, False)
        inner_update, inner_reset = _parts(both, 2)
        gated = op.multiply(cell.gate(op.add(reset, inner_reset)), hidden)
        own = op.matmul(gated, constant(kernel[:, 2 * cell.units :]), False, False)
        new = cell.activation(op.add(new, own))
    kept = cell.gate(op.add(update, inner_update))
    rest = op.subtract(constant(1.0), kept)
    return [op.add(op.multiply(kept, hidden), op.multiply(rest, new))]


def _recurrent(step: Step, gates: int, states: int) -> BuildLayer:
    def build(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
        (sequence,) = inputs
        config, units = layer.config, layer.config["units"]
        if config["stateful"]:
            raise Unsupported("states that are kept between batches")
        projected, cell = _projected(layer, in_keras_order(as_float(sequence)), gates)
        if config["go_backwards"]:
            projected = _reversed(projected)
        first = _first_states(layer, sequence, units, states)
        steps, last = _loop(functools.partial(step, cell), projected, first)
        found = [steps if config["return_sequences"] else last[0]]
        return [value(node) for node in (found + last if config["return_state"] else found)]

    return build


def _projected(layer: Layer, x: Node, gates: int) -> tuple[Node, _Cell]:
    """(B, T, features) -> (B, T, gates * units), and what the steps need."""
    (features,), units = known(dims(x)[2:]), layer.config["units"]
    split_bias = layer.config.get("reset_after") is True
    shapes: dict[str, tuple[int, ...]] = {
        "kernel": (features, gates * units),
        "recurrent_kernel": (units, gates * units),
    }
    if layer.config["use_bias"]:
        shapes["bias"] = (2, gates * units) if split_bias else (gates * units,)
    arrays = layer.arrays(**shapes)
    projected = op.matmul(x, constant(arrays["kernel"]), False, False)
    bias = arrays.get("bias")
    if bias is not None:
        projected = op.add(projected, constant(bias[0] if split_bias else bias))
    recurrent_bias = bias[1] if bias is not None and split_bias else None
    return projected, _Cell(layer, units, arrays["recurrent_kernel"], recurrent_bias)


def _first_states(layer: Layer, sequence: Value, units: int, count: int) -> list[Node]:
    given = [leaf for leaf in flat(layer.keywords.get("initial_state") or []) if leaf is not None]
    if given:
        if len(given) != count or any(known(state.shape[1:]) != (units,) for state in given):
            raise Unsupported("initial states of other shapes")
        return [in_keras_order(only_float(state)) for state in given]
    rows = op.gather(op.shape_of(sequence.node), whole([0]), constant(0, "int64"))
    zeros = op.broadcast(constant(0.0), op.concat([rows, whole([units])], 0))
    return [zeros] * count


def _reversed(x: Node) -> Node:
    """Time from its end."""
    (length,) = known(dims(x)[1:2])
    return op.gather(x, whole(range(length - 1, -1, -1)), constant(1, "int64"))


def _loop(
    step: Callable[[Node, Sequence[Node]], list[Node]], x: Node, first: Sequence[Node]
) -> tuple[Node, list[Node]]:
    """Every step's first state as (B, T, units), and all states after the last step."""
    rows, _, width = dims(x)
    slice_in = op.parameter([rows or -1, 1, known([width])[0]], np.float32)
    states_in = [op.parameter([rows or -1, *dims(state)[1:]], np.float32) for state in first]
    states_out = step(op.squeeze(slice_in, whole([1])), states_in)
    results = [op.result(state) for state in states_out]
    each = op.result(op.unsqueeze(states_out[0], whole([1])))
    loop = op.tensor_iterator()
    loop.set_body(ov.Model([*results, each], [slice_in, *states_in]))
    loop.set_sliced_input(slice_in, _output(x), 0, 1, 1, -1, 1)
    for parameter, start, result in zip(states_in, first, results, strict=True):
        loop.set_merged_input(parameter, _output(start), result.output(0))
    last = [loop.get_iter_value(result.output(0), -1) for result in results]
    return loop.get_concatenated_slices(each.output(0), 0, 1, 1, -1, 1), last


def _output(node: Node) -> ov.Output:
    return node.output(0) if isinstance(node, ov.Node) else node


def _bidirectional(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    """The sequence from both ends; what comes from its end is turned round where it is a sequence."""
    ahead, back = layer.child("layer", inputs), layer.child("backward_layer", inputs)
    flags = [layer.config[name].config for name in ("layer", "backward_layer")]
    if any(config["return_sequences"] != flags[0]["return_sequences"] for config in flags):
        raise Unsupported("layers that return different things")
    first, second = ahead[0], back[0]
    if flags[0]["return_sequences"]:
        second = value(_reversed(in_keras_order(second)))
    return [*_merged(layer, first, second), *ahead[1:], *back[1:]]


def _merged(layer: Layer, first: Value, second: Value) -> list[Value]:
    mode = layer.config["merge_mode"]
    if mode is None:
        return [first, second]
    if mode == "concat":
        return [value(op.concat([first.node, second.node], first.rank - 1))]
    if mode not in _MERGE_MODES:
        raise Unsupported(f"merge_mode={mode}")
    merged = MERGES[_MERGE_MODES[mode]](layer, [first, second])
    return merged if isinstance(merged, list) else [merged]


_MERGE_MODES = {"ave": "Average", "mul": "Multiply", "sum": "Add"}


def _time_distributed(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The layer inside for every step alone: steps are rows to it."""
    (sequence,) = inputs
    length, *sizes = known(sequence.shape[1:])
    rows = op.reshape(in_keras_order(sequence), whole([-1, *sizes]), False)
    made = layer.child("layer", [value(rows)])
    if len(made) != 1:
        raise Unsupported("a layer with several outputs")
    return value(op.reshape(in_keras_order(made[0]), whole([-1, length, *known(made[0].shape[1:])]), False))


LAYERS: dict[str, BuildLayer] = {
    "Bidirectional": _bidirectional,
    "GRU": _recurrent(_gru_step, 3, 1),
    "LSTM": _recurrent(_lstm_step, 4, 2),
    "SimpleRNN": _recurrent(_simple_step, 1, 1),
    "TimeDistributed": _time_distributed,
}
