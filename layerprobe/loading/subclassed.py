"""Subclassed models: their graph is in code that only the user has, so Keras itself rebuilds them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from layerprobe.errors import ModelError
from layerprobe.loading.reasons import first_line


def load_subclassed(path: str, config: Mapping[str, Any], custom_objects: Mapping[str, Any]) -> keras.Model:
    """Load a `.keras` file of a class that is not Keras's own.

    Args:
        path: Of the file, which was inspected and found harmless.
        config: Its parsed config.
        custom_objects: The class, and all that it needs, by name.

    Raises:
        ModelError: The class is not given, or fails, or the file is of a format that Keras cannot load.
    """
    name = config.get("class_name")
    if not {name, config.get("registered_name")} & set(custom_objects):
        raise ModelError(
            f"the model is of the class {name!r}, which is not one of Keras's own: give its code with "
            "--custom FILE.py, or custom_objects in Python."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about loading without compiling
            return keras.saving.load_model(path, custom_objects=dict(custom_objects), compile=False)
    except Exception as error:  # the user's class may raise anything
        raise ModelError(f"the model of class {name!r} cannot be built: {first_line(error)}.") from error
