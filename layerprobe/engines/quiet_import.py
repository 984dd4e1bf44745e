"""Import TensorFlow without the lines it prints before its own log level applies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def import_tensorflow() -> None:
    """Import TensorFlow and Keras; silently when TF_CPP_MIN_LOG_LEVEL is 3.

    TensorFlow writes to descriptor 2 while it loads, whatever that variable says.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        import_module("keras")
        return
    with _descriptor_closed_to_writing(2):
        import_module("absl.logging").set_verbosity("error")
        import_module("keras")


@contextmanager
def _descriptor_closed_to_writing(descriptor: int) -> Iterator[None]:
    """What is written to the descriptor meanwhile is lost."""
    try:
        kept = os.dup(descriptor)
    except OSError:  # it was not open
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(nowhere)
        os.close(kept)
