"""The layout of `.keras` and `.weights.h5`: a tree of objects, their variables numbered.

`layers/conv2d_1/vars/0` is the first variable of the second Conv2D; the layer's own name is not used
(`_save_container_state` in keras/src/saving/saving_lib.py). Three variants occur: tf.keras 2.12 and 2.13
call `layers` `_layer_checkpoint_dependencies` and may number conv2d, conv2d_2, conv2d_4; files written on
Windows have one group named `layers\\conv1d`; newer Keras 3 also states each layer's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h5py

from layerprobe.modelfile import hdf5
from layerprobe.modelfile.graph import Graph, LayerNode
from layerprobe.modelfile.slots import own_slots, parts


@dataclass(frozen=True, slots=True)
class _Store:
    """One object of the tree that has variables."""

    variables: tuple[h5py.Dataset, ...]
    name: str | None
    """The layer's name, where the file states it."""


def find(file: h5py.File, graph: Graph, place: str) -> dict[str, list[h5py.Dataset] | str]:
    """Find each layer's own weights.

    Args:
        file: The HDF5 file.
        graph: The model.
        place: The file's name, for messages.

    Returns:
        For the address of each layer that has weights in the file: its datasets in order.
    """
    found: dict[str, list[h5py.Dataset] | str] = {}
    _visit_model(_stores(file, place), graph, "layers", "", found)
    return found


def _stores(file: h5py.File, place: str) -> dict[str, _Store]:
    """Every object with variables, by its path in the tree, spelled as Keras 3 spells it."""
    stores = {}
    groups: list[str] = []
    file.visit(lambda name: groups.append(name) if str(name).rpartition("/")[2] == "vars" else None)
    for name in groups:
        group = hdf5.child(file, name, place)
        if not isinstance(group, h5py.Group):
            continue
        numbered = sorted((key for key in group if key.isdigit()), key=int)
        variables = tuple(hdf5.dataset(group, key, place) for key in numbered)
        stated = hdf5.attribute(group, "name", place)
        path = name.removesuffix("vars").rstrip("/").replace("\\", "/")
        path = path.replace("_layer_checkpoint_dependencies", "layers")
        stores[path] = _Store(variables, stated if isinstance(stated, str) else None)
    return stores


def _visit_model(
    stores: Mapping[str, _Store],
    graph: Graph,
    path: str,
    prefix: str,
    found: dict[str, list[h5py.Dataset] | str],
) -> None:
    layers = [node for node in graph.layers if not node.is_operation]
    if graph.class_name == "Sequential":
        layers = [node for node in layers if not node.is_input]
    for node, stored in zip(layers, _container(stores, path, layers), strict=True):
        _visit_layer(stores, node, f"{path}/{stored}", prefix + node.name, found)


def _visit_layer(
    stores: Mapping[str, _Store],
    node: LayerNode,
    path: str,
    address: str,
    found: dict[str, list[h5py.Dataset] | str],
) -> None:
    if node.inner is not None:
        _visit_model(stores, node.inner, f"{path}/layers", address + "/", found)
        return
    for name, child in parts(node):
        if node.class_name == "StackedRNNCells":
            cells = [cell for _, cell in parts(node)]
            name = f"cells/{_container(stores, f'{path}/cells', cells)[cells.index(child)]}"
        _visit_layer(stores, child, f"{path}/{name}", f"{address}/{child.name}", found)
    slots = own_slots(node)
    own: list[h5py.Dataset] = []
    for part in dict.fromkeys(slot.part for slot in slots or ()):
        own += _part(stores, path, part)
    if node.class_name == "SpectralNormalization":
        own = own[-1:]  # Before its own vector it lists the kernel of the layer within.
    if slots is None:
        below = [
            store for name, store in sorted(stores.items()) if name == path or name.startswith(path + "/")
        ]
        own = [variable for store in below for variable in store.variables]
    if own:
        found[address] = own


def _part(stores: Mapping[str, _Store], path: str, part: str) -> Sequence[h5py.Dataset]:
    """The variables of an object within a layer; older files put an underscore before its name."""
    for spelling in (f"{path}/{part}", f"{path}/_{part}") if part else (path,):
        if spelling in stores:
            return stores[spelling].variables
    return ()


def _container(stores: Mapping[str, _Store], path: str, nodes: Sequence[LayerNode]) -> list[str]:
    """The names under which a list of layers is stored."""
    below = {name.removeprefix(path + "/").split("/")[0] for name in stores if name.startswith(path + "/")}
    stated = {stores[f"{path}/{name}"].name: name for name in below if f"{path}/{name}" in stores}
    names: list[str] = []
    by_stem: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        by_stem.setdefault(_snake_case(node.stored_class), []).append(place)
        names.append(stated.get(node.name, ""))
    for stem, places in by_stem.items():
        if all(names[place] for place in places):
            continue
        stored = [name for name in below if re.fullmatch(re.escape(stem) + r"(_\d+)?", name)]
        if len(stored) == len(places):
            stored.sort(key=lambda name, stem=stem: int(name[len(stem) + 1 :] or 0))  # type: ignore[misc]
        else:
            stored = [stem] + [f"{stem}_{number}" for number in range(1, len(places))]
        for place, name in zip(places, stored, strict=True):
            names[place] = name
    return names


def _snake_case(class_name: str) -> str:
    """Keras's own rule: "Conv2DTranspose" -> "conv2d_transpose", "PReLU" -> "p_re_lu"."""
    name = re.sub(r"\W+", "", class_name.split(">")[-1])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
