"""`layerprobe.open`: which format an output has, by its bytes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, cast

from layerprobe import registry
from layerprobe.errors import AccessError, NoInputError, OutputFormatError

if TYPE_CHECKING:
    from layerprobe.protocols import Reader

_SIGNATURES = {b"\x89HDF\r\n\x1a\n": "hdf5", b"PK\x03\x04": "npz"}


def open_output(path: str | os.PathLike[str]) -> Reader:
    """Open what `extract` wrote, lazily and in the same way for every format.

    Args:
        path: Of an `.npz` or HDF5 file, whatever its name, or of a folder of `.npy` files.

    Returns:
        A mapping from layer name to an (N, ...) array of which only what is used is read, with `paths`,
        `status`, `error` and `provenance`; also a context manager.

    Raises:
        NoInputError: There is nothing called that.
        AccessError: Reading it is denied.
        OutputFormatError: It was not written by layerprobe, or is damaged.
    """
    path = os.fspath(path)
    try:
        file_format = _recognise(path)
    except PermissionError as error:
        raise AccessError(f"{path!r} cannot be read: permission denied.") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoInputError(f"there is no file or folder {path!r}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputFormatError(f"{path!r} cannot be read: {reason}.") from error
    return cast("Reader", registry.find(registry.READERS, file_format, "format")(path))


def _recognise(path: str) -> str:
    """Tell the format of an output, a name in `registry.READERS`."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return "npy"
    # A pipe would make us wait for ever.
    if not stat.S_ISREG(mode):
        raise OutputFormatError(f"{path!r} is no regular file: expected an output of layerprobe.")
    with open(path, "rb") as file:
        start = file.read(8)
    for signature, file_format in _SIGNATURES.items():
        if start.startswith(signature):
            return file_format
    found = (
        "it is empty" if not start else f"expected HDF5, .npz or a folder of .npy files, it begins {start!r}"
    )
    raise OutputFormatError(f"{path!r} is no output of layerprobe: {found}.")
