"""One layer while it is built: its arguments, its weights, and what is noted of it for the taps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import Mask, Value, value
from layerprobe.modelfile.graph import Call, LayerNode

if TYPE_CHECKING:
    import openvino as ov

    from layerprobe.engines.graph.embedding import Lookup
    from layerprobe.records import Array

BuildLayer = Callable[["Layer", Sequence[Value]], Value | list[Value]]
"""One call of a layer: what goes in, in order, to what comes out."""


class LayerWeights(Protocol):
    """Where a layer's weights come from: a `modelfile.weights.Weights`, most of the time."""

    def arrays(self, address: str) -> dict[str, Array]:
        """A layer's own weights by name."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of one layer."""

    node: LayerNode
    address: str
    weights: LayerWeights
    build: Callable[[LayerNode, str, Call], list[Value]]
    """Builds a layer that is an argument of this one: node, address, arguments."""
    note: Callable[[Value], None]
    """Notes what goes into the layer's fused activation."""
    watch: Callable[[Lookup], None]
    """Has indices checked that only a run can tell."""
    arguments: Sequence[Any] = ()
    """The positional arguments of the call, their tensors as `Value`s."""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the call beside the inputs and masks; tensors among them are `Value`s."""
    masks: Sequence[Mask] = ()
    """What the call computes with: one per input, or none at all."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The layer's arguments."""
        return self.node.config

    @property
    def is_channels_first(self) -> bool:
        """Whether Keras's own order of this layer's tensors is (B, C, ...)."""
        return self.config.get("data_format") == "channels_first"

    @property
    def mask(self) -> Mask:
        """The mask of a layer with one input."""
        return self.masks[0] if self.masks else None

    def arrays(self, **shapes: tuple[int, ...]) -> dict[str, Array]:
        """Read the layer's weights as float32.

        Args:
            shapes: Of each weight, by name, as Keras would make it.

        Raises:
            Unsupported: One is missing or has another shape.
        """
        stored = self.weights.arrays(self.address)
        for name, shape in shapes.items():
            if name not in stored or stored[name].shape != shape:
                found = stored[name].shape if name in stored else "nothing"
                raise Unsupported(f"weight {name} of shape {shape}, where {found} is stored")
        return {name: np.asanyarray(array, np.float32) for name, array in stored.items()}

    def child(self, name: str, inputs: Sequence[Value], **keywords: Any) -> list[Value]:
        """Build the layer that one argument of this one is."""
        node = self.config[name]
        return self.build(node, f"{self.address}/{node.name}", Call(tuple(inputs), keywords))

    def result(self, node: ov.Node | ov.Output) -> Value:
        """What a layer with a `data_format` gives, from a node that is (B, C, ...)."""
        return value(node, turned=not self.is_channels_first)
