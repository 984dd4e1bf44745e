"""Where a SavedModel's checkpoint keeps each layer's weights: under the names of the layer's attributes.

A model's layers are `layer-0`, `layer-1`, ... in the order of `model.layers`. Weights are attributes of a
layer, or of an object within it: `layer-3/kernel`, `layer-4/cell/kernel`, `layer-5/_query_dense/kernel`.
"""

from __future__ import annotations

from layerprobe.modelfile.checkpoint import Checkpoint, StoredTensor
from layerprobe.modelfile.graph import Graph, LayerNode
from layerprobe.modelfile.slots import Slot, own_slots, parts

_OLD_NAMES = {"kernel": "depthwise_kernel", "vector_u": "sn_u"}
"""Attributes that tf.keras called otherwise in some classes."""


def find(checkpoint: Checkpoint, graph: Graph) -> dict[str, list[StoredTensor]]:
    """Find each layer's own weights.

    Args:
        checkpoint: Of the SavedModel.
        graph: The model.

    Returns:
        For the address of each layer that has weights: its tensors in order.
    """
    found: dict[str, list[StoredTensor]] = {}
    _visit_model(checkpoint, graph, (), "", found)
    return found


def _visit_model(
    checkpoint: Checkpoint,
    graph: Graph,
    path: tuple[str, ...],
    prefix: str,
    found: dict[str, list[StoredTensor]],
) -> None:
    counted = [node for node in graph.layers if not (node.is_input and graph.class_name == "Sequential")]
    for number, node in enumerate(counted):
        _visit_layer(checkpoint, node, (*path, f"layer-{number}"), prefix + node.name, found)


def _visit_layer(
    checkpoint: Checkpoint,
    node: LayerNode,
    path: tuple[str, ...],
    address: str,
    found: dict[str, list[StoredTensor]],
) -> None:
    if node.inner is not None:
        _visit_model(checkpoint, node.inner, path, address + "/", found)
        return
    for number, (part, child) in enumerate(parts(node)):
        steps = (part, str(number)) if node.class_name == "StackedRNNCells" else (part,)
        _visit_layer(checkpoint, child, (*path, *steps), f"{address}/{child.name}", found)
    tensors = [_tensor(checkpoint, path, slot) for slot in own_slots(node) or ()]
    if tensors:
        found[address] = [tensor for tensor in tensors if tensor is not None]


def _tensor(checkpoint: Checkpoint, path: tuple[str, ...], slot: Slot) -> StoredTensor | None:
    name = slot.name.rsplit("/", 1)[-1]
    for part in ((slot.part,), (f"_{slot.part}",)) if slot.part else ((),):
        for spelling in (name, _OLD_NAMES.get(name, name)):
            tensor = checkpoint.variable(*path, *part, spelling)
            if tensor is not None:
                return tensor
    return None
