"""What a model file says about itself: its layers, read without any framework."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from layerprobe.modelfile.graph import Graph, LayerNode, Reference, references
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.modelfile.reach import inbound, problems
from layerprobe.modelfile.served_layers import remaining_problems, served_operations
from layerprobe.modelfile.weights import Weights
from layerprobe.options import MAX_MEMORY, ModelOptions
from layerprobe.records import Finding, LayerInfo, ModelInfo, TensorSpec
from layerprobe.stores.urls import shown


def layers(path: str, weights: str | None = None) -> tuple[LayerInfo, ...]:
    """The layers of a saved model, in the order of `model.layers`, nested ones after the model they are in.

    Args:
        path: Of the model file or SavedModel folder.
        weights: Of an HDF5 file with the weights, for a model that came without them.

    Raises:
        LayerprobeError: The file cannot be read, or is refused.
    """
    return describe(path, weights).layers


def describe(
    path: str,
    weights: str | None = None,
    *,
    given: Collection[str] = (),
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> ModelInfo:
    """Read what a saved model consists of, without any framework and without reading its weights.

    Args:
        path: Of the model file or SavedModel folder.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        given: Names of the classes and functions that the user gives code for.
        lambdas: Expressions that the user gives for Lambda layers, by address or bare name.
        max_memory: Bytes that one argument of one layer may ask for.

    Raises:
        LayerprobeError: The file cannot be read, or is refused.
    """
    options = ModelOptions(dict.fromkeys(given), weights, lambdas or {}, max_memory)
    with ModelFile(path, options) as file:
        return describe_file(file)


def describe_file(file: ModelFile) -> ModelInfo:
    """Like `describe`, for a model that is open."""
    archive, graph, weights, given = file.archive, file.graph, file.weights, file.options.custom_objects
    found = problems(graph, given, file.oversized)
    inputs = tuple(_input_spec(graph, reference) for reference in references(graph.inputs))
    layers = _list_layers(graph, weights, found)
    if archive.savedmodel is not None and not graph.layers:
        inputs = archive.savedmodel.signature.inputs
        layers = served_operations(archive.savedmodel.signature)
    elif archive.savedmodel is not None and found:
        remaining = remaining_problems(archive.savedmodel, graph, found, given, file.oversized)
        layers = _list_layers(graph, weights, remaining)
    return ModelInfo(
        path=shown(file.path),
        file_format=archive.file_format,
        keras_version=archive.keras_version,
        class_name=graph.class_name,
        inputs=inputs,
        layers=layers,
        findings=(
            *file.findings,
            *graph.findings,
            *(Finding("refused", address, reason) for address, reason in file.oversized.items()),
            *_missing(file, layers),
        ),
    )


def _missing(file: ModelFile, layers: tuple[LayerInfo, ...]) -> Iterator[Finding]:
    """What the user has to give beside the file before anything can be extracted."""
    if not layers:
        code = f"{file.graph.class_name} is a class of its own, and only its code knows its layers"
        yield Finding("warning", "", f"{code}: give it with --custom FILE.py")
    elif (lack := file.lack) is not None:
        yield Finding("warning", "", lack)


def _input_spec(graph: Graph, reference: Reference) -> TensorSpec:
    config = graph.layer(reference.layer).config
    shape = config.get("batch_shape")
    shape = tuple(shape[1:]) if isinstance(shape, list | tuple) else ()
    return TensorSpec(reference.layer, shape, str(config.get("dtype", "float32")))


def _list_layers(graph: Graph, weights: Weights, found: dict[str, str]) -> tuple[LayerInfo, ...]:
    """Every layer, an outer one before its inner ones."""
    listing = _Listing(weights, found)
    listing.add_model(graph, "", 1)
    return tuple(listing.layers)


class _Listing:
    """Gathers the layers of one model."""

    def __init__(self, weights: Weights, found: dict[str, str]) -> None:
        self.layers: list[LayerInfo] = []
        self._weights = weights
        self._problems = found

    def add_model(self, graph: Graph, prefix: str, calls: int) -> None:
        """Add the layers of a model that is called `calls` times and whose address begins with `prefix`."""
        index = 0
        for node in graph.layers:
            if node.is_input and graph.class_name == "Sequential":
                continue
            counted = not prefix and not node.is_operation
            self._add(node, prefix, calls * max(1, len(node.calls)), index if counted else None)
            index += counted

    def _add(
        self, node: LayerNode, prefix: str, calls: int, index: int | None, looped: str | None = None
    ) -> None:
        address = prefix + node.name
        self.layers.append(
            LayerInfo(
                address=address,
                class_name=node.class_name,
                index=index,
                inbound=tuple(prefix + name for name in inbound(node)),
                calls=calls,
                parameters=self._weights.parameters(address),
                outputs=_count_outputs(node),
                problem=self._problems.get(address) or looped,
            )
        )
        if node.inner is not None:
            self.add_model(node.inner, address + "/", calls)
        if node.class_name == "TimeDistributed":
            looped = f"it runs once for every step inside TimeDistributed {address!r}"
        if node.class_name in ("Bidirectional", "TimeDistributed"):
            for _, child in node.children():
                self._add(child, address + "/", calls, None, looped)


def _count_outputs(node: LayerNode) -> int | None:
    """Tensors that one call of a layer gives; None where its class alone does not tell."""
    if node.inner is not None:
        return len(references(node.inner.outputs))
    if node.needs or node.problem or node.is_operation or node.class_name in ("Lambda", "RNN"):
        return None
    if node.class_name == "Bidirectional":
        inner = node.config["layer"]
        states = _count_outputs(inner) if isinstance(inner, LayerNode) else None
        merged = 1 if node.config["merge_mode"] is not None else 2
        return None if states is None else merged + 2 * (states - 1)
    if node.config.get("return_state"):
        return {"LSTM": 3, "ConvLSTM1D": 3, "ConvLSTM2D": 3, "ConvLSTM3D": 3, "GRU": 2, "SimpleRNN": 2}.get(
            node.class_name
        )
    scores = any(call.keywords.get("return_attention_scores") for call in node.calls)
    return 2 if scores else 1
