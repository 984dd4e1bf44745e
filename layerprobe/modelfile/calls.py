"""The calls of a layer, from the two ways in which Keras writes them down.

Keras 1 and 2 (https://github.com/keras-team/tf-keras/blob/v2.15.0/tf_keras/engine/node.py)::

    "inbound_nodes": [[["conv", 0, 0, {"training": false}], ["other", 0, 0, {}]]]

Keras 3 (https://github.com/keras-team/keras/blob/v3.8.0/keras/src/models/functional.py)::

    "inbound_nodes": [{"args": [{"class_name": "__keras_tensor__", ...}], "kwargs": {}}]

A tensor is a layer's name, the index of the call that made it (the "node"), and which of its results. The
indices are counted differently over the years; `count_from_zero` brings them to one count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from layerprobe.errors import ModelError
from layerprobe.modelfile.classes import RECURRENT
from layerprobe.modelfile.graph import Call, LayerNode, Reference, references

_CONSTANT = "_CONSTANT_VALUE"


def read_calls(nodes: Any, class_name: str, place: str) -> tuple[Call, ...]:
    """Read a layer's `inbound_nodes`; the calls of its references are still the file's node indices.

    Raises:
        ModelError: They are not in either form.
    """
    if not isinstance(nodes, list):
        raise ModelError(f"{place}: inbound_nodes is not a list: the file is damaged.")
    calls = []
    for node in nodes:
        if isinstance(node, dict) and "args" in node and "kwargs" in node:
            arguments = read_structure(node["args"], place)
            keywords = read_structure(node["kwargs"], place)
            if not isinstance(arguments, list | tuple) or not isinstance(keywords, dict):
                raise ModelError(f"{place}: a call's args or kwargs are malformed: the file is damaged.")
            if class_name == "GetItem":
                # JSON makes the tuple of `x[:, 0]` a list, which would mean something else.
                arguments = [tuple(value) if isinstance(value, list) else value for value in arguments]
            call = Call(tuple(arguments), _meant(keywords))
        else:
            call = _legacy_call(node, place)
        if call.references():
            calls.append(_split_initial_state(call) if class_name in RECURRENT else call)
    return tuple(calls)


def read_structure(value: Any, place: str) -> Any:
    """Read a value as Keras 3 writes it: tuples, slices, tensors and dtypes are tagged objects."""
    if isinstance(value, list):
        return [read_structure(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    kind, config = value.get("class_name"), value.get("config")
    if kind == "__tuple__" and isinstance(value.get("items"), list):
        return tuple(read_structure(item, place) for item in value["items"])
    if kind == "__keras_tensor__" and isinstance(config, dict):
        return _reference(config.get("keras_history"), place)
    if kind in ("__tensor__", "__numpy__") and isinstance(config, dict):
        return _constant(config.get("value"), config.get("dtype"), place)
    if kind == "slice" or kind == "__slice__":
        return _slice(config if config is not None else value, place)
    if kind == "__ellipsis__":
        return Ellipsis
    return {key: read_structure(item, place) for key, item in value.items()}


def _reference(history: Any, place: str) -> Reference:
    if (
        isinstance(history, list)
        and len(history) >= 3
        and isinstance(history[0], str)
        and all(type(index) is int and index >= 0 for index in history[1:3])
    ):
        return Reference(history[0], history[1], history[2])
    raise ModelError(f"{place}: {str(history)[:80]} names no tensor: the file is damaged.")


def _constant(value: Any, dtype: Any, place: str) -> Any:
    try:
        return np.asarray(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{place}: a constant is malformed ({error}): the file is damaged.") from error


def _slice(config: Any, place: str) -> slice:
    """`{"start":, "stop":, "step":}`, or a list of the three in files of Keras 3.0."""
    parts = [config.get(key) for key in ("start", "stop", "step")] if isinstance(config, dict) else config
    if isinstance(parts, list) and len(parts) == 3:
        return slice(*(read_structure(part, place) for part in parts))
    raise ModelError(f"{place}: a slice is malformed: the file is damaged.")


def _legacy_call(node: Any, place: str) -> Call:
    """One node of Keras 1 or 2: the first argument's structure, the keywords beside each tensor in it."""
    keywords: dict[str, Any] = {}

    def leaf(item: list[Any]) -> Any:
        if len(item) == 4 and isinstance(item[3], dict):
            keywords.update(item[3])
        return item[2] if item[0] == _CONSTANT else _reference(item, place)

    argument = _map_legacy(node, leaf)
    if isinstance(argument, list) and len(argument) == 1:
        argument = argument[0]
    return Call((argument,), _meant({name: _map_legacy(value, leaf) for name, value in keywords.items()}))


