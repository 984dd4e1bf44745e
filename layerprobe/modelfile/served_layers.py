"""The layers of a SavedModel that are read from the graph it serves, not from Keras's description of it.

Without such a description these are the graph's operations, under their own names. With one they are Keras's
layers, which stand in the names of their operations: the layer `conv` of `model_1` computes
`model_1/conv/Conv2D` and `model_1/conv/Relu`, and gives what is used outside `model_1/conv/`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from layerprobe.errors import ModelError
from layerprobe.modelfile.graph import Graph, walk
from layerprobe.modelfile.reach import problems
from layerprobe.modelfile.savedmodel import Operation, SavedModel, Signature
from layerprobe.records import LayerInfo


def served_operations(signature: Signature) -> tuple[LayerInfo, ...]:
    """Each operation that gives a value, as a layer, in the order of the graph."""
    addresses = {operation.path: operation.address for operation in signature.operations}
    names = {spec.name for spec in signature.inputs}
    return tuple(
        LayerInfo(
            address=operation.address,
            class_name=operation.kind,
            index=None,
            inbound=tuple(
                addresses.get(path, path) for path in operation.inbound if path in addresses or path in names
            ),
        )
        for operation in signature.operations
    )


def remaining_problems(
    savedmodel: SavedModel,
    graph: Graph,
    found: Mapping[str, str],
    given: Collection[str],
    refused: Mapping[str, str],
) -> dict[str, str]:
    """Which layers cannot be extracted even from the graph that is served.

    Only an unknown class is no obstacle there. What stands in the way otherwise does so here too: a Lambda
    that cannot be decoded, or what the safety inspection refuses.

    Args:
        savedmodel: Of the model.
        graph: Keras's description of it.
        found: Address -> why, for layers that cannot be built from that description.
        given: Names of the classes and functions that the user gives code for.
        refused: Address -> why, for layers that the safety inspection refuses.
    """
    classes = {name for _, node in walk(graph) if node.class_name != "Lambda" for name in node.needs}
    lasting = problems(graph, {*given, *classes}, refused)
    try:
        served = places(graph, savedmodel.signature)
    except ModelError:  # It has no signature.
        return dict(found)
    return {address: why for address, why in found.items() if address in lasting or address not in served}


def places(graph: Graph, signature: Signature) -> dict[str, tuple[str, ...]]:
    """Find where the graph computes each layer.

    Args:
        graph: Keras's description; one without layers means the operations themselves.
        signature: The graph that is served.

    Returns:
        Address -> paths of the operations, or names of the inputs, that give the layer's tensors, one for
        each call. Layers that do not show in the names of operations are missing.
    """
    if not graph.layers:
        return {operation.address: (operation.path,) for operation in signature.operations}
    scopes = _scopes(signature)
    found: dict[str, tuple[str, ...]] = {}
    names = {spec.name for spec in signature.inputs}
    for address, node in walk(graph):
        if node.is_input and node.name in names:
            found[address] = (node.name,)
            continue
        scope = f"{graph.name}/{address}"
        calls = (scope, *(f"{scope}_{number}" for number in range(1, len(node.calls))))
        paths = tuple(scopes[call] for call in calls if call in scopes)
        if len(paths) == len(calls):
            found[address] = paths
    return found


def _scopes(signature: Signature) -> Mapping[str, str]:
    """For every beginning of operations' names: the operation whose value is used outside of it last."""
    consumers: dict[str, list[Operation | None]] = {}
    for operation in signature.operations:
        for path in operation.inbound:
            consumers.setdefault(path, []).append(operation)
    for path in signature.outputs:
        consumers.setdefault(path, []).append(None)
    found: dict[str, str] = {}
    for operation in signature.operations:
        words = operation.address.rsplit("PartitionedCall/", 1)[-1].split("/")
        for length in range(1, len(words)):
            scope = "/".join(words[:length])
            used = consumers.get(operation.path, [])
            if any(user is None or not _own_name(user).startswith(scope + "/") for user in used):
                found[scope] = operation.path
    return found


def _own_name(operation: Operation) -> str:
    return operation.address.rsplit("PartitionedCall/", 1)[-1]
