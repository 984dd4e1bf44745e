"""Models by name: a path, a URL, or `app:NAME` for one of `keras.applications`."""

from __future__ import annotations

import os

from layerprobe import registry
from layerprobe.stores.fetched import fetched
from layerprobe.stores.urls import is_url, shown, without_file

APPLICATION = "app:"


def is_path(name: str) -> bool:
    """Whether a model is named by its path on this machine."""
    return not is_url(name) and (not name.startswith(APPLICATION) or os.path.lexists(name))


def told(name: str) -> str:
    """Give what a model is called in what is shown and stored: the whole path, or the name."""
    return os.path.abspath(name) if is_path(name) else shown(name)


def local_path(name: str) -> str:
    """Give the path of a model, which is fetched or made if it is not here.

    Raises:
        LayerprobeError: It cannot be; see `stores.fetched` and `loading.applications`.
    """
    name = without_file(name)
    if is_path(name):
        return name
    if is_url(name):
        return fetched(name)
    path: str = registry.find(registry.MODELS, APPLICATION, "kind of model")(name.removeprefix(APPLICATION))
    return path
