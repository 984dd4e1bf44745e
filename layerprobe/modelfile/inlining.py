"""The graph of a SavedModel with its functions put in place of their calls, as names only.

TensorFlow names an inlined operation by the names of the calls around it and its own, joined by "/"; so does
this, so that an operation is found again in the graph that TensorFlow makes of the signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerprobe.errors import ModelError
from layerprobe.modelfile.protobuf import messages, text

MAX_OPERATIONS = 200_000
MAX_DEPTH = 30
"""Functions that call each other, one inside the next."""

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    kind: str
    inputs: tuple[str, ...]
    function: str
    """What a call calls; "" for other operations."""


@dataclass(frozen=True, slots=True)
class _Function:
    arguments: tuple[str, ...]
    nodes: tuple[_Node, ...]
    returned: tuple[str, ...]


class Inlining:
    """Inlines one signature; what it finds gathers in `operations`."""

    def __init__(self, graph: memoryview, place: str) -> None:
        self.operations: list[tuple[str, str, tuple[str, ...]]] = []
        """Path, kind, and the paths of what goes in."""
        self._place = place
        self._main: dict[str, _Node] = {}
        self._functions: dict[str, memoryview] = {}
        self._results: dict[str, Sequence[str]] = {}
        """Path of a call -> paths of what its function returned."""
        for definition in messages(graph, 2, place):
            for message in messages(definition, 1, place):
                node = self._read_node(message)
                self._main[node.name] = node
            for library in messages(definition, 2, place):
                for function in messages(library, 1, place):
                    declared = next(messages(function, 1, place), memoryview(b""))
                    self._functions[text(declared, 1, place)] = function

    def run(self, outputs: Sequence[str], inputs: Mapping[str, str]) -> list[str]:
        """Inline all that computes some tensors of the main graph.

        Args:
            outputs: Names of the tensors: "StatefulPartitionedCall:0".
            inputs: Names of the placeholders, and what the user calls them.

        Returns:
            The path of the operation behind each output.

        Raises:
            ModelError: The functions are damaged, call themselves, or are too many.
        """
        returned = []
        for output in outputs:
            name, _, index = output.partition(":")
            node = self._main.get(name)
            if node is None:
                raise ModelError(
                    f"{self._place}: the signature gives {name[:100]!r}, which is not in the graph."
                )
            if node.kind in _CALLS:
                sources = [inputs.get(_name(source), _name(source)) for source in node.inputs]
                if name not in self._results:
                    self._results[name] = self._inline(node.function, sources, "", 0)
                results = self._results[name]
                returned.append(results[int(index or 0)] if int(index or 0) < len(results) else name)
            else:
                self._add_ancestors(name, inputs)
                returned.append(name)
        return returned

    def _inline(self, function_name: str, sources: Sequence[str], prefix: str, depth: int) -> list[str]:
        """Add a function's operations; `sources` are the paths of what it is called with."""
        function = self._read_function(function_name)
        if depth > MAX_DEPTH or len(self.operations) > MAX_OPERATIONS:
            raise ModelError(f"{self._place}: the functions of the signature call each other too often.")
        known = dict(zip(function.arguments, sources, strict=False))
        for node in function.nodes:
            path = prefix + node.name
            inbound = tuple(
                self._resolve(source, prefix, known) for source in node.inputs if source[0] != "^"
            )
            if node.kind in _CALLS:
                self._results[path] = self._inline(node.function, inbound, path + "/", depth + 1)
            else:
                self.operations.append((path, node.kind, tuple(dict.fromkeys(inbound))))
        return [self._resolve(source, prefix, known) for source in function.returned]

    def _resolve(self, source: str, prefix: str, known: Mapping[str, str]) -> str:
        """The path behind an input: "x" and "x:0", or "node:output:0" within a function."""
        name, *rest = source.split(":")
        if name in known:
            return known[name]
        results = self._results.get(prefix + name)
        index = int(rest[-1]) if rest and rest[-1].isdigit() else 0
        return results[index] if results is not None and index < len(results) else prefix + name

    def _add_ancestors(self, name: str, inputs: Mapping[str, str]) -> None:
        """Add what computes a node of the main graph, as TensorFlow 1 saved models."""
        added = {path for path, _, _ in self.operations}
        waiting = [name]
        while waiting:
            path = waiting.pop()
            node = self._main.get(path)
            if node is None or path in added or path in inputs:
                continue
            added.add(path)
            sources = [_name(source) for source in node.inputs]
            self.operations.append((path, node.kind, tuple(inputs.get(source, source) for source in sources)))
            waiting += sources
        self.operations.reverse()

    def _read_function(self, name: str) -> _Function:
        message = self._functions.get(name)
        if message is None:
            raise ModelError(f"{self._place}: the function {name[:100]!r} is called, but missing.")
        declared = next(messages(message, 1, self._place))
        returned = {
            text(e, 1, self._place): text(e, 2, self._place) for e in messages(message, 4, self._place)
        }
        outputs = [text(output, 1, self._place) for output in messages(declared, 3, self._place)]
        return _Function(
            tuple(text(argument, 1, self._place) for argument in messages(declared, 2, self._place)),
            tuple(self._read_node(node) for node in messages(message, 3, self._place)),
            tuple(returned.get(output, output) for output in outputs),
        )

    def _read_node(self, message: memoryview) -> _Node:
        kind = text(message, 2, self._place)
        inputs = tuple(bytes(value).decode("utf-8", "replace") for value in messages(message, 3, self._place))
        function = ""
        if kind in _CALLS:
            for attribute in messages(message, 5, self._place):
                if text(attribute, 1, self._place) == "f":
                    for value in messages(attribute, 2, self._place):
                        for called in messages(value, 10, self._place):
                            function = text(called, 1, self._place)
        return _Node(text(message, 1, self._place), kind, tuple(filter(None, inputs)), function)


def _name(source: str) -> str:
    return source.lstrip("^").split(":")[0]
