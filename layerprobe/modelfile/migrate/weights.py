"""How weights were laid out before, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerprobe.modelfile.graph import LayerNode
from layerprobe.modelfile.slots import Slot, own_slots

if TYPE_CHECKING:
    from layerprobe.records import Array

_KERAS1_GATES = {"LSTM": "icfo", "ConvLSTM2D": "icfo", "GRU": "zrh"}
_GATES = {"LSTM": "ifco", "ConvLSTM2D": "ifco", "GRU": "zrh"}


def stored_slots(node: LayerNode, version: tuple[int, int]) -> tuple[Slot, ...] | None:
    """The weights of a layer as its file has them: Keras 1 kept a set for each gate."""
    slots = own_slots(node)
    if slots and version < (2, 0) and node.class_name in _KERAS1_GATES:
        gates = _KERAS1_GATES[node.class_name]
        return tuple(Slot(f"{slot.name}_{gate}") for gate in gates for slot in slots)
    return slots


def convert(
    node: LayerNode, stored: Sequence[Array], version: tuple[int, int], backend: str | None
) -> list[Array]:
    """Bring a layer's weights into the layout of Keras 3.

    Args:
        node: The layer.
        stored: Its own weights in the file's order.
        version: Of the Keras that saved them.
        backend: Of that Keras, where the file says it.
    """
    arrays = list(stored)
    return arrays
