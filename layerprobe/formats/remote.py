"""Files of outputs, here or in a store."""

from __future__ import annotations

import os
from typing import BinaryIO

from layerprobe.stores.objects import RemoteObject
from layerprobe.stores.store import listing_errors, store_of
from layerprobe.stores.urls import is_url


def open_for_reading(path: str) -> BinaryIO:
    """Open a file of an output, here or in a store.

    Raises:
        OSError: As from the system.
        NoInputError: There is no such object.
        AccessError: The store does not let us read it.
        UnavailableError: The store fails, or a package is missing.
    """
    if not is_url(path):
        return open(path, "rb")
    with listing_errors(path, "the output"):
        return RemoteObject(path).open()


def names_in(folder: str) -> list[str]:
    """List what is in a folder of an output, here or in a store; raises as `open_for_reading`."""
    if not is_url(folder):
        return os.listdir(folder)
    store, path = store_of(folder)
    with listing_errors(folder, "the output"):
        return [found.path.rstrip("/").rsplit("/", 1)[-1] for found in store.entries(path)]


def is_folder(name: str) -> bool:
    """Whether that is a folder, here or in a store; raises as `open_for_reading`."""
    if not is_url(name):
        return os.path.isdir(name)
    store, path = store_of(name)
    with listing_errors(name, "the output"):
        return store.find(path).is_folder
