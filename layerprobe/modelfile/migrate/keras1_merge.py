"""Keras 1's Merge: one layer for every way to join tensors, and for joining whole models in a Sequential.

https://github.com/keras-team/keras/blob/1.2.2/keras/engine/topology.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerprobe.modelfile.migrate.layer import SavedLayer
from layerprobe.modelfile.saved import first_shape

_MODES = {
    "ave": "Average",
    "concat": "Concatenate",
    "cos": "Dot",
    "dot": "Dot",
    "max": "Maximum",
    "mul": "Multiply",
    "sum": "Add",
}


def merge(layer: SavedLayer) -> bool:
    """`Merge(mode="concat")` and the like; a mode that is a function becomes a Lambda."""
    if layer.class_name != "Merge":
        return False
    config = layer.config
    mode, mode_type = config.get("mode"), config.get("mode_type", "raw")
    kept: dict[str, Any] = {name: config[name] for name in ("name", "trainable", "dtype") if name in config}
    if mode_type != "raw":
        arguments = config.get("arguments") or {}
        layer.class_name = "Lambda"
        layer.config = {**kept, "function": mode, "function_type": mode_type, "arguments": arguments}
        return True
    if mode not in _MODES:
        return False
    layer.class_name = _MODES[mode]
    if mode == "concat":
        kept["axis"] = config.get("concat_axis", -1)
    if layer.class_name == "Dot":
        kept |= {"axes": _axes(config.get("dot_axes", -1)), "normalize": mode == "cos"}
    layer.config = kept
    return True


def _axes(axes: Any) -> Any:
    """`[[1], [2]]` of Keras 0.3 is `[1, 2]` since."""
    if isinstance(axes, list):
        return [axis[0] if isinstance(axis, list) and axis else axis for axis in axes]
    return axes


def is_merge_of_models(saved: Any) -> bool:
    """Whether a Sequential model's first layer joins other models."""
    config = saved.get("config") if isinstance(saved, dict) and saved.get("class_name") == "Merge" else None
    return isinstance(config, dict) and isinstance(config.get("layers"), list) and bool(config["layers"])


def as_functional(layers: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The functional config of a Sequential model that begins with a Merge of models.

    Args:
        layers: Of the Sequential model, as the file has them.
        name: Of the model.

    Returns:
        A config in the style of Keras 2: an InputLayer and a nested model for each branch, then the rest.
    """
    written: list[dict[str, Any]] = []
    branches = []
    for number, branch in enumerate(layers[0]["config"]["layers"]):
        title = f"{_name(layers[0])}_branch_{number}"
        shape = first_shape(branch)
        source = {"name": f"{title}_input", "batch_input_shape": shape, "dtype": "float32"}
        written.append(_entry("InputLayer", source, source["name"], []))
        written.append({**branch, "name": title, "inbound_nodes": [[[source["name"], 0, 0]]]})
        branches.append([title, 1, 0])
    before: list[Any] = branches
    for layer in layers:
        config = {key: value for key, value in layer["config"].items() if key != "layers"}
        written.append(_entry(layer["class_name"], config, _name(layer), [before]))
        before = [[_name(layer), 0, 0]]
    inputs = [[entry["name"], 0, 0] for entry in written if entry["class_name"] == "InputLayer"]
    return {"name": name, "layers": written, "input_layers": inputs, "output_layers": before}


def _entry(class_name: str, config: Mapping[str, Any], name: str, nodes: list[Any]) -> dict[str, Any]:
    return {"class_name": class_name, "config": config, "name": name, "inbound_nodes": nodes}


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer["config"].get("name", layer["class_name"].lower()))
