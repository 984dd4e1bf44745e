"""Layers around another layer: over time from both ends, or for every step alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from openvino import opset13 as op

from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.loops import backwards
from layerprobe.engines.graph.masks import takes_mask
from layerprobe.engines.graph.merge import LAYERS as MERGES
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import Value, dims, in_keras_order, known, value, whole
from layerprobe.modelfile.graph import Call


def _bidirectional(layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    """The sequence from both ends; what comes from its end is turned round where it is a sequence."""
    flags = [layer.config[name].config for name in ("layer", "backward_layer")]
    if any(config["return_sequences"] != flags[0]["return_sequences"] for config in flags):
        raise Unsupported("layers that return different things")
    states = flat(layer.keywords.get("initial_state", []))
    half = len(states) // 2
    ahead = _one_way(layer, "layer", inputs, states[:half])
    back = _one_way(layer, "backward_layer", inputs, states[half:])
    first, second = ahead[0], back[0]
    if flags[0]["return_sequences"]:
        second = value(backwards(in_keras_order(second)))
    return [*_merged(layer, first, second), *ahead[1:], *back[1:]]


def _one_way(layer: Layer, name: str, inputs: Sequence[Value], states: Sequence[Value]) -> list[Value]:
    """One of both layers; whatever it says itself, a sequence from it is zero where a mask leaves it out."""
    node = layer.config[name]
    node = dataclasses.replace(
        node, config={**node.config, "zero_output_for_mask": node.config["return_sequences"]}
    )
    keywords: dict[str, Any] = {"initial_state": list(states)} if states else {}
    if layer.mask is not None:
        keywords["mask"] = value(layer.mask)
    return layer.build(node, f"{layer.address}/{node.name}", Call(tuple(inputs), keywords))


def _merged(layer: Layer, first: Value, second: Value) -> list[Value]:
    mode = layer.config["merge_mode"]
    if mode is None:
        return [first, second]
    if mode == "concat":
        return [value(op.concat([in_keras_order(first), in_keras_order(second)], first.rank - 1))]
    if mode not in _MERGE_MODES:
        raise Unsupported(f"merge_mode={mode}")
    merged = MERGES[_MERGE_MODES[mode]](layer, [value(in_keras_order(half)) for half in (first, second)])
    return merged if isinstance(merged, list) else [merged]


_MERGE_MODES = {"ave": "Average", "mul": "Multiply", "sum": "Add"}


def _time_distributed(layer: Layer, inputs: Sequence[Value]) -> Value:
    """The layer inside for every step alone: steps are rows to it."""
    (sequence,) = inputs
    length, *sizes = known(sequence.shape[1:])
    rows = op.reshape(in_keras_order(sequence), whole([-1, *sizes]), False)
    keywords = {}
    if layer.mask is not None and takes_mask(layer.config["layer"]):
        each = known(dims(layer.mask)[2:])
        keywords["mask"] = value(op.reshape(layer.mask, whole([-1, *each]), False))
    made = layer.child("layer", [value(rows)], **keywords)
    if len(made) != 1:
        raise Unsupported("a layer with several outputs")
    return value(op.reshape(in_keras_order(made[0]), whole([-1, length, *known(made[0].shape[1:])]), False))


LAYERS: dict[str, BuildLayer] = {"Bidirectional": _bidirectional, "TimeDistributed": _time_distributed}
