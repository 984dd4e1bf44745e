"""What one layer of a config names that is code, and not a layer of Keras.

A class of someone else's is no danger by its name: it is not imported, and its layer is listed as one that
needs the user's code. Here is what is refused whatever the user gives: byte code outside Lambda layers,
classes that run foreign code or load other files, functions of Keras and of Python that no layer needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

_RUN_CODE = {
    "TorchModuleWrapper": "it holds a pickled PyTorch module, which runs code when it is read",
    "JaxLayer": "it calls a function of JAX that the file names",
    "FlaxLayer": "it calls a module of Flax that the file names",
    "TFSMLayer": "it loads another SavedModel from where the file says",
}
_LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization", "IndexLookup")
_KERAS = ("keras", "tf_keras", "tensorflow")
_NO_LAYERS = frozenset(
    (
        *("applications", "backend", "callbacks", "config", "datasets", "distribution", "export"),
        *("saving", "testing", "tree", "utils", "wrappers"),
    )
)
"""Modules of Keras whose functions a config never needs; some download, load or switch off checks."""
_FUNCTIONS = frozenset(
    (
        *("clone_model", "deserialize", "deserialize_keras_object", "enable_unsafe_deserialization"),
        *("get_file", "load_model", "load_weights", "model_from_config", "model_from_json", "save_model"),
        "set_floatx",
    )
)
"""Functions of Keras's other modules that load or change something."""
_OUTSIDE = ("inbound_nodes", "layers", "name")
"""Parts of a layer's entry that name nothing, or layers that are looked at on their own."""


def refused_construct(saved: Mapping[str, Any]) -> str | None:
    """Look for what must never be built in one layer's entry of a config.

    Args:
        saved: `{"class_name": ..., "config": ..., "module": ...}` as the file has it; the layers of a nested
            model are left out.

    Returns:
        A clause that names the construct, or None.
    """
    return next((reason for reason in _reasons(saved, "") if reason is not None), None)


def _reasons(value: Any, place: str) -> Iterator[str | None]:
    """What is wrong with one value and all within it; `place` is the argument that holds it."""
    if isinstance(value, list):
        for item in value:
            yield from _reasons(item, place)
    elif isinstance(value, Mapping):
        is_lambda = _short(value.get("class_name")) == "Lambda"
        yield _of_object(value, place)
        for key, item in value.items():
            if key in _OUTSIDE:
                continue
            if is_lambda and key == "config" and isinstance(item, Mapping):
                # A Lambda's own functions are decoded, and never run.
                item = {k: v for k, v in item.items() if k not in ("function", "mask", "output_shape")}
            yield from _reasons(item, place if key == "config" else str(key)[:80])


def _of_object(value: Mapping[str, Any], place: str) -> str | None:
    """What is wrong with a value that names a class or a function."""
    name, module, config = value.get("class_name"), value.get("module"), value.get("config")
    if not isinstance(name, str):
        return None
    short = _short(name)
    if short in _RUN_CODE:
        return f"{short} is refused: {_RUN_CODE[short]}"
    if short == "__lambda__":
        return f"its argument {place} is byte code, which is never run"
    if short in _LOOKUPS and isinstance(config, Mapping) and isinstance(config.get("vocabulary"), str):
        return f"{short} is refused: its vocabulary would be read from {config['vocabulary'][:200]!r}"
    function = config if short == "function" and isinstance(config, str) else short
    if isinstance(module, str) and _is_refused(module, function, short == "function"):
        return f"{module[:100]}.{function[:100]} is refused: it is no layer, and could run code or read files"
    return None


def _is_refused(module: str, name: str, is_function: bool) -> bool:
    """Whether what a module holds under a name is never wanted in a model."""
    first, *rest = module.split(".")
    if first in _KERAS:  # Its classes are known one by one; capital letters tell them from functions.
        return name in _FUNCTIONS or (name[:1].islower() and bool(_NO_LAYERS.intersection(rest)))
    if module == "builtins" and is_function:  # How Keras 3 files a function of the user's own.
        return False
    return first in sys.stdlib_module_names


def _short(name: Any) -> str:
    """A class's name without the package that it was registered under."""
    return name.split(">")[-1] if isinstance(name, str) else ""
