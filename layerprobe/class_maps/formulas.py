"""The maps of the papers, from a layer's values and what the score changes with them.

Gradients are of the score before the softmax, as in all four papers:

- CAM: B. Zhou and others, "Learning Deep Features for Discriminative Localization", 2016
- Grad-CAM: R. R. Selvaraju and others, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
  Localization", 2017
- Grad-CAM++: A. Chattopadhay and others, "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
  Convolutional Networks", 2018
- Layer-CAM: P.-T. Jiang and others, "LayerCAM: Exploring Hierarchical Class Activation Maps for
  Localization", 2021
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from layerprobe.records import Array


def cam(values: Array, weights: Array) -> Array:
    """Weigh channels with the weights of the class behind the average; below 0 speaks against it.

    Args:
        values: (..., C) of a layer, channels last.
        weights: (C,).

    Returns:
        (...) whose mean is the score without its bias.
    """
    return np.asarray(values @ weights)


def gradcam(values: Array, gradients: Array) -> Array:
    """Weigh channels with the mean of their gradients.

    Args:
        values: (..., C) of a layer, channels last.
        gradients: Of the score with respect to them, of the same shape.

    Returns:
        (...) without negative values.
    """
    return _positive(values @ gradients.mean(_positions(values)))


def gradcam_plus_plus(values: Array, gradients: Array) -> Array:
    """Weigh channels with their positive gradients, which count more where they are rare.

    The exponential of the score is taken as its output, as in the paper, so that higher derivatives are
    powers of the gradient; the factor exp(score), the same everywhere, is left out. Arguments as `gradcam`.
    """
    square = gradients * gradients
    below = 2 * square + values.sum(_positions(values), keepdims=True) * square * gradients
    share = np.divide(square, below, out=np.zeros_like(square), where=below != 0)
    return _positive(values @ (share * _positive(gradients)).sum(_positions(values)))


def layercam(values: Array, gradients: Array) -> Array:
    """Weigh every single value with its positive gradient; arguments as `gradcam`."""
    return _positive((values * _positive(gradients)).sum(-1))


def _positive(x: Array) -> Array:
    return np.maximum(x, 0)


def _positions(values: Array) -> tuple[int, ...]:
    return tuple(range(values.ndim - 1))


OF_GRADIENTS: dict[str, Callable[[Array, Array], Array]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "layercam": layercam,
}
METHODS = ("auto", "cam", *OF_GRADIENTS)
