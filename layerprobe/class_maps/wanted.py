"""What maps are asked for, and what is found out about them before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from layerprobe.class_maps.classes import Classes
from layerprobe.errors import UsageError
from layerprobe.records import Failure, LayerInfo, Preprocessing, Tap

if TYPE_CHECKING:
    from layerprobe.class_maps.measured import Measured
    from layerprobe.records import Array

_NOT_DEFAULT = re.compile("Pooling|Dropout|Padding|Cropping|InputLayer|Rescaling|^Normalization")
"""Classes whose maps are those of the layer before them, only smaller or shifted."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Maps that are asked for."""

    layer: str | None
    """Its address; None: the last one that has maps."""
    method: str
    """A name in `formulas.METHODS`."""
    output: str | None
    """What gives the scores: a layer's address, or None for the model's own output."""
    classes: Sequence[str | int]
    """Numbers and names; empty: those of the highest scores."""
    top: int
    """So many, where none are named."""
    names: Classes


@dataclass(frozen=True, slots=True)
class Found:
    """How they are made."""

    layer: str
    method: str
    """ "cam", or a name in `formulas.OF_GRADIENTS`."""
    output: str
    """Where the scores are recorded."""
    preprocessing: Preprocessing | None
    """How images became the model's input; None for arrays."""
    max_pixels: int | None
    """Larger images are refused."""
    notes: tuple[str, ...]
    """What was assumed, for the user."""
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MeasuredBatch:
    """Rows that follow each other: those that were computed, and those that failed."""

    rows: Sequence[int]
    """Which of them were computed."""
    keys: Sequence[str]
    """What those are called."""
    pictures: Sequence[bytes | Array | None]
    """What was read of them."""
    measured: Measured | None
    """None where there are none."""
    failures: Sequence[Failure]


class MapSource(Protocol):
    """Where measured rows come from."""

    found: Found

    @property
    def rows(self) -> int | None:
        """How many there are; None for a stream."""
        ...

    def keys(self) -> Sequence[str]:
        """What the rows are called; none of a stream."""
        ...

    def batches(self) -> Iterator[MeasuredBatch]:
        """Every row once, in order."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


def default_layer(layers: Sequence[LayerInfo], before: str | None) -> str:
    """The last layer with feature maps that the scores are made of.

    Args:
        layers: Of the model, with their shapes, in the order in which it runs.
        before: Address of the layer that gives the scores; None where that is not known, and neither is the
            order in which inner layers run.

    Raises:
        UsageError: None is known to have maps.
    """
    needed = None if before is None else _ancestors(layers, before)
    for layer in reversed(layers):
        shapes = layer.shapes or ()
        if len(shapes) != 1 or len(shapes[0]) != 3 or not _is_map(shapes[0]) or layer.address == before:
            continue
        reached = "/" not in layer.address if needed is None else _is_within(layer.address, needed)
        if reached and not _NOT_DEFAULT.search(layer.class_name):
            return layer.address
    raise UsageError(
        "no layer is known to give feature maps (H, W, C): name one with --layer; "
        "`layerprobe layers MODEL` lists them."
    )


def _is_map(shape: Sequence[int | None]) -> bool:
    """Whether there are several positions, whichever axis holds the channels."""
    return sum(size != 1 for size in shape) >= 2


def _ancestors(layers: Sequence[LayerInfo], last: str) -> set[str]:
    """Addresses of the layers that one of them needs; of a nested model that is needed whole, its own."""
    inbound = {layer.address: layer.inbound for layer in layers}
    needed: set[str] = set()
    waiting = [last]
    while waiting:
        address = waiting.pop()
        if address in needed:
            continue
        needed.add(address)
        # What goes into a nested model is what the model is called with.
        outer = address.rpartition("/")[0]
        waiting += inbound.get(address) or inbound.get(outer, ())
    return needed


def _is_within(address: str, needed: set[str]) -> bool:
    """Whether a layer, or a model around it, is among them."""
    names = address.split("/")
    return any("/".join(names[:depth]) in needed for depth in range(1, len(names) + 1))


def one_tap(taps: Sequence[Tap], layers: Sequence[LayerInfo]) -> Tap:
    """The one place that is named.

    Raises:
        UsageError: There are several.
    """
    calls = {layer.address: layer.calls for layer in layers}
    if len(taps) > 1:
        raise UsageError(f"maps are of one layer: name one of {', '.join(tap.name for tap in taps[:6])}.")
    (tap,) = taps
    if tap.call is None and calls.get(tap.address, 1) > 1:
        raise UsageError(
            f"layer {tap.address!r} is called {calls[tap.address]} times: say which, as in {tap.name}@0."
        )
    return tap


def check_maps(layer: str, shape: Sequence[int | None]) -> None:
    """Raise UsageError unless one row of a layer is feature maps."""
    if len(shape) != 3:
        raise UsageError(
            f"layer {layer!r} gives rows of shape {tuple(shape)}: class activation maps are over images, "
            "of a layer that gives feature maps (H, W, C); name another with --layer."
        )


def check_scores(output: str, shape: Sequence[int | None]) -> None:
    """Raise UsageError unless one row of an output is a score for each class."""
    if sum(size != 1 for size in shape) > 1:
        raise UsageError(
            f"{output!r} has rows of shape {tuple(shape)}: class activation maps need one score for each "
            "class, (K,); name another with --output-layer."
        )
