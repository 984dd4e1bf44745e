"""The `.h5` layout: a group per layer of the outermost model, with a flat list of weights.

The weights of a nested model follow each other without a mark: those of trainable layers first, then the
rest, both in the order of the layers (`_legacy_weights` in keras/src/legacy/saving/legacy_h5_format.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import h5py

from layerprobe.errors import ModelError
from layerprobe.modelfile import hdf5
from layerprobe.modelfile.graph import Graph, LayerNode, walk, walk_layer
from layerprobe.modelfile.migrate.weights import stored_slots
from layerprobe.modelfile.slots import Slot

Unit = tuple[str, LayerNode]
"""A layer's address and the layer."""

_NOT_WEIGHTS = ("StateVar:0", "seed_generator_state", "seed_generator_state:0")
"""The state of random numbers, which some versions filed among the weights."""


def is_flat(file: h5py.File) -> bool:
    """Whether a file is in this layout."""
    return "model_weights" in file or bool(hdf5.names(file, "layer_names"))


def find(
    file: h5py.File, graph: Graph, place: str, version: tuple[int, int]
) -> dict[str, list[h5py.Dataset] | str]:
    """Find each layer's own weights.

    Args:
        file: The HDF5 file.
        graph: The model.
        place: The file's name, for messages.
        version: Of the Keras that saved it.

    Returns:
        For the address of each layer that has weights in the file: its datasets in order, or a sentence that
        says why they cannot be told apart.
    """
    root = hdf5.child(file, "model_weights", place) if "model_weights" in file else file
    groups = {}
    for name in hdf5.names(root, "layer_names"):
        group = hdf5.child(root, name, place)
        stored = [weight for weight in hdf5.names(group, "weight_names") if not weight.endswith(_NOT_WEIGHTS)]
        if stored:
            groups[name] = [hdf5.dataset(group, weight, place) for weight in stored]
    found: dict[str, list[h5py.Dataset] | str] = {}
    for (address, node), datasets in _match(groups, graph, version):
        prefix = address.removesuffix(node.name)
        found.update(_divide(list(walk_layer(node, prefix)), datasets, version))
    return found


def _match(
    groups: dict[str, list[h5py.Dataset]], graph: Graph, version: tuple[int, int]
) -> list[tuple[Unit, list[h5py.Dataset]]]:
    """Which layer each group belongs to: by name, else by order, as Keras itself does it."""
    outer = {node.name: (node.name, node) for node in graph.layers}
    if groups.keys() <= outer.keys():
        return [(outer[name], datasets) for name, datasets in groups.items()]
    # Keras 1 files the layers of a nested Sequential model under their own names.
    every = {node.name: (address, node) for address, node in walk(graph)}
    if groups.keys() <= every.keys():
        return [(every[name], datasets) for name, datasets in groups.items()]
    weighted = [
        node for node in graph.layers if any(stored_slots(n, version) != () for _, n in walk_layer(node))
    ]
    if len(weighted) != len(groups):
        raise ModelError(
            f"the weights are those of another model: {len(groups)} layers have weights in the file, "
            f"{len(weighted)} in the architecture."
        )
    return [((node.name, node), datasets) for node, datasets in zip(weighted, groups.values(), strict=True)]


def _divide(
    units: Sequence[Unit], datasets: list[h5py.Dataset], version: tuple[int, int]
) -> dict[str, list[h5py.Dataset] | str]:
    """Give the weights of one group to the layers within it."""
    slots = {address: stored_slots(node, version) for address, node in units}
    owners = [unit for unit in units if slots[unit[0]] != ()]
    if len(owners) == 1:
        return {owners[0][0]: datasets}
    if any(slots[address] is None for address, _ in owners):
        return _divide_by_name(owners, datasets)
    orders = [_trainable_first(owners, slots), _layer_by_layer(owners, slots)]
    fitting = [order for order in orders if len(order) == len(datasets)]
    if not fitting:
        address = units[0][0]
        message = f"{len(datasets)} weights are stored for {address!r}, its layers have {len(orders[0])}"
        return {owner: message for owner, _ in owners} or {address: message}
    best = max(fitting, key=lambda order: _likeness(order, datasets))
    found: dict[str, list[tuple[int, h5py.Dataset]]] = {}
    for (address, slot), dataset in zip(best, datasets, strict=True):
        place = (slots[address] or ()).index(slot)
        found.setdefault(address, []).append((place, dataset))
    return {
        address: [dataset for _, dataset in sorted(placed, key=lambda pair: pair[0])]
        for address, placed in found.items()
    }


Order = list[tuple[str, Slot]]


def _trainable_first(units: Sequence[Unit], slots: dict[str, tuple[Slot, ...] | None]) -> Order:
    every = [(address, slot, node) for address, node in units for slot in slots[address] or ()]
    first = [(address, slot) for address, slot, node in every if slot.trainable and node.config["trainable"]]
    rest = [
        (address, slot) for address, slot, node in every if not (slot.trainable and node.config["trainable"])
    ]
    return first + rest


def _layer_by_layer(units: Sequence[Unit], slots: dict[str, tuple[Slot, ...] | None]) -> Order:
    return [(address, slot) for address, _ in units for slot in slots[address] or ()]


def _likeness(order: Order, datasets: Sequence[h5py.Dataset]) -> int:
    """How many datasets bear the name of the layer and the weight that an order gives them."""
    likeness = 0
    for (address, slot), dataset in zip(order, datasets, strict=True):
        words = dataset.name.split("/")
        likeness += address.rsplit("/", 1)[-1] in words[:-1]
        likeness += words[-1].split(":")[0].startswith(slot.name.rsplit("/", 1)[-1])
    return likeness


def _divide_by_name(
    units: Sequence[Unit], datasets: list[h5py.Dataset]
) -> dict[str, list[h5py.Dataset] | str]:
    """Where a layer's class is unknown, its weights can only be told by their names."""
    found: dict[str, list[h5py.Dataset] | str] = {}
    for address, node in units:
        own = [dataset for dataset in datasets if node.name in dataset.name.split("/")[:-1]]
        if own:
            found[address] = own
    return found
