"""What the pieces of a config are, judged before they are understood."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from layerprobe.errors import ModelError
from layerprobe.modelfile.calls import is_legacy_reference, read_structure
from layerprobe.modelfile.graph import Reference
from layerprobe.modelfile.operations import OPERATIONS


def read_version(text: str | None, document: Any) -> tuple[int, int]:
    """(major, minor) of the Keras that wrote a config, judged by its style where it does not say."""
    numbers = re.match(r"(\d+)\.(\d+)", text or "")
    if numbers:
        return int(numbers[1]), int(numbers[2])
    style = str(document)
    if "'batch_shape'" in style or "'keras_history'" in style:
        return 3, 0
    if any(word in style for word in ("'nb_filter'", "'W_regularizer'", "'border_mode'", "'inner_init'")):
        return 1, 0
    return 2, 0


def is_model(config: Any) -> bool:
    """Whether a config describes a functional model, whatever its class is called."""
    return isinstance(config, dict) and "input_layers" in config and isinstance(config.get("layers"), list)


def is_stack(config: Any) -> bool:
    """Whether a config describes a Sequential model, whatever its class is called."""
    layers = config.get("layers") if isinstance(config, dict) else None
    return isinstance(layers, list) and all(
        isinstance(item, dict) and "class_name" in item for item in layers
    )


def is_operation(module: Any, class_name: str, config: Mapping[str, Any], version: tuple[int, int]) -> bool:
    """Whether an entry is a bare operation: by its module or, in `.h5`, which has none, by what it lacks."""
    if isinstance(module, str):
        return module.startswith(("keras.src.ops", "keras.ops"))
    return version >= (3, 0) and class_name in OPERATIONS and "trainable" not in config


def is_keras(module: Any, class_name: str, registered: Any) -> bool:
    """Whether a class is Keras's own, as far as the file's words go."""
    if isinstance(registered, str) and ">" in registered:
        return False
    if not isinstance(module, str):
        return ">" not in class_name
    return module.split(".")[0] == "keras" or module.startswith(
        ("tensorflow.keras", "tf_keras", "tensorflow.python.keras")
    )


def first_shape(saved: Any) -> Any:
    """The batch_input_shape of a Sequential model's first layer, also where that is a model or a wrapper."""
    config = saved.get("config") if isinstance(saved, dict) else None
    if isinstance(config, list):
        return first_shape(config[0]) if config else None
    if not isinstance(config, dict):
        return None
    for name in ("batch_input_shape", "batch_shape", "build_input_shape"):
        if config.get(name) is not None:
            return config[name]
    if isinstance(config.get("layers"), list) and config["layers"]:
        return first_shape(config["layers"][0])
    if isinstance(config.get("layer"), dict):
        return first_shape(config["layer"])
    return None


def tensor_structure(value: Any, place: str) -> Any:
    """`input_layers` or `output_layers`: one tensor, a list or a dict; a list of one is that one."""
    if is_legacy_reference(value):
        return Reference(value[0], value[1], value[2])
    if isinstance(value, list) and value:
        items = [tensor_structure(item, place) for item in value]
        return items[0] if len(items) == 1 else items
    if isinstance(value, dict) and value:
        if "class_name" in value:
            return read_structure(value, place)
        return {key: tensor_structure(item, place) for key, item in value.items()}
    raise ModelError(f"model {place!r} does not say what goes in or comes out: the file is damaged.")
