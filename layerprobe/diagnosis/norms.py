"""What a model file remembers of its training images: the moving statistics of BatchNormalization layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.errors import ModelError
from layerprobe.modelfile.graph import Graph, LayerNode, references, walk
from layerprobe.modelfile.reach import keep_ancestors, problems

if TYPE_CHECKING:
    from layerprobe.modelfile.model_file import ModelFile
    from layerprobe.records import Array

STEPS = 450
"""Of training, that every model had; with a momentum of 0.99, a hundredth of the beginning is left then."""
MOST_REMAINING = 0.02
MOST = 6
"""Layers that are looked at, where several have no other before them."""
_SCALE_FREE = frozenset(
    ("GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization", "Embedding")
)
"""Classes behind which the scale of the pixels is gone."""
_PREPARING = frozenset(("Normalization", "Rescaling"))


@dataclass(frozen=True, slots=True)
class StoredNorm:
    """One BatchNormalization layer, and what arrived there in training."""

    address: str
    axis: int
    """Of the channels, in a batch of what arrives there."""
    mean: Array
    """(C,) float64, the moving mean."""
    variance: Array
    """(C,) float64, the moving variance."""
    epsilon: float
    """What the layer itself adds to variances."""
    remaining: float
    """How much of what it began with, a variance of 1, it may still have: each step of training takes some
    away."""
    inputs: tuple[str, ...]
    """Of the model, that it depends on."""
    frozen: bool
    """Whether the layer was not to be trained: the statistics may be of other images, seen before."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What of a file is evidence."""

    norms: tuple[StoredNorm, ...]
    """Those with no other before them. What arrives further on is evened out by those, and was found to tell
    less."""
    reason: str = ""
    """Why there are none, in words."""


def remembered(file: ModelFile) -> Remembered:
    """Find the BatchNormalization layers that tell what images a model was trained with.

    Raises:
        ModelError: The file is damaged.
    """
    graph = file.graph
    if not graph.layers:
        return Remembered((), "the file does not list the layers of the model")
    if not file.weights.present:
        return Remembered((), "the model came without weights")
    addresses = list(_in_order(graph, ""))
    if not addresses:
        return Remembered((), "the model has no BatchNormalization layer")
    blocked = problems(graph, file.options.custom_objects, file.oversized)
    norms: list[StoredNorm] = []
    reasons: list[str] = []
    for address, node in addresses:
        found = blocked.get(address) or _norm(file, graph, address, node)
        if isinstance(found, str):
            reasons.append(found)
        elif found is not None:
            norms.append(found)
        if len(norms) == MOST:
            break
    return Remembered(tuple(norms), "" if norms else reasons[0])


def _in_order(graph: Graph, prefix: str) -> Iterator[tuple[str, LayerNode]]:
    """Every BatchNormalization layer of a model and the models in it; not those within other layers."""
    for node in graph.layers:
        if node.inner is not None:
            yield from _in_order(node.inner, f"{prefix}{node.name}/")
        elif node.class_name == "BatchNormalization" and node.module == "keras.layers":
            yield prefix + node.name, node


def _norm(file: ModelFile, graph: Graph, address: str, node: LayerNode) -> StoredNorm | str | None:
    """The layer with its statistics; why it tells nothing; None: there is another before it."""
    cut = keep_ancestors(graph, {address})
    before = {other: inner for other, inner in walk(cut) if other != address}
    if any(inner.class_name == "BatchNormalization" for inner in before.values()):
        return None
    for other, inner in before.items():
        if inner.class_name in _SCALE_FREE:
            return (
                f"before `{address}` stands {inner.class_name} `{other}`, behind which all scales are alike"
            )
    axes = node.config["axis"]
    axis = axes[0] if isinstance(axes, list | tuple) and len(axes) == 1 else axes
    if not isinstance(axis, int):
        return f"`{address}` normalises along several axes"
    try:
        arrays = file.weights.arrays(address)
    except ModelError as error:
        return str(error).rstrip(".")
    mean = arrays["moving_mean"].astype(np.float64)
    variance = arrays["moving_variance"].astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        return f"the statistics of `{address}` are not finite"
    if (mean == 0).all() and (variance == 1).all():
        return f"`{address}` was never trained: its mean is 0 and its variance 1, as it began"
    return StoredNorm(
        address,
        axis,
        mean,
        variance,
        float(node.config["epsilon"]),
        min(MOST_REMAINING, float(node.config["momentum"]) ** STEPS),
        tuple(reference.layer for reference in references(cut.inputs)),
        node.config.get("trainable") is False,
    )
