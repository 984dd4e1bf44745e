"""The loop of a recurrent layer: one step after the other, and what a mask makes of it.

It is Keras's own `backend.rnn`: where a step does not count, states stay as they were and what the layer
gives is what it gave at the step before, which is zero at first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.layer import Layer
from layerprobe.engines.graph.masks import beside
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Mask,
    Node,
    constant,
    dims,
    dtype_of,
    in_keras_order,
    known,
    only_float,
    whole,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """What a recurrent layer does at each step."""

    states: tuple[tuple[int, ...], ...]
    """The shape of one row of each of its states."""
    project: Callable[[Node], Node]
    """What depends on the input alone, for one step or all: (..., features) -> (..., numbers)."""
    step: Callable[[Node, Sequence[Node]], list[Node]]
    """What `project` gave for one step and the states -> the new states."""
    output: int = 0
    """Which of the states is what the layer gives."""


@dataclass(frozen=True, slots=True)
class Course:
    """What a loop gives."""

    steps: Node
    """(B, T, ...): what the layer gives at every step, in the order in which they were taken."""
    last: Node
    """(B, ...): the same at the last one."""
    states: list[Node]
    """After the last step."""


def course(layer: Layer, cell: Cell, projected: Node) -> Course:
    """Take all steps of a recurrent layer.

    Args:
        layer: With Keras's arguments for recurrent layers.
        cell: What it does.
        projected: (B, T, ...) what its `project` gave.
    """
    config, mask = layer.config, layer.mask
    if config["stateful"]:
        raise Unsupported("states that are kept between batches")
    if config["go_backwards"]:
        projected = backwards(projected)
        mask = None if mask is None else backwards(mask).output(0)
    first = _first_states(layer, cell, projected)
    if mask is None:
        return _Loop(cell, projected, first).course()
    return _Loop(cell, projected, first, mask, bool(config.get("zero_output_for_mask"))).course()


def backwards(x: Node) -> ov.Node:
    """(B, T, ...) with time from its end."""
    (length,) = known(dims(x)[1:2])
    return op.gather(x, whole(range(length - 1, -1, -1)), constant(1, "int64"))


def _first_states(layer: Layer, cell: Cell, x: Node) -> list[Node]:
    given = flat(layer.keywords.get("initial_state", []))
    if given:
        if [tuple(known(state.shape[1:])) for state in given] != list(cell.states):
            raise Unsupported("initial states of other shapes")
        return [in_keras_order(only_float(state)) for state in given]
    return [_zeros(x, shape) for shape in cell.states]


def _zeros(x: Node, shape: Sequence[int]) -> ov.Node:
    rows = op.gather(op.shape_of(x), whole([0]), constant(0, "int64"))
    return op.broadcast(constant(0.0), op.concat([rows, whole(shape)], 0))


class _Loop:
    """A loop while it is built: what goes round, and what goes in step by step."""

    def __init__(
        self, cell: Cell, x: Node, first: Sequence[Node], mask: Mask = None, zero: bool = False
    ) -> None:
        self._rows = dims(x)[0] or -1
        self._inputs: list[ov.Node] = []
        self._sliced: list[tuple[ov.Node, Node]] = []
        self._merged: list[tuple[ov.Node, Node]] = []
        states = [self._round(start) for start in first]
        made = cell.step(self._slice(x), states)
        given = made[cell.output]
        if mask is not None:
            counts = self._slice(mask)
            before = constant(0.0) if zero else self._round(_zeros(x, cell.states[cell.output]))
            given = _chosen(counts, given, before)
            made = [_chosen(counts, new, old) for new, old in zip(made, states, strict=True)]
        self._states = len(made)
        carried = made if mask is None or zero else [*made, given]
        self._results = [op.result(node) for node in carried]
        self._last = op.result(given)
        self._each = op.result(op.unsqueeze(given, whole([1])))

    def _slice(self, x: Node) -> ov.Node:
        """One step of (B, T, ...), as (B, ...)."""
        inside = op.parameter([self._rows, 1, *known(dims(x)[2:])], np.dtype(dtype_of(x)))
        self._sliced.append((inside, x))
        return op.squeeze(inside, whole([1]))

    def _round(self, start: Node) -> ov.Node:
        """What goes from step to step, in the order in which it comes out."""
        inside = op.parameter([self._rows, *known(dims(start)[1:])], np.float32)
        self._merged.append((inside, start))
        return inside

    def course(self) -> Course:
        loop = op.tensor_iterator()
        parameters = [inside for inside, _ in (*self._sliced, *self._merged)]
        loop.set_body(ov.Model([*self._results, self._last, self._each], parameters))
        for inside, x in self._sliced:
            loop.set_sliced_input(inside, _output(x), 0, 1, 1, -1, 1)
        for (inside, start), result in zip(self._merged, self._results, strict=True):
            loop.set_merged_input(inside, _output(start), result.output(0))
        states = [loop.get_iter_value(result.output(0), -1) for result in self._results[: self._states]]
        last = loop.get_iter_value(self._last.output(0), -1)
        steps = loop.get_concatenated_slices(self._each.output(0), 0, 1, 1, -1, 1)
        return Course(steps, last, states)


def _chosen(counts: Node, new: Node, old: Node) -> ov.Node:
    return op.select(beside(_output(counts), len(dims(new)), dims(new)), new, old)


def _output(node: Node) -> ov.Output:
    return node.output(0) if isinstance(node, ov.Node) else node