def _map_legacy(value: Any, leaf: Callable[[list[Any]], Any]) -> Any:
    if is_legacy_reference(value):
        return leaf(value)
    if isinstance(value, list):
        return [_map_legacy(item, leaf) for item in value]
    if isinstance(value, dict):
        return {key: _map_legacy(item, leaf) for key, item in value.items()}
    return value


def is_legacy_reference(value: Any) -> bool:
    """Whether this is `[layer, node, tensor]` or `[layer, node, tensor, keywords]`."""
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and (value[0] == _CONSTANT or all(type(index) is int for index in value[1:3]))
    )


def _meant(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keywords that say nothing: `mask=None`, `mask=[None, None]`, `name=None`."""

    def says_nothing(value: Any) -> bool:
        return value is None or (isinstance(value, list) and bool(value) and all(map(says_nothing, value)))

    return {name: value for name, value in keywords.items() if not says_nothing(value)}


def _split_initial_state(call: Call) -> Call:
    """Keras 1 and 2 put a recurrent layer's initial state among its inputs, as further tensors."""
    first = call.arguments[0] if call.arguments else None
    if isinstance(first, list) and len(first) > 1 and "initial_state" not in call.keywords:
        return Call((first[0],), {**call.keywords, "initial_state": first[1:]})
    return call


def count_from_zero(layers: list[LayerNode], outputs: Any, legacy: bool) -> tuple[list[LayerNode], Any]:
    """Make every reference's `call` an index into the calls of the layer that it names.

    A nested model had a first call of its own before it was used in the graph. Keras 1 and 2 count it, so
    that references to it begin at 1; Keras 3 counts it only in `output_layers`. What the file itself shows
    (an index that is too large, an index 0) goes before that rule.
    """
    nodes = {node.name: node for node in layers}
    inside = [reference for node in layers for call in node.calls for reference in call.references()]
    returned = references(outputs)
    first = _first_index(nodes, [*inside, *returned] if legacy else inside, 1 if legacy else 0)
    first_output = first if legacy else _first_index(nodes, returned, 1)
    counted = [
        replace(node, calls=tuple(_shift_call(call, nodes, first) for call in node.calls)) for node in layers
    ]
    return counted, _shift(outputs, nodes, first_output)


def _first_index(nodes: Mapping[str, LayerNode], found: list[Reference], nested: int) -> dict[str, int]:
    """For each layer, the node index that means its first call."""
    used: dict[str, list[int]] = {}
    for reference in found:
        used.setdefault(reference.layer, []).append(reference.call)
    first = {}
    for name, indices in used.items():
        node = nodes.get(name)
        guess = nested if node is not None and node.inner is not None else 0
        calls = max(1, len(node.calls)) if node is not None else 1
        first[name] = max(min(guess, min(indices)), max(indices) - calls + 1)
    return first


def _shift_call(call: Call, nodes: Mapping[str, LayerNode], first: Mapping[str, int]) -> Call:
    return Call(
        tuple(_shift(value, nodes, first) for value in call.arguments),
        {name: _shift(value, nodes, first) for name, value in call.keywords.items()},
    )


def _shift(value: Any, nodes: Mapping[str, LayerNode], first: Mapping[str, int]) -> Any:
    if isinstance(value, Reference):
        call = value.call - first.get(value.layer, 0)
        node = nodes.get(value.layer)
        if node is None:
            raise ModelError(f"a call takes the output of layer {value.layer!r}, which the model has not.")
        if call < 0 or call >= max(1, len(node.calls)):
            raise ModelError(f"call {value.call} of layer {value.layer!r} is used, but never made.")
        return Reference(value.layer, call, value.output)
    if isinstance(value, list | tuple):
        return type(value)(_shift(item, nodes, first) for item in value)
    if isinstance(value, dict):
        return {key: _shift(item, nodes, first) for key, item in value.items()}
    return value
