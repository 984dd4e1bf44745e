"""Scores and maps of the rows of one batch: by multiplying out, or by gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from layerprobe.class_maps.formulas import OF_GRADIENTS, cam
from layerprobe.errors import ResourceError

if TYPE_CHECKING:
    from layerprobe.class_maps.head import Head
    from layerprobe.records import Array


class Measured(Protocol):
    """Rows whose scores are known, and whose maps can be had."""

    scores: Array
    """(B, K) before the softmax."""
    probabilities: Array | None
    """(B, K); None where the model gives none."""

    def maps(self, chosen: Array) -> Array:
        """(B, n, h, w) of the classes `chosen`, (B, n) whole numbers."""
        ...


class Exact:
    """CAM of a layer's values.

    Args:
        head: What makes scores of them.
        values: (B, ...) of the layer.
        channel_axis: Of one row: -1, or 0.
    """

    def __init__(self, head: Head, values: Array, channel_axis: int) -> None:
        signs = class_signs(head.weights.shape[1], head.activation)
        self._weights = head.weights @ signs.T
        self._values = channels_last(np.asarray(values, np.float32), channel_axis)
        average = self._values.mean((1, 2), dtype=np.float64)
        self.scores = (average @ self._weights + head.bias @ signs.T).astype(np.float32)
        self.probabilities = probabilities(self.scores, head.activation)

    def maps(self, chosen: Array) -> Array:
        """See `Measured`."""
        rows = zip(self._values, chosen, strict=True)
        return np.stack(
            [np.moveaxis(cam(values, self._weights[:, classes]), -1, 0) for values, classes in rows]
        )


class ByGradients:
    """The other methods, of rows that are computed again for each class.

    Args:
        method: A name in `formulas.OF_GRADIENTS`.
        traced: What differentiates the scores; see `engines.gradients_tensorflow`.
        inputs: One (B, ...) array per input of the model.
        activation: What makes probabilities of scores; None: what the traced model records.
        channel_axis: Of one row of the layer: -1, or 0.
    """

    def __init__(
        self, method: str, traced: Any, inputs: Sequence[Array], activation: str | None, channel_axis: int
    ) -> None:
        self._formula: Callable[[Array, Array], Array] = OF_GRADIENTS[method]
        self._traced, self._inputs, self._axis = traced, inputs, channel_axis
        scores, plain = in_parts(traced.values, inputs)
        (name,) = scores
        units = _one_axis(scores[name])
        found = activation or _activation_between(units, _one_axis(plain[name]))
        self._signs = class_signs(units.shape[1], found)
        self.scores = units @ self._signs.T
        self.probabilities = probabilities(self.scores, found)

    def maps(self, chosen: Array) -> Array:
        """See `Measured`."""
        return np.stack([self._of_one(classes) for classes in chosen.T], 1)

    def _of_one(self, classes: Array) -> Array:
        """(B, h, w) of one class of each row."""
        found = in_parts(self._computed, [*self._inputs, self._signs[classes]])
        return np.stack([self._formula(values, gradients) for values, gradients in zip(*found, strict=True)])

    def _computed(self, arrays: Sequence[Array]) -> tuple[Array, Array]:
        """(B, h, w, C) values and gradients."""
        found = self._traced(arrays[:-1], arrays[-1:])
        ((layer, values),) = found.layers.items()
        (gradients,) = found.gradients.values()
        # In float16, squares of gradients are 0.
        both = (np.asarray(array, np.float32) for array in (values, gradients[layer]))
        of_values, of_gradients = (channels_last(array, self._axis) for array in both)
        return of_values, of_gradients


def class_signs(units: int, activation: str) -> Array:
    """(K, units): what of each unit the score of each class is; one sigmoid unit tells two classes."""
    if units == 1 and "sigmoid" in activation:
        return np.array([[-1.0], [1.0]], np.float32)
    return np.eye(units, dtype=np.float32)


def probabilities(scores: Array, activation: str) -> Array | None:
    """(B, K) of scores; None where the model ends with none."""
    if "softmax" in activation:
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))
    if activation == "hard_sigmoid":
        return np.clip(scores / 6 + 0.5, 0, 1)
    if activation == "keras2_hard_sigmoid":
        return np.clip(0.2 * scores + 0.5, 0, 1)
    if "sigmoid" in activation:
        return np.asarray(0.5 * (1 + np.tanh(0.5 * scores)))
    return None


def _activation_between(scores: Array, outputs: Array) -> str:
    """What makes these outputs of these scores, where a model does not say it.

    Keras keeps what goes into a softmax or sigmoid; a softmax of one unit would be 1 whatever goes in.
    """
    if np.array_equal(scores, outputs, equal_nan=True):
        return "linear"
    if scores.shape[1] == 1:
        return "sigmoid"

    def error(activation: str) -> float:
        found = probabilities(scores, activation)
        return float(np.abs(np.nan_to_num(found - outputs)).max())

    return min(("softmax", "sigmoid"), key=error)


def channels_last(rows: Array, channel_axis: int) -> Array:
    """(B, h, w, C)."""
    return np.moveaxis(rows, 1, -1) if channel_axis == 0 else rows


def _one_axis(scores: Array) -> Array:
    """(B, K) of what `check_scores` accepts."""
    return np.asarray(scores.reshape(len(scores), -1), np.float32)


def in_parts(
    compute: Callable[[Sequence[Array]], tuple[Any, ...]], arrays: Sequence[Array]
) -> tuple[Any, ...]:
    """What is computed of (B, ...) arrays, in halves where the memory is not enough for all rows at once."""
    rows = len(arrays[0])
    try:
        return compute(arrays)
    except ResourceError:
        if rows < 2:
            raise
    halves = [
        in_parts(compute, [array[part] for array in arrays])
        for part in (np.s_[: rows // 2], np.s_[rows // 2 :])
    ]
    return tuple(_joined(first, second) for first, second in zip(*halves, strict=True))


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return {name: np.concatenate([first[name], second[name]]) for name in first}
    return np.concatenate([first, second])
