"""ConvLSTM layers: LSTMs over sequences of images, whose products are convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openvino import opset13 as op

from layerprobe.engines.graph.convolution import Geometry, same_padding
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.loops import Cell, course
from layerprobe.engines.graph.recurrent import lstm_step, split
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
    whole,
)


def _conv_lstm(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    """The convolutions of what goes in are computed for all steps at once, channels-first."""
    (sequence,) = inputs
    if layer.is_channels_first:
        raise Unsupported("data_format=channels_first")
    if layer.keywords or (layer.mask is not None and len(dims(layer.mask)) != 2):
        raise Unsupported("a first state, or a mask with more axes than batch and time")
    images = _channels_forward(in_keras_order(as_float(sequence)), 2)
    length, channels, *_ = known(dims(images)[1:])
    x = op.reshape(images, whole([-1, *known(dims(images)[2:])]), False)
    geometry, filters = Geometry(layer, x.output(0)), layer.config["filters"]
    bias = {"bias": (4 * filters,)} if layer.config["use_bias"] else {}
    arrays = layer.arrays(
        kernel=(*geometry.kernel, channels, 4 * filters),
        recurrent_kernel=(*geometry.kernel, filters, 4 * filters),
        **bias,
    )
    gates: Node = geometry.convolve(x.output(0), arrays["kernel"], 1)
    sizes = known(dims(gates)[2:])
    if bias:
        gates = op.add(gates, constant(arrays["bias"].reshape(1, -1, *[1] * len(sizes))))
    cell = _cell(layer, arrays["recurrent_kernel"], (filters, *sizes))
    shape = [-1, length, 4 * filters, *sizes]
    taken = course(layer, cell, op.reshape(gates, whole(shape), False))
    states = taken.states if layer.config["return_state"] else []
    last = [value(node, turned=True) for node in (taken.last, *states)]
    if not layer.config["return_sequences"]:
        return last
    return [value(_channels_back(taken.steps, 2)), *last[1:]]


def _cell(layer: Layer, kernel: np.ndarray, state: tuple[int, ...]) -> Cell:
    """The recurrent part: a convolution that keeps the image's size, whatever the layer's own does."""
    width = kernel.shape[:-2]
    ones = [1] * len(width)
    before, after = same_padding(state[1:], width, ones, ones)
    weights = constant(np.moveaxis(kernel, (-1, -2), (0, 1)))

    def step(x: Node, states: Sequence[Node]) -> list[Node]:
        inner = op.convolution(states[0], weights, ones, before, after, ones)
        # Split before they are added: OpenVINO 2026.4 loses a convolution over few pixels that another
        # tensor is added to, where B is not known.
        gates = [op.add(*pair) for pair in zip(split(x, 4), split(inner, 4), strict=True)]
        return lstm_step(layer, gates, states[1])

    return Cell((state, state), lambda x: x, step)


def _channels_forward(x: Node, place: int) -> Node:
    rank = len(dims(x))
    return op.transpose(x, whole([*range(place), rank - 1, *range(place, rank - 1)]))


def _channels_back(x: Node, place: int) -> Node:
    rank = len(dims(x))
    return op.transpose(x, whole([*range(place), *range(place + 1, rank), place]))


LAYERS: dict[str, BuildLayer] = {f"ConvLSTM{rank}D": _conv_lstm for rank in (1, 2, 3)}
