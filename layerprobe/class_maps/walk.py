"""The way back through a saved model: from what it returns, layer by layer, to where its scores come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from layerprobe.errors import UsageError
from layerprobe.modelfile.graph import Graph, LayerNode, Reference, references
from layerprobe.records import Tap

SQUASHING = ("softmax", "log_softmax", "sigmoid", "log_sigmoid", "hard_sigmoid", "keras2_hard_sigmoid")
"""Activations behind which scores are not compared any more; maps are of what goes into them."""
_PASSED = ("Dropout", "Flatten", "Identity", "Reshape")
"""Classes that may stand behind the last activation."""


@dataclass(frozen=True, slots=True)
class Place:
    """One tensor, in the model or in a model within it."""

    graph: Graph
    reference: Reference
    prefix: str = ""
    """Address of the model around it, with a "/" at its end."""
    outer: Place | None = None
    """What the model around it gives in this call."""

    @property
    def node(self) -> LayerNode:
        """The layer that gives it."""
        return self.graph.layer(self.reference.layer)

    @property
    def address(self) -> str:
        """The address of that layer."""
        return self.prefix + self.reference.layer

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments of that layer, without those of a class that is not Keras's own."""
        return dict(self.node.config) if self.node.module == "keras.layers" else {}

    def within(self) -> Place | None:
        """The same tensor inside of the nested model that gives it; None where it is none."""
        inner = self.node.inner
        if inner is None:
            return None
        return Place(inner, references(inner.outputs)[self.reference.output], self.address + "/", self)

    def before(self) -> Place | None:
        """What the layer is called with; None where that is not exactly one tensor."""
        if self.node.is_input:
            if self.outer is None:
                return None
            names = [reference.layer for reference in references(self.graph.inputs)]
            given = references(list(_call(self.outer).arguments))
            if len(given) != len(names):
                return None
            return replace(self.outer, reference=given[names.index(self.reference.layer)])
        taken = _call(self).references()
        return replace(self, reference=taken[0]) if len(taken) == 1 else None

    def is_tapped_by(self, tap: Tap) -> bool:
        """Whether this is what a tap of a layer's output records, among others where it names no call."""
        if tap.kind != "output" or tap.address != self.address:
            return False
        return tap.output in (None, self.reference.output) and tap.call in (None, self.number)

    @property
    def number(self) -> int:
        """Which call of the layer it is, in the order in which the model was built."""
        calls = max(1, len(self.node.calls))
        return (0 if self.outer is None else self.outer.number * calls) + self.reference.call


def _call(place: Place) -> Any:
    return place.node.calls[place.reference.call]


def way_back(place: Place) -> Iterator[Place]:
    """The tensor, and those that it comes from one after the other, until one comes from several.

    A nested model comes before what is within it.
    """
    found: Place | None = place
    while found is not None:
        yield found
        found = found.within() or found.before()


@dataclass(frozen=True, slots=True)
class Scores:
    """What classes are told by, before it is squashed to probabilities."""

    tap: Tap
    """Where it is recorded."""
    place: Place
    """The layer that gives it, whose own activation counts only if `tap` is its output."""
    activation: str
    """What makes probabilities of it: a name in `SQUASHING`, or "linear"."""


def find_scores(graph: Graph, output: Tap) -> Scores:
    """Go back from an output of a model to what goes into its last softmax or sigmoid.

    Args:
        graph: The model.
        output: A tap of the model's outputs, or of a layer's output or value before its activation.

    Raises:
        UsageError: It means no tensor, or several.
    """
    start = _start(graph, output)
    if output.kind == "preactivation":
        return Scores(output, start, start.arguments.get("activation", "linear"))
    for place in way_back(start):
        given = place.arguments
        before = place.before()
        if place.node.inner is not None or place.node.is_input:
            continue
        activation = "softmax" if place.node.class_name == "Softmax" else given.get("activation", "linear")
        if activation in SQUASHING and place.node.class_name in ("Activation", "Softmax"):
            if before is not None:
                return Scores(_tap(before), before, activation)
        elif activation in SQUASHING:
            tap = Tap(place.address, "preactivation", _numbered(place))
            return Scores(tap, place, activation)
        elif place.node.class_name in _PASSED or (
            place.node.class_name == "Activation" and activation == "linear"
        ):
            continue
        break
    return Scores(output, start, "linear")


def _tap(place: Place) -> Tap:
    """A tap of a layer's output, of the layer within where a nested model gives it."""
    inner = place.within()
    while inner is not None:
        place, inner = inner, inner.within()
    return Tap(place.address, "output", _numbered(place), place.reference.output or None)


def _numbered(place: Place) -> int | None:
    """Which call; None where there is only one."""
    around: Place | None = place
    while around is not None:
        if len(around.node.calls) > 1:
            return place.number
        around = around.outer
    return None


def _start(graph: Graph, output: Tap) -> Place:
    """The tensor that an output's tap means."""
    if not output.address:
        returned = references(graph.outputs)
        if output.output is None and len(returned) > 1:
            names = ", ".join(reference.layer for reference in returned)
            raise UsageError(
                f"the model has {len(returned)} outputs: say which with --output-layer: {names}."
            )
        if (output.output or 0) >= len(returned):
            raise UsageError(f"{output.name!r}: the model has {len(returned)} output(s).")
        return Place(graph, returned[output.output or 0])
    if output.kind == "input":
        raise UsageError(f"{output.name!r}: maps are of what a layer gives: name the layer before it.")
    found = _of_layer(graph, output)
    if found is None:
        raise UsageError(f"{output.name!r} is not called once: say which call, as in {output.address}@0.")
    return found


def _of_layer(graph: Graph, tap: Tap) -> Place | None:
    """The call of a layer that a tap means; None where it may be several."""
    places: list[Place | None] = [None]
    here, prefix = graph, ""
    names = tap.address.split("/")
    for depth, name in enumerate(names):
        node = here.layer(name)
        calls = range(max(1, len(node.calls)))
        last = depth == len(names) - 1
        output = (tap.output or 0) if last else 0
        places = [
            Place(here, Reference(name, call, output), prefix, outer) for outer in places for call in calls
        ]
        if last or node.inner is None:
            break
        here, prefix = node.inner, prefix + name + "/"
    matching = [place for place in places if place is not None and tap.call in (None, place.number)]
    return matching[0] if len(matching) == 1 else None
