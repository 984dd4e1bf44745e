"""Walks a model's graph of calls and builds each; what the taps mean is noted on the way."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from openvino import opset13 as op

from layerprobe.engines.graph.embedding import Lookup
from layerprobe.engines.graph.expressions import operation
from layerprobe.engines.graph.layer import Layer, LayerWeights
from layerprobe.engines.graph.masks import Watch, handed_on, masks_of, takes_mask, with_masks
from layerprobe.engines.graph.structure import fill, flat
from layerprobe.engines.graph.tables import FLAGS, KEYWORDS, LAYERS, OTHER_TYPES
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import Value
from layerprobe.engines.openvino_cpu import last_line
from layerprobe.errors import LayerprobeError
from layerprobe.modelfile.graph import Call, Graph, LayerNode, Reference
from layerprobe.records import TapKind

Place = tuple[str, TapKind]
"""A layer's address and what of it is noted."""
Path = tuple[int, ...]
"""Which call of each model around a layer, from the outermost, and of the layer itself."""
Seen = dict[Path, list[Value]]


class Builder:
    """Builds OpenVINO nodes for the calls of a graph.

    Args:
        weights: Of the model.
        wanted: The places whose tensors are to be remembered.
        max_memory: Bytes that one tensor of one row may have.
        masks_with_states: Whether a mask reaches a recurrent layer that is given its first state, as it did
            before Keras 3, which drops it.
    """

    def __init__(
        self, weights: LayerWeights, wanted: Collection[Place], max_memory: int, masks_with_states: bool
    ) -> None:
        self._weights = weights
        self._masks_with_states = masks_with_states
        self._watch = Watch()
        self._max_memory = max_memory
        self.seen: dict[Place, Seen] = {place: {} for place in wanted}
        self.lookups: list[Lookup] = []

    def model(self, graph: Graph, inputs: Mapping[str, Value], prefix: str = "", path: Path = ()) -> Any:
        """Build every call of a model.

        Args:
            graph: The model.
            inputs: What its InputLayers give, by name.
            prefix: Its address and a "/", or "" for the outermost.
            path: Which calls of the models around it this one is in.

        Returns:
            The structure of its outputs.

        Raises:
            Unsupported: Something in it is not in the graph engine.
        """
        results: dict[tuple[str, int], list[Value]] = {}

        def tensor(reference: Reference) -> Value:
            if (reference.layer, reference.call) not in results:
                raise Unsupported(f"what layer {prefix + reference.layer!r} gives")
            tensors = results[reference.layer, reference.call]
            if reference.output >= len(tensors):
                raise Unsupported(f"tensor {reference.output} of layer {prefix + reference.layer!r}")
            return tensors[reference.output]

        for node, number in in_order(graph):
            address, here = prefix + node.name, (*path, number)
            if node.is_input:
                made = [inputs[node.name]]
                self._note((address, "input"), here, made)
                self._note((address, "output"), here, made)
            else:
                try:
                    made = self._call(node, address, here, _filled(node.calls[number], tensor))
                except Unsupported as reason:
                    self.give_up(address, reason)
                    continue
            results[node.name, number] = made
        return fill(graph.outputs, tensor)

    def give_up(self, address: str, reason: Unsupported) -> None:
        """What becomes of a layer that cannot be built: it ends the building, for a run."""
        raise reason

    def _call(self, node: LayerNode, address: str, path: Path, call: Call) -> list[Value]:
        """Build one call of a layer, an operation or a nested model."""
        call = Call(
            call.arguments, {key: item for key, item in call.keywords.items() if not _neutral(key, item)}
        )
        beside = {name: item for name, item in _without_mask(call.keywords).items() if name not in FLAGS}
        leaves = [*flat(call.arguments), *flat(beside)]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Value)]
        self._note((address, "input"), path, tensors)
        try:
            if node.inner is not None:
                made = self._nested(node, address, path, call)
            elif node.is_operation:
                made = operation(node, call)
            elif len(tensors) != len(leaves):
                raise Unsupported("a constant among its inputs")
            else:
                made = self._layer(node, address, path, call)
        except Unsupported as reason:
            raise _at(reason, node, address) from reason
        except LayerprobeError:
            raise
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            # Of OpenVINO, for shapes that do not fit; of Python, for arguments that no layer can have.
            raise _at(Unsupported(last_line(error)), node, address) from error
        if any(4 * math.prod(size or 1 for size in tensor.shape[1:]) > self._max_memory for tensor in made):
            raise Unsupported(f"the memory for what layer {address!r} gives")
        self._note((address, "output"), path, made)
        return made

    def _nested(self, node: LayerNode, address: str, path: Path, call: Call) -> list[Value]:
        assert node.inner is not None
        if _without_mask(call.keywords) or len(call.arguments) != 1:
            raise Unsupported(f"a call with {', '.join(call.keywords) or 'several arguments'}")
        within = _by_name(node.inner, call.arguments[0])
        if "mask" in call.keywords:
            within = dict(zip(within, with_masks(list(within.values()), masks_of(call, False)), strict=True))
        return flat(self.model(node.inner, within, address + "/", path))

    def _layer(self, node: LayerNode, address: str, path: Path, call: Call) -> list[Value]:
        if node.module != "keras.layers" or node.class_name not in LAYERS:
            raise Unsupported("a class that it does not have")
        if node.config["dtype"] not in ("float32", *OTHER_TYPES.get(node.class_name, ())):
            raise Unsupported(f"dtype {node.config['dtype']}")
        known = (*KEYWORDS.get(node.class_name, ()), *(("mask",) if takes_mask(node) else ()))
        unknown = [name for name in call.keywords if name not in known]
        if unknown:
            raise Unsupported(f"a call with {', '.join(unknown)}")

        def build(inner: LayerNode, at: str, given: Call) -> list[Value]:
            return self._call(inner, at, path, given)

        def note(tensor: Value) -> None:
            self._note((address, "preactivation"), path, [tensor])

        layer = Layer(
            node,
            address,
            self._weights,
            build,
            note,
            self.lookups.append,
            call.arguments,
            _without_mask(call.keywords),
            masks_of(call, self._masks_with_states) if takes_mask(node) else (),
        )
        made = LAYERS[node.class_name](layer, flat(call.arguments))
        made = handed_on(node, call, made if isinstance(made, list) else [made])
        self._watch.taken(node, call, made)
        return made

    def _note(self, place: Place, path: Path, tensors: list[Value]) -> None:
        if place in self.seen:
            self.seen[place][path] = tensors


