"""The normal form of a saved model: a graph of calls, complete without Keras.

Whatever generation wrote the file, after `config.read_graph`

- classes and arguments are those of Keras 3: every argument of a known class is there, defaults included,
  but for initializers, regularizers and constraints, which no forward pass needs;
- an activation is a name of `keras.activations`, or "keras2_hard_sigmoid", clip(0.2 x + 0.5, 0, 1), the one
  function that changed under its name, or a `LayerNode` where a layer was given as the activation;
- a layer inside a layer (`TimeDistributed`, `Bidirectional`, `RNN`) is a `LayerNode` among the arguments;
- calls count from 0 for every layer, nested models included;
- a Sequential model is a graph like any other, its InputLayer made explicit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from layerprobe.records import Finding


@dataclass(frozen=True, slots=True)
class Reference:
    """One tensor: what a layer of the same graph gave."""

    layer: str
    """Its name within the graph."""
    call: int = 0
    """Which call of the layer, from 0, in the order the model was built."""
    output: int = 0
    """Which of that call's tensors, from 0."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer; tensors among the arguments are `Reference`s, in lists, tuples and dicts."""

    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def references(self) -> list[Reference]:
        """Every tensor that goes in, positional ones first."""
        return [*references(self.arguments), *references(self.keywords)]


@dataclass(frozen=True, slots=True)
class LayerNode:
    """One layer or bare operation, its arguments, and where it is called."""

    name: str
    class_name: str
    module: str
    """"keras.layers" for the layers of Keras, "keras.ops" for bare operations (`x + y`), the file's own
    word for a class that is not Keras's."""
    config: Mapping[str, Any]
    """Constructor arguments, without `name`; `trainable` and `dtype` among them."""
    calls: tuple[Call, ...] = ()
    inner: Graph | None = None
    """What a nested model consists of."""
    stored_class: str = ""
    """The class as the file spells it, before it was brought up to date; its weights are filed under it."""
    needs: tuple[str, ...] = ()
    """Names of the classes and functions of its own that are not Keras's; the user has to give their code."""
    registered_name: str | None = None
    """"package>Class" of a custom class, where the file says so."""
    problem: str | None = None
    """Why Keras's own class cannot be built with these arguments; None when nothing is in the way."""

    @property
    def is_input(self) -> bool:
        """Whether this is where a graph's data comes in."""
        return self.class_name == "InputLayer"

    @property
    def is_operation(self) -> bool:
        """Whether this is a bare operation, which `model.layers` does not count."""
        return self.module == "keras.ops"

    def children(self) -> Iterator[tuple[str, LayerNode]]:
        """The layers among the arguments, each with its argument's name."""
        for argument, value in self.config.items():
            if isinstance(value, LayerNode):
                yield argument, value
            elif isinstance(value, list):
                yield from ((argument, item) for item in value if isinstance(item, LayerNode))


@dataclass(frozen=True, slots=True)
class Graph:
    """A model: its layers in the file's order, which is that of `model.layers`."""

    name: str
    class_name: str
    """"Functional" or "Sequential"; the class's own name for a subclassed model, whose `layers` are empty."""
    layers: tuple[LayerNode, ...]
    inputs: Any
    """The structure of `Reference`s to InputLayers: one, a list or a dict."""
    outputs: Any
    """The structure of `Reference`s that the model returns."""
    findings: tuple[Finding, ...] = ()
    """What had to be changed to bring the file into this form; filled for the outermost model."""

    def layer(self, name: str) -> LayerNode:
        """The layer of that name; KeyError where there is none."""
        for node in self.layers:
            if node.name == name:
                return node
        raise KeyError(name)


def references(structure: Any) -> list[Reference]:
    """The `Reference`s in a structure of lists, tuples and dicts, in order."""
    if isinstance(structure, Reference):
        return [structure]
    if isinstance(structure, Mapping):
        structure = list(structure.values())
    if isinstance(structure, list | tuple):
        return [found for item in structure for found in references(item)]
    return []


def walk(graph: Graph, prefix: str = "") -> Iterator[tuple[str, LayerNode]]:
    """Every layer with its address, an outer one before its inner ones, in the file's order.

    The InputLayer of a Sequential model is left out, as `model.layers` leaves it out.
    """
    for node in graph.layers:
        if not (node.is_input and graph.class_name == "Sequential"):
            yield from walk_layer(node, prefix)


def walk_layer(node: LayerNode, prefix: str = "") -> Iterator[tuple[str, LayerNode]]:
    """One layer and all layers within it, with their addresses."""
    address = prefix + node.name
    yield address, node
    if node.inner is not None:
        yield from walk(node.inner, address + "/")
    for _, child in node.children():
        yield from walk_layer(child, address + "/")
