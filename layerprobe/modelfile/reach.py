"""What of a graph is needed for certain layers, and what of it cannot be built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from layerprobe.modelfile.graph import Graph, LayerNode, Reference, references, walk_layer


def problems(
    graph: Graph, given: Collection[str] = (), refused: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Find the layers that cannot be extracted: of unknown class, or behind such a layer.

    Args:
        graph: The model.
        given: Names of the classes and functions that the user gives code for.
        refused: Address -> why, for layers that the safety inspection refuses.

    Returns:
        Address -> why, for those layers.
    """
    found: dict[str, str] = {}
    _find_problems(graph, given, refused or {}, "", found)
    return found


def _find_problems(
    graph: Graph, given: Collection[str], refused: Mapping[str, str], prefix: str, found: dict[str, str]
) -> None:
    for node in graph.layers:
        address = prefix + node.name
        if node.inner is not None:
            _find_problems(node.inner, given, refused, address + "/", found)
            own = _of_outputs(node.inner, address + "/", found)
        else:
            within = (refused[inner] for inner, _ in walk_layer(node, prefix) if inner in refused)
            own = next(within, None) or _own_problem(node, given)
        if own is not None:
            found[address] = own
    _spread(graph, prefix, found)


def _own_problem(node: LayerNode, given: Collection[str]) -> str | None:
    """Why a layer itself, or one among its arguments, cannot be built."""
    for _, inner in walk_layer(node):
        missing = [name for name in inner.needs if not {name, inner.registered_name} & set(given)]
        if missing and inner.class_name == "Lambda":
            return (
                f"the function {missing[0]} of its Lambda is not in the file: give an expression with "
                f"--lambda {inner.name}='...', or its code with --custom FILE.py"
            )
        if missing:
            return f"{missing[0]} is not one of Keras's own: give its code with --custom FILE.py"
        if inner.problem is not None:
            return inner.problem
    return None


def _of_outputs(graph: Graph, prefix: str, found: dict[str, str]) -> str | None:
    for reference in references(graph.outputs):
        if prefix + reference.layer in found:
            return _behind(prefix + reference.layer, found)
    return None


def _spread(graph: Graph, prefix: str, found: dict[str, str]) -> None:
    """Mark what takes the output of a marked layer, until nothing new is marked."""
    spreading = True
    while spreading:
        spreading = False
        for node in graph.layers:
            address = prefix + node.name
            inputs = (prefix + name for name in inbound(node))
            cause = next((name for name in inputs if name in found), None)
            if cause is not None and address not in found:
                found[address] = _behind(cause, found)
                spreading = True
                for inner, _ in walk_layer(node, prefix):
                    found.setdefault(inner, found[address])


def _behind(cause: str, found: dict[str, str]) -> str:
    """One sentence for all that follow from one cause, however far away."""
    reason = found[cause]
    return reason if reason.startswith("it needs layer ") else f"it needs layer {cause!r}: {reason}"


def inbound(node: LayerNode) -> tuple[str, ...]:
    """Names of the layers whose output a layer takes, all calls together, each once."""
    taken = (reference.layer for call in node.calls for reference in call.references())
    return tuple(dict.fromkeys(taken))


def keep_ancestors(graph: Graph, wanted: Collection[str]) -> Graph:
    """Cut a model down to what certain layers need.

    Args:
        graph: The model.
        wanted: Addresses of layers; "" means the model's own outputs.

    Returns:
        The model without the other layers and without inputs that are not needed. Its outputs are those it
        had where "" is wanted, else those of the wanted layers that nothing else needs. A nested model is
        cut down too, its inputs aside, where its own output is not needed.
    """
    if "" in wanted:
        return graph
    cut = _cut(graph, wanted)
    taken = {name for node in cut.layers for name in inbound(node)}
    needed = taken | {reference.layer for reference in references(cut.outputs)}
    return replace(
        cut,
        layers=tuple(node for node in cut.layers if not node.is_input or node.name in needed),
        inputs=_without(cut.inputs, {node.name for node in cut.layers} - needed),
    )


def _cut(graph: Graph, wanted: Collection[str]) -> Graph:
    """Drop what is not needed, but for the inputs."""
    nodes = {node.name: node for node in graph.layers}
    direct = {address.partition("/")[0] for address in wanted}
    needed = _ancestors(nodes, direct & nodes.keys())
    used = {name for kept in needed for name in inbound(nodes[kept])}
    layers = []
    for node in graph.layers:
        within = {address.partition("/")[2] for address in wanted if address.startswith(node.name + "/")}
        if node.inner is not None and within and node.name not in used and node.name not in wanted:
            node = replace(node, inner=_cut(node.inner, within))
        if node.name in needed or node.is_input:
            layers.append(node)
    last = [node for node in layers if node.name in needed and node.name not in used]
    outputs = [reference for node in last for reference in _results(node)]
    return replace(graph, layers=tuple(layers), outputs=outputs[0] if len(outputs) == 1 else outputs)


def _without(structure: Any, dropped: Collection[str]) -> Any:
    """The structure of inputs without some of them; a list of one is that one."""
    if isinstance(structure, dict):
        return {key: item for key, item in structure.items() if item.layer not in dropped}
    if isinstance(structure, list):
        kept = [item for item in structure if item.layer not in dropped]
        return kept[0] if len(kept) == 1 else kept
    return structure


def _ancestors(nodes: dict[str, LayerNode], wanted: Collection[str]) -> set[str]:
    needed: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += inbound(nodes[name])
    return needed


def _results(node: LayerNode) -> list[Reference]:
    """What each call of a layer gives, as far as one can tell without running it."""
    count = 1 if node.inner is None else len(references(node.inner.outputs))
    return [
        Reference(node.name, call, output)
        for call in range(max(1, len(node.calls)))
        for output in range(count)
    ]
