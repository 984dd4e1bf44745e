"""`layerprobe.open`: which format an output has, by its bytes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, cast

from layerprobe import registry
from layerprobe.errors import AccessError, LayerprobeError, NoInputError, OutputFormatError
from layerprobe.formats.placement import FOLDER_RECORD, GROUP_RECORD
from layerprobe.formats.remote import is_folder, names_in, open_for_reading
from layerprobe.stores.upload import BEGUN
from layerprobe.stores.urls import is_url, shown, without_file

if TYPE_CHECKING:
    from layerprobe.protocols import Reader

_SIGNATURES = {
    "hdf5": (0, b"\x89HDF\r\n\x1a\n"),
    "jsonl": (0, b'{"path": '),
    "npz": (0, b"PK\x03\x04"),
    "parquet": (0, b"PAR1"),
    "safetensors": (8, b'{"__metadata__":'),
    "tar": (257, b"ustar"),
}
"""Format -> the bytes that tell it, and where they stand."""


def open_output(path: str | os.PathLike[str]) -> Reader:
    """Open what `extract` wrote, lazily and in the same way for every format.

    Args:
        path: Of a file of any format, whatever its name, of a folder of `.npy` files, or of a Zarr group;
            or a URL of such.

    Returns:
        A mapping from layer name to an (N, ...) array of which only what is used is read, with `paths`,
        `status`, `error`, `fields` and `provenance`; also a context manager.

    Raises:
        NoInputError: There is nothing called that.
        AccessError: Reading it is denied.
        UnavailableError: Its store fails, or a package is missing.
        OutputFormatError: It was not written by layerprobe, or is damaged.
    """
    path = without_file(os.fspath(path))
    try:
        file_format = format_of(path)
    except LayerprobeError:
        raise
    except PermissionError as error:
        raise AccessError(f"{path!r} cannot be read: permission denied.") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoInputError(f"there is no file or folder {path!r}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputFormatError(f"{path!r} cannot be read: {reason}.") from error
    return cast("Reader", registry.find(registry.READERS, file_format, "format")(path))


def format_of(path: str) -> str:
    """Tell the format of an output, a name in `registry.READERS`. Raises OSError or OutputFormatError."""
    if is_folder(path):
        names = names_in(path)
        if BEGUN in names and not {GROUP_RECORD, FOLDER_RECORD} & set(names):
            raise OutputFormatError(
                f"{shown(path)!r} is not complete, for its upload is under way or was interrupted: "
                "run the same command with --resume."
            )
        return "zarr" if GROUP_RECORD in names else "npy"
    # A pipe would make us wait for ever.
    if not is_url(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise OutputFormatError(f"{path!r} is no regular file: expected an output of layerprobe.")
    with open_for_reading(path) as file:
        start = file.read(262)
    for file_format, (place, signature) in _SIGNATURES.items():
        if start.startswith(signature, place):
            return file_format
    expected = "HDF5, .npz, .safetensors, .parquet, .jsonl, .tar, Zarr or a folder of .npy files"
    found = "it is empty" if not start else f"expected {expected}, it begins {start[:8]!r}"
    raise OutputFormatError(f"{shown(path)!r} is no output of layerprobe: {found}.")
