"""How alike layers are in what they tell images apart by: linear CKA over the same images.

S. Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019: with X (n, p), Y (n, q)
and their columns centred, CKA = |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms. It equals <XX', YY'> divided by
|XX'| |YY'|, which is what is summed, block of rows against block of rows: memory grows neither with n nor
with p times q.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import NoInputError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.formats.reading import check_names

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Array

BLOCK_BYTES = 64 << 20
"""Of all layers' rows of one block, as float32."""
MOST_ROWS = 512
"""Of one block."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """Linear CKA of each layer of one output with each of another."""

    one: tuple[str, ...]
    other: tuple[str, ...]
    values: Array
    """(len(one), len(other)) float64, 0 to 1; NaN for a layer that is the same for every image, or is in
    `not_finite`."""
    rows: int
    """Images that were compared: those computed in both outputs."""
    not_finite: tuple[str, ...] = ()
    """Layers of either with values that are NaN or infinite, of which no similarity is known."""


def compare(
    one: str | os.PathLike[str],
    other: str | os.PathLike[str],
    layers: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Similarity:
    """Compare the layers of two outputs of `extract` over the same images; an output with itself, too.

    Args:
        one: An output.
        other: Another, over the same images in any order.
        layers: Only these, of the output that has them, or of both; empty: all.
        progress: Called with blocks done and blocks in all.

    Raises:
        UsageError: The outputs are not over the same images, or name an image twice, or hold complex numbers,
            or one has none of the layers.
        UnknownLayerError: Neither has a layer.
        NoInputError: Fewer than two images were computed in both.
    """
    check_names(layers)
    with open_output(one) as first, open_output(other) as second:
        rows = _matching_rows(first, second)
        sides = _layers_of_both(first, second, layers)
        found = _Layers(
            [
                (reader[name], order)
                for reader, names, order in zip((first, second), sides, rows.T, strict=True)
                for name in names
            ]
        )
        with np.errstate(invalid="ignore", over="ignore"):
            products = found.products(progress)
    count = len(sides[0])
    squares = np.diag(products)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = products[:count, count:] / np.sqrt(np.outer(squares[:count], squares[count:]))
    values = np.minimum(values, 1.0)  # which rounding may pass by the last bit
    names = [*sides[0], *sides[1]]
    odd = dict.fromkeys(name for name, square in zip(names, squares, strict=True) if not np.isfinite(square))
    return Similarity(tuple(sides[0]), tuple(sides[1]), values, len(rows), tuple(odd))


def _layers_of_both(first: Reader, second: Reader, layers: Sequence[str]) -> list[list[str]]:
    """The layers that are meant of each output; one that is named may be in one of them only."""
    held = [list(first), list(second)]
    sides = [[name for name in layers if name in names] for names in held]
    for name in layers:
        if not any(name in names for names in held):
            first[name]
    if layers and not all(sides):
        without, named = (first, second) if not sides[0] else (second, first)
        raise UsageError(
            f"{without.path!r} holds none of the layers that are named, {named.path!r} all that are: "
            f"name one of it too, of {', '.join(map(repr, list(without)[:6]))}."
        )
    return [_layers_of(reader, names) for reader, names in zip((first, second), sides, strict=True)]


def _layers_of(reader: Reader, layers: Sequence[str]) -> list[str]:
    names = [name for name in (layers or list(reader)) if layers or reader[name].dtype.kind in "biuf"]
    for name in names:
        if reader[name].dtype.kind not in "biuf":
            raise UsageError(f"layer {name!r} of {reader.path!r} holds no real numbers: leave it out.")
    if not names:
        raise UsageError(f"{reader.path!r} holds no layer of real numbers: nothing can be compared.")
    return names


def _matching_rows(first: Reader, second: Reader) -> Array:
    """(n, 2): the rows of each image that was computed in both outputs, in the order of the first."""
    names = [list(reader.paths) for reader in (first, second)]
    if set(names[0]) != set(names[1]):
        names = [[_resolved(name) for name in each] for each in names]
    places = []
    for reader, keys in zip((first, second), names, strict=True):
        place = {key: row for row, key in enumerate(keys)}
        if len(place) < len(keys):
            raise UsageError(f"{reader.path!r} has several rows of one name: images cannot be told apart.")
        places.append(place)
    missing = [first.paths[row] for key, row in places[0].items() if key not in places[1]]
    if missing or len(places[0]) != len(places[1]):
        missing += [second.paths[row] for key, row in places[1].items() if key not in places[0]]
        raise UsageError(
            f"{first.path!r} and {second.path!r} are not over the same images: "
            f"{missing[0]!r} is in one of them only."
        )
    status = (first.status, second.status)
    rows = [
        (row, places[1][key])
        for key, row in places[0].items()
        if status[0][row] == status[1][places[1][key]] == "ok"
    ]
    if len(rows) < 2:
        raise NoInputError("fewer than two images were computed in both outputs: nothing can be compared.")
    return np.array(rows)


def _resolved(name: str) -> str:
    """The same for two names of one file, seen from the working directory."""
    return name if "://" in name else os.path.realpath(name)


class _Layers:
    """Layers, each with the rows to take of it, in one order of images."""

    def __init__(self, layers: Sequence[tuple[Any, Array]]) -> None:
        self._layers = layers
        self._rows = len(layers[0][1])
        row_bytes = sum(4 * max(1, array[:1].size) for array, _ in layers)
        self._block = int(min(MOST_ROWS, max(1, BLOCK_BYTES // row_bytes), self._rows))

    def products(self, progress: Callable[[int, int], None] | None) -> Array:
        """(layers, layers): <XX', YY'> of every two, centred."""
        means = [self._mean(number) for number in range(len(self._layers))]
        total = np.zeros((len(self._layers), len(self._layers)))
        starts = range(0, self._rows, self._block)
        done, blocks = 0, len(starts) * (len(starts) + 1) // 2
        for place, start in enumerate(starts):
            mine = list(self._centred(start, means))
            for other in starts[place:]:
                theirs = mine if other == start else self._centred(other, means)
                total += (1 if other == start else 2) * _inner_products(mine, theirs)
                done += 1
                if progress is not None:
                    progress(done, blocks)
        return total

    def _mean(self, number: int) -> Array:
        array, rows = self._layers[number]
        total = np.zeros(array[:1].size)
        for start in range(0, self._rows, self._block):
            total += _vectors(array, rows[start : start + self._block]).sum(0, dtype=np.float64)
        mean: Array = total / self._rows
        return mean

    def _centred(self, start: int, means: Sequence[Array]) -> Iterator[Array]:
        for (array, rows), mean in zip(self._layers, means, strict=True):
            yield _vectors(array, rows[start : start + self._block]) - mean.astype(np.float32)


def _inner_products(mine: Sequence[Array], theirs: Any) -> Array:
    """(layers, layers) of <X_i X_j', Y_i Y_j'>, for the rows of two blocks i and j."""
    grams = np.stack([(x @ y.T).astype(np.float64).ravel() for x, y in zip(mine, theirs, strict=True)])
    return np.asarray(grams @ grams.T)


def _vectors(array: Any, rows: Array) -> Array:
    """(n, p) float32: these rows, in this order; HDF5 reads rows in rising order only."""
    rising = np.argsort(rows)
    taken = np.empty((len(rows), array[:1].size), np.float32)
    taken[rising] = np.asarray(array[rows[rising]]).reshape(taken.shape)
    return taken
