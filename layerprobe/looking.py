"""Activations to look at: from an output of `extract`, or straight from a model and inputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layerprobe.errors import OutputFormatError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.formats.reading import check_names
from layerprobe.pipeline import extract

if TYPE_CHECKING:
    from layerprobe.protocols import Reader


@contextmanager
def looking_at(
    source: str, inputs: Sequence[str], layers: Sequence[str], **options: Any
) -> Iterator[tuple[Reader, tuple[str, ...]]]:
    """Open an output; or run a model over inputs and open what it gives, which is gone afterwards.

    Args:
        source: An output where there are no inputs, else a model.
        inputs: Images or arrays.
        layers: Addresses and patterns, for a model.
        options: Of `extract`, for a model.

    Yields:
        The output, and what is to be said of how it was computed.

    Raises:
        OutputFormatError: There are no inputs, and `source` is no output.
        LayerprobeError: As `extract` raises.
    """
    if not inputs:
        try:
            opened = open_output(source)
        except OutputFormatError as error:
            raise OutputFormatError(f"{error} To look into a model, give images too.") from error
        with opened as reader:
            yield reader, ()
        return
    with tempfile.TemporaryDirectory(prefix="layerprobe-") as folder:
        path = os.path.join(folder, "activations")
        try:
            notes = extract(source, inputs, layers, path, **options).notes
        except BaseException as error:
            error.__notes__ = []  # what is kept of a run goes with its folder
            raise
        with open_output(path) as reader:
            yield reader, notes


def chosen_layers(reader: Reader, layers: Sequence[str]) -> list[str]:
    """The layers of an output that are meant: all of them where none is named.

    Raises:
        UsageError: The output has several, and none is named.
        UnknownLayerError: The output does not have one of them.
    """
    check_names(layers)
    if layers:
        for layer in layers:
            reader[layer]
        return list(layers)
    held = list(reader)
    if len(held) > 1:
        listed = ", ".join(map(repr, held[:6])) + (", ..." if len(held) > 6 else "")
        raise UsageError(f"{reader.path!r} holds several layers: name one with --layer, of {listed}.")
    return held


def channel_axis(reader: Reader, layer: str) -> int:
    """Which axis of one row holds a layer's channels: -1, or 0 for `channels_first` layers."""
    for record in reader.provenance.get("layers", ()):
        if record.get("name") == layer:
            return int(record.get("channel_axis", -1))
    return -1


def one_row(reader: Reader, row: int) -> int:
    """A row that was computed; negative ones count from the end.

    Raises:
        UsageError: There is no such row, or it failed.
    """
    rows = len(reader.paths)
    if not -rows <= row < rows:
        raise UsageError(f"row {row}: {reader.path!r} has rows 0 to {rows - 1}.")
    row %= rows
    if reader.status[row] != "ok":
        raise UsageError(f"row {row} ({reader.paths[row]!r}) failed ({reader.error[row]}): choose another.")
    return row
