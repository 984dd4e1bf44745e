"""The user's own classes and functions, from files that the user names; those files are run."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras

from layerprobe.errors import NoInputError, UsageError


class CustomObjects(dict[str, Any]):
    """What was read from files; sent to another process, it is read there again, for code cannot be sent."""

    def __init__(self, texts: Sequence[str], found: dict[str, Any]) -> None:
        super().__init__(found)
        self._texts = list(texts)

    def __reduce__(self) -> tuple[Any, ...]:
        return read_custom_objects, (self._texts,)


def read_custom_objects(texts: Sequence[str]) -> CustomObjects:
    """Import files and collect what a model may need of them.

    Args:
        texts: `FILE.py` for all layers, models and functions that the file defines, or `FILE.py:NAME` for
            one object of it.

    Returns:
        The objects by name, and by the name they were registered under with Keras.

    Raises:
        NoInputError: A file does not exist.
        UsageError: A file cannot be imported, or does not define the name.
    """
    before = set(keras.saving.get_custom_objects())
    found: dict[str, Any] = {}
    for text in texts:
        path, name = _split(text)
        module = _import(path)
        found.update(_one(module, path, name) if name else _all(module))
    registered = keras.saving.get_custom_objects()
    return CustomObjects(texts, found | {name: registered[name] for name in registered.keys() - before})


def _split(text: str) -> tuple[str, str]:
    """FILE.py:NAME -> both; a colon within the path is left alone."""
    path, colon, name = text.rpartition(":")
    return (path, name) if colon and name.isidentifier() else (text, "")


def _import(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise NoInputError(f"no such file: {path!r}, given with --custom.")
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--custom wants Python files whose names end in .py. Received: {path!r}")
    module = importlib.util.module_from_spec(spec)
    # What the file imports from beside itself is found as when it is run as a script.
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    previous = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        raise UsageError(f"{path!r} cannot be imported: {type(error).__name__}: {error}.") from error
    finally:
        del sys.path[0]
        if previous is not None:
            sys.modules[name] = previous
    return module


def _one(module: ModuleType, path: str, name: str) -> dict[str, Any]:
    if not hasattr(module, name):
        defined = ", ".join(_all(module)) or "no layers, models or functions"
        raise UsageError(f"{path!r} does not define {name!r}; it defines {defined}.")
    return {name: getattr(module, name)}


def _all(module: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and (inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, keras.Operation)))
    }
