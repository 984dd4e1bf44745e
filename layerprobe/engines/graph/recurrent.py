"""Recurrent layers and cells.

What goes in is multiplied by its kernel once for all steps; the loop's body has the recurrent part alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from openvino import opset13 as op

from layerprobe.engines.graph.activations import apply_named
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.loops import Cell, course
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Node,
    Value,
    as_float,
    constant,
    dims,
    in_keras_order,
    known,
    value,
)
from layerprobe.modelfile.graph import LayerNode

if TYPE_CHECKING:
    from layerprobe.records import Array

MakeCell = Callable[[Layer, int], Cell]
"""A layer or cell, and how many features go into it."""


def applied(layer: Layer, argument: str, x: Node) -> Node:
    """Apply one of a recurrent layer's activations."""
    name = layer.config[argument]
    if isinstance(name, LayerNode):
        raise Unsupported(f"a layer as its {argument}")
    return apply_named(name, layer.result(x)).node


def split(x: Node, count: int) -> list[Node]:
    """As many equal parts along axis 1."""
    return list(op.split(x, constant(1, "int64"), count).outputs())


def _product(x: Node, kernel: Array) -> Node:
    return op.matmul(x, constant(kernel), False, False)


def _projection(kernel: Array, bias: Array | None) -> Callable[[Node], Node]:
    def project(x: Node) -> Node:
        product = _product(x, kernel)
        return product if bias is None else op.add(product, constant(bias))

    return project


def _arrays(layer: Layer, features: int, gates: int, bias_rows: tuple[int, ...] = ()) -> dict[str, Array]:
    units = layer.config["units"]
    bias = {"bias": (*bias_rows, gates * units)} if layer.config["use_bias"] else {}
    return layer.arrays(kernel=(features, gates * units), recurrent_kernel=(units, gates * units), **bias)


def _simple(layer: Layer, features: int) -> Cell:
    arrays = _arrays(layer, features, 1)

    def step(x: Node, states: Sequence[Node]) -> list[Node]:
        # In this order: what goes in step by step and comes first is lost by OpenVINO 2026.4, which fuses the
        # sum into the product, where the batch size is fixed.
        return [applied(layer, "activation", op.add(_product(states[0], arrays["recurrent_kernel"]), x))]

    return Cell(((layer.config["units"],),), _projection(arrays["kernel"], arrays.get("bias")), step)


def lstm_step(layer: Layer, gates: Sequence[Node], carry: Node) -> list[Node]:
    """The new states of an LSTM: what it gives, and what it carries.

    Args:
        layer: With the activations.
        gates: (B, units, ...) each: input, forget, new and output gate, before their activations.
        carry: (B, units, ...)
    """
    into, forget, new, out = gates
    kept = op.multiply(applied(layer, "recurrent_activation", forget), carry)
    taken = op.multiply(applied(layer, "recurrent_activation", into), applied(layer, "activation", new))
    carry = op.add(kept, taken)
    shown = applied(layer, "activation", carry)
    return [op.multiply(applied(layer, "recurrent_activation", out), shown), carry]


def _lstm(layer: Layer, features: int) -> Cell:
    arrays = _arrays(layer, features, 4)

    def step(x: Node, states: Sequence[Node]) -> list[Node]:
        gates = op.add(x, _product(states[0], arrays["recurrent_kernel"]))
        return lstm_step(layer, split(gates, 4), states[1])

    size = (layer.config["units"],)
    return Cell((size, size), _projection(arrays["kernel"], arrays.get("bias")), step)


def _gru(layer: Layer, features: int) -> Cell:
    after, units = layer.config["reset_after"], layer.config["units"]
    arrays = _arrays(layer, features, 3, (2,) if after else ())
    kernel, bias = arrays["recurrent_kernel"], arrays.get("bias")
    inner_bias = bias[1] if bias is not None and after else None
    outer_bias = bias[0] if bias is not None and after else bias

    def gate(x: Node, inner: Node) -> Node:
        return applied(layer, "recurrent_activation", op.add(x, inner))

    def step(x: Node, states: Sequence[Node]) -> list[Node]:
        (hidden,) = states
        update, reset, new = split(x, 3)
        if after:
            inner_update, inner_reset, inner_new = split(_projection(kernel, inner_bias)(hidden), 3)
            inner = op.multiply(gate(reset, inner_reset), inner_new)
        else:
            inner_update, inner_reset = split(_product(hidden, kernel[:, : 2 * units]), 2)
            inner = _product(op.multiply(gate(reset, inner_reset), hidden), kernel[:, 2 * units :])
        new = applied(layer, "activation", op.add(new, inner))
        kept = gate(update, inner_update)
        rest = op.subtract(constant(1.0), kept)
        return [op.add(op.multiply(kept, hidden), op.multiply(rest, new))]

    return Cell(((units,),), _projection(arrays["kernel"], outer_bias), step)


def _stacked(layer: Layer, features: int) -> Cell:
    """One cell after the other at every step; what the last one gives is what comes out."""
    cells: list[Cell] = []
    for node in layer.config["cells"]:
        cells.append(_cell(_part(layer, node), features))
        (features,) = cells[-1].states[cells[-1].output]
    ends = list(itertools.accumulate((len(cell.states) for cell in cells), initial=0))

    def step(x: Node, states: Sequence[Node]) -> list[Node]:
        made: list[Node] = []
        for number, (cell, begin, end) in enumerate(zip(cells, ends, ends[1:], strict=False)):
            new = cell.step(cell.project(x) if number else x, states[begin:end])
            x = new[cell.output]
            made += new
        return made

    shapes = tuple(shape for cell in cells for shape in cell.states)
    return Cell(shapes, cells[0].project, step, ends[-2] + cells[-1].output)


def _part(layer: Layer, node: LayerNode) -> Layer:
    """A layer that one of its arguments is."""
    if node.config["dtype"] != "float32":
        raise Unsupported(f"dtype {node.config['dtype']}")
    return dataclasses.replace(layer, node=node, address=f"{layer.address}/{node.name}")


def _cell(layer: Layer, features: int) -> Cell:
    node = layer.node
    if node.module != "keras.layers" or node.class_name not in _CELLS:
        raise Unsupported(f"the cell {node.class_name}")
    return _CELLS[node.class_name](layer, features)


_CELLS: dict[str, MakeCell] = {
    "GRUCell": _gru,
    "LSTMCell": _lstm,
    "SimpleRNNCell": _simple,
    "StackedRNNCells": _stacked,
}


def _of_cell(layer: Layer, features: int) -> Cell:
    return _cell(_part(layer, layer.config["cell"]), features)


def _recurrent(make: MakeCell, layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    (sequence,) = inputs
    x = in_keras_order(as_float(sequence))
    (features,) = known(dims(x)[2:])
    cell = make(layer, features)
    taken = course(layer, cell, cell.project(x))
    given = taken.steps if layer.config["return_sequences"] else taken.last
    return [value(node) for node in (given, *(taken.states if layer.config["return_state"] else ()))]


LAYERS: dict[str, BuildLayer] = {
    "GRU": functools.partial(_recurrent, _gru),
    "LSTM": functools.partial(_recurrent, _lstm),
    "RNN": functools.partial(_recurrent, _of_cell),
    "SimpleRNN": functools.partial(_recurrent, _simple),
}
