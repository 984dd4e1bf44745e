"""The normal form of a model file -> a live Keras model, with Keras's own classes and no deserialiser.

Nothing of the file reaches Keras but plain arguments of classes on an allow-list. No initializer,
regularizer, constraint, optimizer, loss or metric is built.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras

from layerprobe.errors import LayerprobeError, ModelError, UnavailableError, UnknownLayerError, UsageError
from layerprobe.loading.assign import assign
from layerprobe.loading.layers import BoundedZeros, fill_in, make_layer, pieces
from layerprobe.loading.reasons import first_line
from layerprobe.loading.subclassed import load_subclassed
from layerprobe.modelfile.graph import Graph, LayerNode, Reference, walk
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.modelfile.reach import keep_ancestors, problems
from layerprobe.modelfile.served_layers import remaining_problems
from layerprobe.options import MAX_MEMORY, ModelOptions


def load_model(
    path: str,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = False,
    *,
    keep: Collection[str] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> keras.Model:
    """Load a saved Keras model of any generation, never compiled.

    Args:
        path: Of an HDF5, `.keras` or architecture JSON file, whatever it is called, or a SavedModel folder.
        custom_objects: The user's own classes and functions by name, for layers that are not Keras's.
        compile: Only False: losses and optimizers are never read.
        keep: Addresses of the layers that are wanted, "" for the model's own outputs: only what they need
            is built. None builds everything.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name; they go
            before what the file itself says.
        max_memory: Bytes that one argument of one layer may ask for.

    Returns:
        A `keras.Sequential` or functional model as the file describes it. One that was cut down takes the
        inputs that are needed, and returns the wanted layers that no other needs.

    Raises:
        LayerprobeError: The file cannot be read, is refused, needs code that was not given, or has not the
            layers that are wanted.
    """
    if compile:
        raise UsageError("load_model never compiles: leave `compile` out, and compile the model yourself.")
    options = ModelOptions(dict(custom_objects or {}), weights, lambdas or {}, max_memory)
    with ModelFile(path, options) as file:
        return load_file(file, keep)


def load_file(file: ModelFile, keep: Collection[str] | None = None) -> keras.Model:
    """Like `load_model`, for a file that is open."""
    if not file.graph.layers and file.archive.savedmodel is None:
        model = load_subclassed(file.archive.path, file.archive.config(), file.options.custom_objects)
        file.archive.check_unchanged(by_name=True)
        return model
    _refuse_missing(keep or (), file.graph)
    model = _load_graph(file, keep)
    file.archive.check_unchanged()
    return model


def _refuse_missing(keep: Collection[str], graph: Graph) -> None:
    known = {address for address, _ in walk(graph)}
    missing = [address for address in keep if address and address not in known]
    if missing and graph.layers:
        raise UnknownLayerError(
            f"{missing[0]!r}: the model has no such layer; `layerprobe layers` lists them."
        )


def _load_graph(file: ModelFile, keep: Collection[str] | None) -> keras.Model:
    """Build what is wanted of a model, and give it its weights."""
    archive, whole, stored = file.archive, file.graph, file.weights
    given, sizes = file.options.custom_objects, file.oversized
    file.check_weights()
    archive.verify()
    graph = whole if keep is None else keep_ancestors(whole, keep)
    if archive.savedmodel is not None:
        # The graph of a SavedModel has what the user's classes compute, as they were when it was saved.
        found = problems(graph, (), sizes)
        obstacles = remaining_problems(archive.savedmodel, graph, found, (), sizes) if found else {}
        if not whole.layers or (found and not obstacles):
            if keras.config.backend() != "tensorflow":
                raise UnavailableError(
                    f"{archive.path} holds a graph that only TensorFlow runs: set KERAS_BACKEND=tensorflow. "
                    f"Received: {keras.config.backend()}"
                )
            # Imported here: nothing else needs TensorFlow itself, whatever runs Keras.
            from layerprobe.loading.served import load_served

            return load_served(archive.savedmodel, whole, keep)
    else:
        obstacles = problems(graph, given, sizes)
    for address, obstacle in obstacles.items():
        raise ModelError(f"layer {address!r} cannot be built: {obstacle}.")
    builder = Builder(given, stored.total(), file.masks_with_states)
    model = builder.model(graph)
    _build_activations(builder.layers)
    assign(builder.layers, stored, archive.hdf5())
    return model


def _build_activations(layers: Mapping[str, tuple[LayerNode, keras.Operation]]) -> None:
    """Give layers that are activations of other layers (`Conv2D(activation=PReLU())`) their weights.

    Keras works out a convolution's shape without calling its activation, which then has no weights yet.
    """
    for address, (_, layer) in layers.items():
        outer = layers.get(address.rpartition("/")[0])
        if outer is None or not hasattr(outer[1], "activation") or layer.built:
            continue
        if outer[1].activation is layer:
            layer.build(outer[1]._inbound_nodes[0].output_tensors[0].shape)


class Builder:
    """Builds Keras models from graphs; remembers every layer by its address, with its node."""

    def __init__(self, custom_objects: Mapping[str, Any], stored: int, masks_with_states: bool) -> None:
        """Begin.

        Args:
            custom_objects: The user's own classes and functions by name.
            stored: Numbers in all weights of the file; no weight can have more.
            masks_with_states: Whether a mask reaches a recurrent layer that is given its first state, as it
                did before Keras 3, which drops it.
        """
        self.layers: dict[str, tuple[LayerNode, keras.Operation]] = {}
        self._custom_objects = custom_objects
        self._zeros = BoundedZeros(stored)
        self._masks_with_states = masks_with_states

    def model(self, graph: Graph, prefix: str = "") -> keras.Model:
        """Build a model and all within it.

        Args:
            graph: The model.
            prefix: Its address and a "/", or "" for the outermost.

        Raises:
            ModelError: Keras does not take what the file says.
        """
        sequential = graph.class_name == "Sequential" and isinstance(graph.outputs, Reference)
        try:
            return self._sequential(graph, prefix) if sequential else self._functional(graph, prefix)
        except LayerprobeError:
            raise
        except Exception as error:  # Keras raises nearly everything for shapes that do not fit each other.
            what = f"model {prefix.rstrip('/') or graph.name!r}"
            raise ModelError(f"{what} cannot be built: {first_line(error)}.") from error

    def _sequential(self, graph: Graph, prefix: str) -> keras.Sequential:
        nodes = [node for node in graph.layers if not (node.is_input and node.config["batch_shape"] is None)]
        if not prefix and not nodes[0].is_input:
            raise ModelError(f"the file does not say what shape goes into model {graph.name!r}.")
        model = keras.Sequential([self._layer(node, prefix) for node in nodes], name=graph.name)
        if not prefix:
            # Once called, `model.input` and `model.output` are there, as they were in Keras 2.
            model(model.inputs[0])
        return model

    def _functional(self, graph: Graph, prefix: str) -> keras.Model:
        layers = {node.name: self._layer(node, prefix) for node in graph.layers}
        results = _call_all(graph, layers, self._masks_with_states)

        def tensor(reference: Reference) -> Any:
            return results[reference.layer, reference.call][reference.output]

        model = keras.Model(fill_in(graph.inputs, tensor), fill_in(graph.outputs, tensor), name=graph.name)
        # Keras orders layers of one depth by its own walk through the graph; indices are those of the file.
        # Operations that compute masks, which Keras adds by itself, come last.
        order = {node.name: place for place, node in enumerate(graph.layers)}
        vars(model)["_operations"] = sorted(model.operations, key=lambda op: order.get(op.name, len(order)))
        return model

    def _layer(self, node: LayerNode, prefix: str) -> keras.Operation:
        address = prefix + node.name
        if node.inner is not None:
            layer = self.model(node.inner, address + "/")
        else:
            try:
                layer = make_layer(
                    node,
                    self._custom_objects,
                    self._zeros,
                    lambda inner: self._layer(inner, address + "/"),
                )
            except LayerprobeError:
                raise
            except Exception as error:  # Whatever a class raises about its arguments.
                what = f"layer {address!r} ({node.class_name})"
                raise ModelError(f"{what} cannot be built: {first_line(error)}.") from error
        self.layers[address] = (node, layer)
        for name, child, piece in pieces(node, layer):
            self.layers[f"{address}/{name}"] = (child, piece)
        return layer


def _call_all(
    graph: Graph, layers: Mapping[str, keras.Operation], masks_with_states: bool
) -> dict[tuple[str, int], list[Any]]:
    """Make every call of a functional graph once what goes into it is there; the tensors of each call."""
    results: dict[tuple[str, int], list[Any]] = {}
    waiting = {node.name: 0 for node in graph.layers}
    while waiting:
        before = len(results)
        for node in graph.layers:
            while node.name in waiting:
                call = waiting[node.name]
                if node.is_input:
                    results[node.name, call] = [layers[node.name].output]
                elif not _call(node, call, layers[node.name], results, masks_with_states):
                    break
                waiting[node.name] += 1
                if waiting[node.name] >= len(node.calls):
                    del waiting[node.name]
        if len(results) == before:
            raise ModelError(
                f"the layers of model {graph.name!r} wait for each other: {sorted(waiting)[:5]}."
            )
    return results


def _call(
    node: LayerNode,
    number: int,
    layer: keras.Operation,
    results: dict[tuple[str, int], list[Any]],
    masks_with_states: bool,
) -> bool:
    """Call a layer; False where what goes in is not there yet."""
    if not node.calls:
        raise ModelError(f"layer {node.name!r} is never called.")
    call = node.calls[number]
    if any((reference.layer, reference.call) not in results for reference in call.references()):
        return False

    def tensor(reference: Reference) -> Any:
        return results[reference.layer, reference.call][reference.output]

    arguments = fill_in(call.arguments, tensor)
    keywords = fill_in(dict(call.keywords), tensor)
    mask = getattr(arguments[0], "_keras_mask", None) if arguments else None
    if masks_with_states and mask is not None and "initial_state" in keywords:
        if keras.config.backend() == "jax":
            raise UnavailableError(
                f"layer {node.name!r} has a mask and a first state, of which Keras on JAX makes other "
                "values than on TensorFlow: set KERAS_BACKEND=tensorflow."
            )
        keywords.setdefault("mask", mask)
    result = layer(*arguments, **keywords)
    results[node.name, number] = keras.tree.flatten(result)
    return True
