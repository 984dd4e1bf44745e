"""Where an output is to be, and under which names it waits beside that until it is complete.

Whatever happens before that (an error, a full disk, a kill), nothing stands under the output's name but
what stood there before.
"""

from __future__ import annotations

import json
import os
import stat
from hashlib import sha256

from layerprobe.errors import LayerprobeError, OutputError
from layerprobe.formats.schema import load_record
from layerprobe.registry import FOLDERS

FOLDER_RECORD = "provenance.json"
"""The file that marks a folder of `.npy` files as an output of layerprobe."""
_TEXTS = ("paths", "status", "error", "fields")
_LONGEST_NAME = 230
"""Bytes that leave room for what is added to a name; file systems allow 255."""


def check_target(path: str, file_format: str, overwrite: bool) -> None:
    """Check, before anything is computed, that an output can be created at `path`.

    Args:
        path: Of the output; a symbolic link stands for what it points to.
        file_format: A name from `registry.WRITERS`; those in `FOLDERS` make a folder, the others a file.
        overwrite: Whether a regular file, or a folder that layerprobe wrote, may be replaced.

    Raises:
        OutputError: Something is in the way, or the folder to write in is missing or closed to us.
    """
    folder = os.path.dirname(resolved(path))
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except PermissionError as error:
        raise cannot_create(path, error) from error
    except (OSError, ValueError):
        is_folder = False
    if not is_folder:
        raise OutputError(f"{path!r} cannot be created, for there is no folder {folder!r}: make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path!r} cannot be created, for {folder!r} denies writing: use another folder.")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_create(path, error) from error
    if file_format in FOLDERS:
        _check_replaceable_folder(path, file_format, mode)
    elif not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise OutputError(f"{path!r} is {kind} and is not replaced: give -o for another name.")
    if not overwrite:
        raise OutputError(f"{path!r} exists: give --overwrite to replace it or -o for another name.")


def resolved(path: str) -> str:
    """Follow links; the name itself need not exist. Raises OutputError."""
    if not os.path.basename(path.rstrip(os.sep)):
        raise OutputError(f"the output's name is missing. Received: {path!r}.")
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise cannot_create(path, error) from error


def _check_replaceable_folder(path: str, file_format: str, mode: int) -> None:
    """Let only a folder be replaced in which everything was written by layerprobe (or which is empty)."""
    if not stat.S_ISDIR(mode):
        raise OutputError(f"{path!r} is not a folder and is not replaced by one: give -o for another name.")
    try:
        names = set(os.listdir(path))
        if not names:
            return
        others = _others_in_group(path) if file_format == "zarr" else _others_in_folder(path, names)
    except (OSError, LayerprobeError, LookupError, TypeError, ValueError) as error:
        raise OutputError(
            f"folder {path!r} was not written by layerprobe and is not replaced: give -o for another name."
        ) from error
    if others:
        raise OutputError(
            f"folder {path!r} is not replaced, for {others[0]!r} in it is not layerprobe's: move that away."
        )


def _others_in_folder(path: str, names: set[str]) -> list[str]:
    """Name the files in a folder of `.npy` files that are not layerprobe's."""
    with open(os.path.join(path, FOLDER_RECORD), "rb") as file:
        arrays, _ = load_record(file.read(), path)
    ours = {f"{name}.npy" for name in (*arrays.values(), *_TEXTS)}
    return sorted(names - ours - {FOLDER_RECORD})


def _others_in_group(path: str) -> list[str]:
    """Name the files in a Zarr group that are not layerprobe's."""
    with open(os.path.join(path, "zarr.json"), "rb") as file:
        arrays, _ = load_record(json.load(file)["attributes"]["layerprobe"], path)
    ours = {"", *arrays.values(), *_TEXTS}
    found = []
    for place, _, names in os.walk(path):
        folder = os.path.relpath(place, path) if place != path else ""
        files = [name for name in names if name != "zarr.json" and not (folder and name.startswith("c."))]
        files = names if folder not in ours else files
        found += [os.path.join(folder, name) for name in files]
    return sorted(found)


def unfinished_name(path: str) -> str:
    """Say under which name the output `path` comes into being. Raises OutputError."""
    return _beside(resolved(path), "unfinished")


def composed_name(path: str) -> str:
    """Say under which name the output `path` is made of rows that wait; see `waiting.py`."""
    return _beside(resolved(path), "composed")


def spool_name(path: str) -> str:
    """Say what the spool of the output `path` is called; see `spool.py`. Raises OutputError."""
    return _beside(resolved(path), "blocks")


def journal_name(path: str) -> str:
    """Say what the journal of the output `path` is called; see `journal.py`. Raises OutputError."""
    return _beside(resolved(path), "journal")


def _beside(target: str, what: str) -> str:
    folder, name = os.path.split(target)
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{name[:48]}-{sha256(os.fsencode(name)).hexdigest()[:16]}"
    return os.path.join(folder, f".{name}.{what}")


def cannot_create(path: str, error: Exception) -> OutputError:
    """Say why the output cannot be created."""
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(f"{path!r} cannot be created: {reason}; give -o for another place.")
