"""The arguments of `function`, checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from layerprobe.backend_function.connect import missing_inputs
from layerprobe.backend_function.graph import Tensor, describe
from layerprobe.errors import UsageError


class Update(NamedTuple):
    """`value` is assigned to `variable`; where that is None, it is only computed, or called."""

    variable: Any
    value: Any


def parse_outputs(outputs: Any) -> Any:
    """A copy of the structure, which holds symbolic tensors and variables only."""

    def check(leaf: Any) -> Any:
        if not isinstance(leaf, (keras.KerasTensor, keras.Variable)):
            raise _unexpected("`outputs` must hold symbolic tensors such as `layer.output`", leaf)
        return leaf

    return keras.tree.map_structure(check, outputs)


def parse_inputs(inputs: Any, wanted: Sequence[Tensor]) -> list[Tensor]:
    """The given tensors as a flat list, with the one that `wanted` lacks in place of an empty list."""
    if isinstance(inputs, keras.KerasTensor):
        inputs = [inputs]
    if not isinstance(inputs, (list, tuple)):
        raise _unexpected("`inputs` must be a list of symbolic tensors", inputs)
    places: list[Tensor | None] = []
    for item in inputs:
        places += (item or [None]) if isinstance(item, (list, tuple)) else [item]
    given = [tensor for tensor in places if tensor is not None]
    for tensor in given:
        if not isinstance(tensor, keras.KerasTensor):
            raise _unexpected("`inputs` must hold symbolic tensors such as `layer.output`", tensor)
    if len(given) == len(places):
        return given
    missing = missing_inputs(given, wanted)
    if len(missing) != 1 or len(given) + 1 != len(places):
        raise UsageError(
            "an empty list in `inputs`, which is what the `.input` of an input layer is, can only stand for "
            "the one input that is needed and not given: use `model.inputs`. Received: an empty list for "
            f"{' or '.join(map(describe, missing)) or 'no input'}."
        )
    return [missing[0] if tensor is None else tensor for tensor in places]


def parse_updates(updates: Any) -> list[Update]:
    """The updates in order."""
    if updates is None:
        return []
    if not isinstance(updates, (list, tuple)):
        raise _unexpected("`updates` must be a list of (variable, new value) pairs or operations", updates)
    return [_parse_update(update) for update in updates]


def _parse_update(update: Any) -> Update:
    if isinstance(update, keras.KerasTensor) or (
        callable(update) and not isinstance(update, keras.Operation)
    ):
        return Update(None, update)
    if not isinstance(update, (list, tuple)) or len(update) != 2:
        raise _unexpected(
            "an update must be a (variable, new value) pair, a symbolic tensor or a callable",
            update,
        )
    variable, value = update
    if not isinstance(variable, keras.Variable):
        raise _unexpected(
            "the first of an update's pair must be a Keras variable such as `layer.kernel`", variable
        )
    if not isinstance(value, (keras.KerasTensor, keras.Variable)):
        value = _to_constant(value, variable)
    shapes = tuple(variable.shape), tuple(value.shape)
    if len(shapes[0]) != len(shapes[1]) or any(
        new not in (None, old) for old, new in zip(*shapes, strict=True)
    ):
        raise UsageError(
            f"the new value of variable {variable.path!r} must have its shape, {shapes[0]}: reduce it over "
            f"the axes that the variable does not have. Received: shape {shapes[1]}."
        )
    return Update(variable, value)


def _to_constant(value: Any, variable: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # nested lists of unequal lengths
        array = np.asarray(None)
    if array.dtype.kind in "OSU":
        what = f"the new value of variable {variable.path!r} must be a symbolic tensor, a variable or numbers"
        raise _unexpected(what, value)
    return array


def _unexpected(expected: str, value: Any) -> TypeError:
    if isinstance(value, keras.Layer):
        received = f"layer {value.name!r}, whose tensors are its `.input` and `.output`"
    else:
        received = repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return TypeError(f"{expected}. Received: {received}.")
