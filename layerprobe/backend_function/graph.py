"""The graph behind Keras's symbolic tensors, read only here.

Every symbolic tensor knows the call that made it, and that call its arguments. Keras keeps both in attributes
that are not public; the first section of this file reads them, and nothing else in the project does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = Any
"""A `keras.KerasTensor`."""
Call: TypeAlias = Any
"""A Keras `Node`: one call of an `operation` on `input_tensors`, which gave `outputs`."""


def call_of(tensor: Tensor) -> tuple[Call | None, int]:
    """The call that made a tensor and which of its outputs it is; None for an input."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None, 0
    call = history.operation._inbound_nodes[history.node_index]
    return (None if call.is_input else call), history.tensor_index


def operation_of(tensor: Tensor) -> Any:
    """The layer or operation that a tensor comes from, input layers included; None for a bare tensor."""
    history = getattr(tensor, "_keras_history", None)
    return history.operation if history is not None else None


def calls_around(operation: Any) -> list[Call]:
    """Every call of an operation, and every call that takes one of its outputs."""
    return [*operation._inbound_nodes, *operation._outbound_nodes]


def arguments(call: Call, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with `values` in place of its `input_tensors`."""
    filled = call.arguments.fill_in(dict(zip(map(id, call.input_tensors), values, strict=True)))
    return filled[0], filled[1]


def get_mask(tensor: Any) -> Any:
    """The mask that Keras has attached to a tensor, symbolic or not."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Attach a mask as Keras does, for the layers that will be called on the tensor."""
    tensor._keras_mask = mask


def is_graph(operation: Any) -> bool:
    """Whether calling the operation only runs a graph of layers, so that the call can be replaced by them.

    True for Functional models and for Sequential ones that know their input; not where a subclass has its
    own `call`.
    """
    if not isinstance(operation, keras.Model) or not hasattr(operation, "inputs"):
        return False
    return type(operation).call.__module__ in ("keras.src.models.functional", "keras.src.models.sequential")


# What follows is built on these alone.


def describe(tensor: Tensor) -> str:
    """What to call a symbolic tensor in a sentence."""
    operation = operation_of(tensor)
    if operation is None:
        return f"tensor {tensor.name!r}"
    if call_of(tensor)[0] is None:
        return f"input {operation.name!r}"
    kind = "layer" if isinstance(operation, keras.Layer) else "operation"
    return f"the output of {kind} {operation.name!r}"


def after_needs(roots: Iterable[Tensor], needs: Callable[[Tensor], Iterable[Tensor]]) -> Iterator[Tensor]:
    """Every tensor that the roots need, and the roots, each once and after what it needs.

    Kept on a list rather than on Python's stack, which deep models would overflow. Where tensors need each
    other in a circle, one of them comes before what it needs.
    """
    stack = list(roots)
    opened: set[int] = set()
    done: set[int] = set()
    while stack:
        tensor = stack[-1]
        if id(tensor) in opened:
            stack.pop()
            if id(tensor) not in done:
                done.add(id(tensor))
                yield tensor
        else:
            opened.add(id(tensor))
            stack.extend(need for need in needs(tensor) if id(need) not in opened)


def parents(tensor: Tensor) -> Sequence[Tensor]:
    """What the call that made a tensor was called on."""
    call, _ = call_of(tensor)
    return () if call is None else call.input_tensors


def operations_within(model: Any) -> list[Any]:
    """The operations of a model's graph, its input layers included, and of the models nested in it."""
    found: dict[int, Any] = {}
    todo = [model]
    while todo:
        for operation in _operations(todo.pop()):
            if id(operation) not in found:
                found[id(operation)] = operation
                if is_graph(operation):
                    todo.append(operation)
    return list(found.values())


def _operations(model: Any) -> Iterator[Any]:
    """Operations of one graph; a Sequential model names only its layers, and not its input layer."""
    yield from getattr(model, "operations", model.layers)
    yield from map(operation_of, model.inputs)


def call_key(call: Call, refs: Sequence[Hashable]) -> Hashable:
    """Equal for two calls that must give the same values.

    Args:
        call: The call.
        refs: For each of its `input_tensors`, something that is equal where the tensors' values are.
    """
    args, kwargs = arguments(call, [_Placeholder(ref) for ref in refs])
    leaves = keras.tree.flatten((args, [kwargs[name] for name in sorted(kwargs)]))
    return _operation_key(call.operation), tuple(sorted(kwargs)), tuple(map(_leaf_key, leaves))


@dataclass(frozen=True, slots=True)
class _Placeholder:
    """Stands in a call's arguments for a tensor."""

    ref: Hashable


def _leaf_key(leaf: Any) -> Hashable:
    """Equal for equal tensors and plain values; an array, a variable and the like is only equal to itself."""
    plain = isinstance(leaf, (_Placeholder, bool, int, float, str, type(None)))
    return type(leaf), (leaf if plain else id(leaf))


def _operation_key(operation: Any) -> Hashable:
    """A layer is only equal to itself; Keras's own bare operations hold nothing but their configuration.

    The latter matters for masks: Keras makes a new `not_equal` for each call of a masking layer.
    """
    if not type(operation).__module__.startswith("keras.src.ops."):
        return id(operation)
    try:
        config = operation.get_config()
    except NotImplementedError:  # made with an argument that has no configuration, an array for instance
        return id(operation)
    return type(operation), repr({key: value for key, value in config.items() if key != "name"})


class Identities:
    """Numbers tensors so that those which must have the same values have the same number."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self._numbers: dict[Hashable, int] = {}

    def __call__(self, tensor: Tensor) -> int:
        """The number of a tensor."""
        known = self._of
        for each in after_needs([tensor], lambda t: () if id(t) in known else parents(t)):
            if id(each) not in known:
                known[id(each)] = self._numbers.setdefault(self._key(each), len(self._numbers))
        return known[id(tensor)]

    def _key(self, tensor: Tensor) -> Hashable:
        call, index = call_of(tensor)
        if call is None:
            return "input", id(tensor)
        return call_key(call, [self._of[id(parent)] for parent in call.input_tensors]), index
