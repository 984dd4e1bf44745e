"""Record any layer's output, input or pre-activation while a Keras model is called once.

Building `Model(inputs, layer.output)` fails for layers of nested and subclassed models. Instead the `call`
of the wanted layers is wrapped on the instance while the whole model runs (symbolically, under a tracer), and
restored afterwards. The compiler then drops what nothing recorded depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from layerprobe.errors import UnknownLayerError, UnrecordableLayerError, UsageError
from layerprobe.records import LayerInfo, Tap


def find_layers(model: keras.Model) -> dict[str, keras.Operation]:
    """Every layer and bare operation of a live model by address, an outer one before its inner ones.

    A second sibling of the same name, which only subclassed models can have, is called `name~2`.
    """
    found: dict[str, keras.Operation] = {}

    def visit(parent: keras.Operation, prefix: str) -> None:
        for child in children(parent):
            address, copies = prefix + child.name, 1
            while address in found:
                copies += 1
                address = f"{prefix}{child.name}~{copies}"
            found[address] = child
            visit(child, address + "/")

    visit(model, "")
    return found


def children(layer: keras.Operation) -> list[keras.Operation]:
    """The layers one level down; of a functional model, its bare operations too."""
    if isinstance(layer, keras.Sequential):
        return list(layer.layers)
    if hasattr(layer, "_nodes_by_depth"):  # functional
        return list(layer.operations)
    if isinstance(layer, keras.Layer):
        return list(layer._flatten_layers(include_self=False, recursive=False))
    return []


def describe_model(model: keras.Model) -> tuple[LayerInfo, ...]:
    """The layers of a live model, for those whose file does not list them (subclassed models)."""
    indices = {id(layer): index for index, layer in enumerate(model.layers)}
    return tuple(
        LayerInfo(
            address=address,
            class_name=type(layer).__name__,
            index=None if "/" in address else indices.get(id(layer)),
            inbound=(),
            parameters=layer.count_params() if isinstance(layer, keras.Layer) and layer.built else None,
        )
        for address, layer in find_layers(model).items()
    )


@contextmanager
def variables_unchanged(layers: Iterable[keras.Operation]) -> Iterator[None]:
    """Calls within assign to no variable, but for the states of random layers, which move on.

    Batch normalisation would otherwise move its statistics in the training phase, and so change the model.
    """
    with keras.StatelessScope() as scope:
        yield
    for layer in layers:
        for variable in getattr(layer, "non_trainable_variables", ()):
            value = scope.get_current_value(variable)
            if value is not None and variable.name == "seed_generator_state":
                variable.assign(value)


class Recording:
    """What the taps saw during one call of the model."""

    def __init__(self, model: keras.Model, taps: Sequence[Tap]) -> None:
        self._model = model
        self._taps = taps
        self._layers = find_layers(model)
        self._seen: dict[tuple[str, str], list[list[Any]]] = {(tap.address, tap.kind): [] for tap in taps}
        for tap in taps:
            if tap.address and tap.address not in self._layers:
                raise UnknownLayerError(f"{tap.name!r}: the loaded model has no layer {tap.address!r}.")

    @contextmanager
    def active(self) -> Iterator[None]:
        """While this is entered, calls of the tapped layers are recorded."""
        with ExitStack() as stack:
            for address, kind in self._seen:
                if address:
                    self._attach(stack, address, kind)
            yield

    def tensors(self, outputs: Any) -> dict[Tap, Any]:
        """The recorded tensors, in the order of the taps, each under the tap that means it alone.

        Args:
            outputs: What the model returned.

        Raises:
            UnrecordableLayerError: A tapped layer was not called, or has no such value.
            UnknownLayerError: There is no such call, or no such output.
        """
        found: dict[Tap, Any] = {}
        for tap in self._taps:
            if tap.address:
                calls = self._in_order_of_building(tap.address, self._seen[tap.address, tap.kind])
            else:
                calls = [_tensors(outputs)]
            if not calls:
                raise UnrecordableLayerError(_why_nothing_was_seen(tap, self._layers))
            found.update(_expand(tap, calls))
        return found

    def seen(self) -> dict[str, list[Any]]:
        """All recorded tensors by address, for the taps that saw any."""
        return {
            address: [tensor for call in calls for tensor in call]
            for (address, _), calls in self._seen.items()
            if calls
        }

    def _attach(self, stack: ExitStack, address: str, kind: str) -> None:
        layer, seen = self._layers[address], self._seen[address, kind]
        if kind == "preactivation":
            if not callable(getattr(layer, "activation", None)):
                raise UsageError(
                    f"'pre:{address}': {type(layer).__name__} has no fused activation; take {address!r}."
                )
            self._wrap_activation(stack, layer, seen)
        elif isinstance(layer, keras.layers.InputLayer):
            parent, _, _ = address.rpartition("/")
            container = self._layers[parent] if parent else self._model
            place = [spec.name for spec in _functional(container).inputs].index(layer.output.name)
            _wrap(stack, container, lambda arguments, _: seen.append([_tensors(arguments)[place]]))
        elif kind == "input":
            _wrap(stack, layer, lambda arguments, _: seen.append(_tensors(arguments)))
        else:
            _wrap(stack, layer, lambda _, result: seen.append(_tensors(result)))

    def _wrap_activation(self, stack: ExitStack, layer: keras.Layer, seen: list[list[Any]]) -> None:
        """Record what goes into `layer.activation`, one entry per call of the layer."""
        within: list[Any] = []
        activation = layer.activation

        def recorded(value: Any, *args: Any, **kwargs: Any) -> Any:
            within.append(value)
            return activation(value, *args, **kwargs)

        def finish(_: Any, __: Any) -> None:
            if len(within) == 1:
                seen.append([within[0]])
            within.clear()

        stack.callback(layer.__dict__.__setitem__, "activation", activation)
        layer.__dict__["activation"] = recorded
        _wrap(stack, layer, finish)

    def _in_order_of_building(self, address: str, calls: list[list[Any]]) -> list[list[Any]]:
        """Calls come in the order the model runs them; users count them in the order it was built."""
        chain: list[keras.Operation] = [self._model]
        names = address.split("/")
        outer = ("/".join(names[: depth + 1]) for depth in range(len(names)))
        # Operations of a SavedModel's own graph have "/" in their names without being nested.
        chain += [self._layers[place] for place in outer if place in self._layers]
        ranks = [0]
        for container, layer in itertools.pairwise(chain):
            order = _build_ranks(container, layer)
            ranks = [outer * len(order) + inner for outer in ranks for inner in order]
        if len(ranks) != len(calls):
            return calls
        return [call for _, call in sorted(zip(ranks, calls, strict=True), key=lambda pair: pair[0])]


def _build_ranks(container: keras.Operation, layer: keras.Operation) -> list[int]:
    """For each call of `layer` within a functional model, in running order: which one it was when built."""
    functional = _functional(container)
    if functional is None:
        return [0]
    by_depth = functional._nodes_by_depth
    running = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    running = [node for node in running if node.operation is layer]
    built = [node for node in layer._inbound_nodes if any(node is other for other in running)]
    return [next(i for i, other in enumerate(built) if other is node) for node in running]


def _functional(container: keras.Operation) -> Any:
    """The functional graph behind a functional or Sequential model; None for others."""
    if isinstance(container, keras.Sequential):
        return container._functional
    return container if hasattr(container, "_nodes_by_depth") else None


def _wrap(stack: ExitStack, layer: keras.Operation, after: Callable[[Any, Any], None]) -> None:
    """Have `after(arguments, result)` run after each call of this one layer, until the stack unwinds."""
    call = layer.call

    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        after((args, {name: value for name, value in kwargs.items() if name != "mask"}), result)
        return result

    # The instance's __dict__ is written directly: a Keras layer's own __setattr__ would track the wrapper.
    previous = layer.__dict__.get("call")
    layer.__dict__["call"] = recorded
    if previous is None:
        stack.callback(layer.__dict__.pop, "call")
    else:
        stack.callback(layer.__dict__.__setitem__, "call", previous)


def _tensors(structure: Any) -> list[Any]:
    return [
        leaf for leaf in keras.tree.flatten(structure) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    ]


def _numbered(count: int, what: str, sign: str) -> str:
    return f"1 {what}, {sign}0" if count == 1 else f"{count} {what}s, {sign}0 to {sign}{count - 1}"


def _expand(tap: Tap, calls: list[list[Any]]) -> dict[Tap, Any]:
    """One entry per tensor that the tap means; `@` and `:` are added where there are several."""
    if tap.call is not None and tap.call >= len(calls):
        raise UnknownLayerError(
            f"{tap.name!r}: layer {tap.address!r} is called {_numbered(len(calls), 'time', '@')}."
        )
    found = {}
    for call, tensors in enumerate(calls):
        if tap.call is not None and tap.call != call:
            continue
        if tap.output is not None and tap.output >= len(tensors):
            raise UnknownLayerError(
                f"{tap.name!r}: layer {tap.address!r} gives {_numbered(len(tensors), 'tensor', ':')}."
            )
        for place, tensor in enumerate(tensors):
            if tap.output is not None and tap.output != place:
                continue
            one_call = tap.call if len(calls) == 1 else call
            one_output = tap.output if len(tensors) == 1 else place
            found[Tap(tap.address, tap.kind, one_call, one_output)] = tensor
    return found


def _why_nothing_was_seen(tap: Tap, layers: dict[str, keras.Operation]) -> str:
    if tap.kind == "preactivation":
        return f"{tap.name!r} cannot be recorded: the layer does not apply its activation exactly once."
    names = tap.address.split("/")
    places = ("/".join(names[:depth]) for depth in range(1, len(names)))
    outer = [layers[place] for place in places if place in layers]
    inside = f" inside {type(outer[-1]).__name__} {outer[-1].name!r}" if outer else ""
    return (
        f"layer {tap.address!r} cannot be recorded: it is not called as a layer{inside} when the model runs."
    )