def in_order(graph: Graph) -> list[tuple[LayerNode, int]]:
    """Every call of a graph's layers, as node and number, each after those that its inputs come from.

    Layers that are never called are left out.
    """
    ordered: list[tuple[LayerNode, int]] = []
    done: set[tuple[str, int]] = set()
    waiting = {node.name: 0 for node in graph.layers if node.calls}
    while waiting:
        before = len(ordered)
        for node in graph.layers:
            while node.name in waiting:
                number = waiting[node.name]
                taken = node.calls[number].references()
                if not all((reference.layer, reference.call) in done for reference in taken):
                    break
                ordered.append((node, number))
                done.add((node.name, number))
                waiting[node.name] += 1
                if waiting[node.name] >= len(node.calls):
                    del waiting[node.name]
        if len(ordered) == before:
            raise Unsupported(f"layers that wait for each other: {', '.join(sorted(waiting)[:5])}")
    return ordered


def _neutral(name: str, value: Any) -> bool:
    """Whether an argument of a call says nothing here.

    `training` does not, whatever it is: Keras hands every layer the phase in which the model is called,
    and writes true for layers whose default it is.
    """
    return value is None or (name == "training" and isinstance(value, bool))


def _without_mask(keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in keywords.items() if name != "mask"}


def _by_name(graph: Graph, given: Any) -> dict[str, Value]:
    """What goes into a nested model, by the names of its InputLayers."""
    wanted, values = flat(graph.inputs), flat(given)
    same = isinstance(graph.inputs, Mapping) == isinstance(given, Mapping)
    if isinstance(given, Mapping) and isinstance(graph.inputs, Mapping):
        same = set(given) == set(graph.inputs)
    if not same or len(wanted) != len(values) or not all(isinstance(leaf, Value) for leaf in values):
        raise Unsupported(f"the structure of what goes into model {graph.name!r}")
    within = {}
    for reference, tensor in zip(wanted, values, strict=True):
        within[reference.layer] = fitted(graph.layer(reference.layer), tensor)
    return within


def fitted(node: LayerNode, tensor: Value) -> Value:
    """A tensor as an InputLayer gives it on: of its type, and of the shape that it says.

    Raises:
        Unsupported: It has another shape; what Keras then does depends on its version.
    """
    config, shape = node.config, node.config["batch_shape"]
    if config.get("sparse") or config.get("ragged") or config.get("optional"):
        raise Unsupported(f"input {node.name!r}, which is sparse, ragged or optional")
    if shape is None and tensor.dtype == config["dtype"]:
        return tensor
    fits = shape is not None and len(shape) == tensor.rank
    sizes = zip(shape or (), tensor.shape, strict=False)
    if not fits or any(None not in (asked, has) and asked != has for asked, has in sizes):
        raise Unsupported(f"input {node.name!r} of shape {shape}, which gets {tensor.shape}")
    if tensor.dtype == config["dtype"]:
        return tensor
    if tensor.dtype in ("float32", "int32", "int64") and config["dtype"] == "float32":
        return Value(op.convert(tensor.node, "f32").output(0), tensor.turned, tensor.mask)
    raise Unsupported(f"input {node.name!r} of type {config['dtype']}, which gets {tensor.dtype}")


def _filled(call: Call, tensor: Any) -> Call:
    return Call(fill(call.arguments, tensor), fill(dict(call.keywords), tensor))


def _at(reason: Unsupported, node: LayerNode, address: str) -> Unsupported:
    """The same, with the layer; the innermost names itself once."""
    text = str(reason)
    return reason if "(layer " in text else Unsupported(f"{node.class_name} (layer {address!r}): {text}")
