"""Where an output is to be, and under which names it waits beside that until it is complete.

Whatever happens before that (an error, a full disk, a kill), nothing stands under the output's name but
what stood there before.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NoReturn

from layerprobe.errors import LayerprobeError, OutputError
from layerprobe.formats.schema import load_record
from layerprobe.registry import FOLDERS

FOLDER_RECORD = "provenance.json"
"""The file that marks a folder of `.npy` files as an output of layerprobe."""
GROUP_RECORD = "zarr.json"
"""The file that marks a folder as a Zarr group, and holds its record."""
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
        names = [
            os.path.relpath(os.path.join(place, name), path)
            for place, folders, files in os.walk(path, onerror=_raise)
            for name in (*files, *(folders if file_format == "npy" else ()))
        ]
    except OSError as error:
        raise cannot_create(path, error) from error

    def read(name: str) -> bytes:
        with open(os.path.join(path, name), "rb") as file:
            return file.read()

    check_replaceable(path, file_format, names, read)


def _raise(error: OSError) -> NoReturn:
    raise error


def check_replaceable(
    path: str, file_format: str, names: Sequence[str], read: Callable[[str], bytes]
) -> None:
    """Check that everything in a folder, here or in a store, was written by layerprobe.

    Args:
        path: Of the folder, as it is shown.
        file_format: One of `registry.FOLDERS`, that shall take its place.
        names: Of what is in it and in folders within it.
        read: Gives what is in one of them.

    Raises:
        OutputError: Something was not.
    """
    if not names:
        return
    try:
        others = sorted(
            _others_in_group(names, read) if file_format == "zarr" else _others_in_folder(names, read)
        )
    except (OSError, LayerprobeError, LookupError, TypeError, ValueError) as error:
        raise OutputError(
            f"folder {path!r} was not written by layerprobe and is not replaced: give -o for another name."
        ) from error
    if others:
        raise OutputError(
            f"folder {path!r} is not replaced, for {others[0]!r} in it is not layerprobe's: move that away."
        )


def _others_in_folder(names: Sequence[str], read: Callable[[str], bytes]) -> set[str]:
    """Name the files in a folder of `.npy` files that are not layerprobe's."""
    arrays, _ = load_record(read(FOLDER_RECORD), FOLDER_RECORD)
    ours = {f"{name}.npy" for name in (*arrays.values(), *_TEXTS)}
    return set(names) - ours - {FOLDER_RECORD}


def _others_in_group(names: Sequence[str], read: Callable[[str], bytes]) -> set[str]:
    """Name the files in a Zarr group that are not layerprobe's."""
    arrays, _ = load_record(json.loads(read(GROUP_RECORD))["attributes"]["layerprobe"], GROUP_RECORD)
    ours = {*arrays.values(), *_TEXTS}

    def is_ours(name: str) -> bool:
        folder, _, file = name.rpartition("/")
        return name == GROUP_RECORD or (folder in ours and (file == "zarr.json" or file.startswith("c.")))

    return {name for name in names if not is_ours(name.replace(os.sep, "/"))}


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
