"""Models that are named by URL: fetched once into the cache, and again when they were changed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

from layerprobe.errors import UsageError, WriteError
from layerprobe.stores.cache_place import model_folder
from layerprobe.stores.notes import note
from layerprobe.stores.objects import RemoteObject
from layerprobe.stores.store import Found, Store, listing_errors, store_of
from layerprobe.stores.urls import name_of, shown

_SUFFIXES = (".keras", ".h5", ".hdf5")
_FOLDERS = (("saved_model.pb",), ("config.json", "model.weights.h5"))
"""What a folder holds that is a model itself: a SavedModel, an unpacked `.keras` file."""


def fetched(url: str) -> str:
    """Bring a model to this machine, unless it is here.

    Args:
        url: Of a file; of a folder that is a model; or of one that holds one, such as a repository.

    Returns:
        Its path here.

    Raises:
        NoInputError: It is not there.
        AccessError: The store does not let us read it.
        UnavailableError: The store fails, or a package is missing.
        UsageError: A folder holds none, or several.
        WriteError: There is no space for it.
    """
    store, path = store_of(url)
    with listing_errors(url, "the model"):
        found = store.find(path)
        if not found.is_folder:
            return _kept(url, found, [(name_of(url), url, found)])
        within = {each.path.rstrip("/").rsplit("/", 1)[-1]: each for each in store.entries(found.path)}
        if any(all(name in within for name in names) for names in _FOLDERS):
            return os.path.dirname(_kept(url, found, list(_below(store, found.path, url, ""))))
        chosen = _chosen(url, [name for name, each in within.items() if not each.is_folder])
        note(f"the model is {chosen} of {shown(url)}")
        of = f"{url.rstrip('/')}/{chosen}"
        return _kept(of, within[chosen], [(chosen, of, within[chosen])])


def _chosen(url: str, names: list[str]) -> str:
    models = [name for name in names if name.lower().endswith(_SUFFIXES) and not name.endswith(".weights.h5")]
    if len(models) == 1:
        return models[0]
    listed = ", ".join((models or names)[:20]) or "nothing"
    what = "several models, so say which" if models else "no Keras model, so say what is one"
    raise UsageError(f"{shown(url)!r} has {what}, as in {shown(url).rstrip('/')}/NAME: it has {listed}.")


def _below(store: Store, folder: str, url: str, within: str) -> Iterator[tuple[str, str, Found]]:
    """All files of a folder: name in it, URL, and what its store says."""
    for found in store.entries(folder):
        name = found.path.rstrip("/").rsplit("/", 1)[-1]
        if found.is_folder:
            yield from _below(store, found.path, f"{url.rstrip('/')}/{name}", f"{within}{name}/")
        elif name not in ("..", "."):
            yield f"{within}{name}", f"{url.rstrip('/')}/{name}", found


def _kept(url: str, found: Found, files: list[tuple[str, str, Found]]) -> str:
    """Fetch files into a folder of their version; gives the path of the first."""
    told = [f"{name} {each.version!r}" for name, _, each in files]
    unknown = not all(each.version for _, _, each in files)
    key = sha256("\n".join([shown(url), *told]).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    folder = model_folder(key)
    missing = [entry for entry in files if unknown or not os.path.exists(os.path.join(folder, entry[0]))]
    size = sum(each.size or 0 for _, _, each in missing)
    if size > shutil.disk_usage(folder).free:
        raise WriteError(f"there is no space for {shown(url)!r} in {folder!r}: it has {size} bytes.")
    for name, of, each in missing:
        _fetch(RemoteObject(of, each.size, each.version), os.path.join(folder, name))
    return os.path.join(folder, files[0][0])


def _fetch(remote: RemoteObject, target: str) -> None:
    """Bring one file here, whole or not at all."""
    part = f"{target}.{secrets.token_hex(4)}.part"
    try:
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        with remote.open() as source, open(part, "xb") as copy:
            shutil.copyfileobj(source, copy, 2**20)
        os.replace(part, target)
    except OSError as error:
        raise WriteError(f"{remote.name!r} cannot be kept in {target!r}: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            os.unlink(part)
