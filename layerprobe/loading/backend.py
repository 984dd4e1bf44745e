"""The framework that Keras is to run on, which it asks for once, when it is imported."""

from __future__ import annotations

import importlib.util
import os


def choose_backend() -> None:
    """Have Keras run on JAX where that was left open and there is JAX, but no TensorFlow.

    Otherwise it does what `KERAS_BACKEND` or its own settings say.
    """
    if "KERAS_BACKEND" not in os.environ and not _installed("tensorflow") and _installed("jax"):
        os.environ["KERAS_BACKEND"] = "jax"


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False
