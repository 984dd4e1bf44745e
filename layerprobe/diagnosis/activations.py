"""What the layers of a model give for a sample of images, as far as it shows that something is wrong."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.modelfile.graph import Graph, LayerNode, references

if TYPE_CHECKING:
    from layerprobe.records import Array, TensorSpec

FLAT = 0.98
"""Of the largest entropy there is: a softmax above it on every image tells nothing."""
SAME = 1e-3
"""A softmax that differs less from image to image gives the same for all."""
NAMED = 3
"""So many layers are named, and the others counted."""


class Watch:
    """Goes through the activations of batch after batch.

    Args:
        softmax: Addresses of the layers whose results are probabilities.
        inputs: Of those that only hand on what came in.
    """

    def __init__(self, softmax: Sequence[str], inputs: Collection[str] = ()) -> None:
        self._softmax, self._inputs = frozenset(softmax), frozenset(inputs)
        self._rows = 0
        self._alive: dict[str, bool] = {}
        self._broken: dict[str, int] = {}
        self._probabilities: dict[str, list[Array]] = {}

    def add(self, outputs: Sequence[TensorSpec], results: Mapping[str, Array], rows: int) -> None:
        """Look at the results of `rows` images."""
        self._rows += rows
        for spec in outputs:
            values = results[spec.name]
            if values.dtype.kind != "f" or spec.layer in self._inputs:
                continue
            # A sum is not finite where a value is not; nearly always that is all there is to ask.
            if not math.isfinite(float(np.abs(values).sum(dtype=np.float64))):
                bad = (~np.isfinite(values)).reshape(rows, -1).any(1)
                self._broken[spec.name] = self._broken.get(spec.name, 0) + int(bad.sum())
            self._alive[spec.layer] = self._alive.get(spec.layer, False) or bool(values.any())
            if spec.layer in self._softmax and values.ndim == 2 and values.shape[1] > 1:
                self._probabilities.setdefault(spec.name, []).append(np.array(values, np.float64))

    def complaints(self, preprocess: str, alike: bool) -> Iterator[str]:
        """What is wrong, a sentence for each.

        Args:
            preprocess: How the images were prepared, as options.
            alike: Whether all images were the same.
        """
        on_all = f"on all {self._rows} images, with {preprocess}"
        if self._broken:
            rows = max(self._broken.values())
            yield (
                f"{_named(list(self._broken))} gave NaN or infinite values on {rows} of {self._rows} images: "
                "look at the weights and at the scale of the images"
            )
        dead = [layer for layer, alive in self._alive.items() if not alive]
        if dead:
            yield (
                f"{_named(dead)} gave nothing but 0 {on_all}: nothing of the images gets past it; "
                "try another preprocessing, or train again with a lower learning rate"
            )
        for name, parts in self._probabilities.items():
            found = np.concatenate(parts)
            if not np.isfinite(found).all():
                continue
            if _evenness(found).min() > FLAT:
                yield (
                    f"`{name}` gave about 1/{found.shape[1]} for every class {on_all}: it tells nothing; "
                    "is the model trained, and are the images prepared as in training?"
                )
            elif len(found) > 1 and not alike and np.ptp(found, axis=0).max() < SAME:
                yield (
                    f"`{name}` gave the same {on_all}: class {int(found[0].argmax())} with "
                    f"{found[0].max():.3g}; unless they all show that, they are not prepared as in training"
                )


def softmax_layers(graph: Graph, prefix: str = "") -> list[str]:
    """The addresses of the layers that end a model in a softmax."""
    found = []
    for reference in references(graph.outputs):
        node = graph.layer(reference.layer)
        if node.inner is not None:
            found += softmax_layers(node.inner, f"{prefix}{node.name}/")
        elif _is_softmax(node):
            found.append(prefix + node.name)
    return found


def _is_softmax(node: LayerNode) -> bool:
    return node.class_name == "Softmax" or node.config.get("activation") == "softmax"


def _evenness(probabilities: Array) -> Array:
    """(n,): the entropy of each row over the largest that there is."""
    positive = np.clip(probabilities, 1e-300, None)
    entropy = -(probabilities * np.log(positive)).sum(1)
    return np.asarray(entropy / math.log(probabilities.shape[1]))


def _named(layers: Sequence[str]) -> str:
    told = ", ".join(f"`{layer}`" for layer in layers[:NAMED])
    more = len(layers) - NAMED
    return (
        told if more <= 0 else f"{told} and {more} more layers behind" if more > 1 else f"{told} and 1 more"
    )
