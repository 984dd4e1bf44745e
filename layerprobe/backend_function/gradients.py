"""What `K.gradients` was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from layerprobe.backend_function.graph import Tensor, describe
from layerprobe.errors import UsageError


def symbolic_gradients(loss: Tensor, variables: Any) -> list[Tensor]:
    """The derivatives of a loss, as symbolic tensors for the outputs or updates of `function`.

    In an update, write `keras.ops.subtract(w, 0.1 * g)` or `-0.1 * g + w`: Keras refuses an operator with a
    variable on its left and a symbolic tensor on its right, as in `w - 0.1 * g`.

    Args:
        loss: A symbolic tensor; one that is not a scalar counts as the sum of its elements.
        variables: What `loss` is computed from: a list of Keras variables and symbolic tensors, or one.

    Returns:
        One tensor for each variable, of its shape and dtype; a list also where one variable is given.

    Raises:
        TypeError: `loss` is no symbolic tensor, or `variables` holds something else than the above.
        UsageError: By the function, when it is called: the loss does not depend on a variable.
    """
    if not isinstance(loss, keras.KerasTensor):
        raise TypeError(
            f"loss must be a symbolic tensor, computed from a model's. Received: {type(loss).__name__}."
        )
    targets = list(variables) if isinstance(variables, (list, tuple)) else [variables]
    for target in targets:
        if not isinstance(target, (keras.KerasTensor, keras.Variable)):
            raise TypeError(
                "variables must hold Keras variables such as `layer.kernel` and symbolic tensors such as "
                f"`layer.output`. Received: {type(target).__name__}."
            )
    names = [describe(t) if isinstance(t, keras.KerasTensor) else f"variable {t.path!r}" for t in targets]
    gradients: list[Tensor] = _Gradients(names)(loss, targets)
    return gradients


class _Gradients(keras.Operation):  # type: ignore[misc]
    """Differentiates values in the TensorFlow graph in which they were computed from one another."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = names

    def __call__(self, loss: Any, targets: Sequence[Any]) -> Any:
        # Operation.__call__ would bury the error below in a description of this call.
        symbolic = isinstance(loss, keras.KerasTensor)
        return self.symbolic_call(loss, targets) if symbolic else self.call(loss, targets)

    def compute_output_spec(self, loss: Tensor, targets: Sequence[Any]) -> list[Tensor]:
        return [keras.KerasTensor(target.shape, dtype=target.dtype) for target in targets]

    def call(self, loss: Any, targets: Sequence[Any]) -> list[Any]:
        at = [target.value if isinstance(target, keras.Variable) else target for target in targets]
        gradients = tf.gradients(loss, at)
        for name, gradient in zip(self._names, gradients, strict=True):
            if gradient is None:
                raise UsageError(
                    f"the loss has no gradient with respect to {name}, because it is not computed from it by "
                    "operations that can be differentiated: leave it out of `variables`."
                )
        return [tf.convert_to_tensor(gradient) for gradient in gradients]
