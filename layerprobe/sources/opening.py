"""What the user typed as inputs -> one source, of images or of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from layerprobe.errors import UsageError
from layerprobe.protocols import Source
from layerprobe.sources.arrays import array_source, is_array
from layerprobe.sources.listing import image_source
from layerprobe.stores.urls import without_file


def open_source(
    inputs: Sequence[str],
    *,
    lists: Sequence[str] = (),
    nul: bool = False,
    column: str | None = None,
    stdin: IO[bytes] | None = None,
    limit: int | None = None,
) -> Source:
    """List the inputs of a run; nothing but array headers is read.

    Args:
        inputs: Image files, folders, globs and `-`, or array files; never both.
        lists: Files that list images, a path a line, or tables.
        nul: Lists are separated by NUL instead.
        column: Of tables, which names the images.
        stdin: Where the list of `-` comes from.
        limit: So many images are enough: listing stops there.

    Raises:
        NoInputError: A named file does not exist, or there is not one image.
        UsageError: Images and arrays are mixed.
    """
    inputs = [without_file(name) for name in inputs]
    arrays = [name for name in inputs if name != "-" and is_array(name)]
    if not arrays:
        return image_source(inputs, lists=lists, nul=nul, column=column, stdin=stdin, limit=limit)
    if len(arrays) < len(inputs) or lists:
        raise UsageError(f"give images or arrays, not both. Received: the array {arrays[0]!r} among images")
    return array_source(arrays)
