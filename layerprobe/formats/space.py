"""How much of the disk an output will take, before any of it is written."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import cast

from layerprobe.formats.disk import amount, disk_space, free_space, require_file_size, require_space
from layerprobe.formats.placement import resolved, unfinished_name
from layerprobe.formats.schema import stored_dtype
from layerprobe.records import TensorSpec
from layerprobe.registry import MADE_OF_WAITING_ROWS, WITHOUT_RESERVE


def row_bytes(spec: TensorSpec) -> int:
    """Bytes of one row, as it is stored."""
    return math.prod(cast(tuple[int, ...], spec.shape)) * stored_dtype(spec.dtype, spec.name).itemsize


def space_needed(path: str, file_format: str, rows: int, specs: Sequence[TensorSpec]) -> int:
    """Bytes that the arrays of an output need beyond those that an unfinished one has already."""
    times = 2 if file_format in MADE_OF_WAITING_ROWS else 1
    return max(0, times * rows * sum(map(row_bytes, specs)) - _taken(unfinished_name(path)))


def space_free(path: str) -> int:
    """Bytes that are free where an output goes."""
    return free_space(os.path.dirname(resolved(path)))


def check_space(path: str, file_format: str, rows: int, specs: Sequence[TensorSpec]) -> None:
    """Check that an output of so many rows can be written.

    Args:
        path: Of the output.
        file_format: A name in `registry.WRITERS`.
        rows: N.
        specs: What is stored of each row.

    Raises:
        WriteError: There is less space, or a file may not be so large.
    """
    if file_format in WITHOUT_RESERVE:  # What is done when a disk is full is kept.
        return
    sizes = [rows * row_bytes(spec) for spec in specs]
    require_file_size(max(sizes, default=0) if file_format == "npy" else sum(sizes), path)
    require_space(os.path.dirname(resolved(path)), space_needed(path, file_format, rows, specs), path)


def space_notice(path: str, rows: int | None, specs: Sequence[TensorSpec]) -> str | None:
    """Say that a compressed output may not fit; None: it will, however badly it is compressed.

    Args:
        path: Of the output.
        rows: N; None where it is not known, and nothing can be said.
        specs: What is stored of each row.
    """
    size, free = (rows or 0) * sum(map(row_bytes, specs)), space_free(path)
    # What waits, and the copy of it.
    if 2 * size <= free:
        return None
    return (
        f"it is not known whether {path!r} will fit, and no space is reserved: its rows have {amount(size)} "
        f"before they are compressed, twice what is left of that is needed, and {amount(free)} are free"
    )


def _taken(unfinished: str) -> int:
    """Bytes of the disk that a file has, or the files in a folder."""
    try:
        with os.scandir(unfinished) as entries:
            return sum(disk_space(entry.stat(follow_symlinks=False)) for entry in entries)
    except NotADirectoryError:
        return disk_space(os.lstat(unfinished))
    except OSError:
        return 0
