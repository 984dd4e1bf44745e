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


class TreeLayout:
    """Where a file in this layout keeps the weights of each layer of a model."""

    def __init__(self, file: h5py.File, graph: Graph, place: str) -> None:
        """Find them.

        Args:
            file: The HDF5 file.
            graph: The model.
            place: The file's name, for messages.

        Raises:
            ModelError: The file is damaged.
        """
        self.found: dict[str, list[h5py.Dataset]] = {}
        """Address -> a layer's own weights in order; all within it, for a class that is not Keras's own."""
        self.objects: dict[str, str] = {}
        """Address -> path of the object in the tree, for layers of classes that are not Keras's own."""
        self._stores = _stores(file, place)
        self._visit_model(graph, "layers", "")

    def _visit_model(self, graph: Graph, path: str, prefix: str) -> None:
        layers = [node for node in graph.layers if not node.is_operation]
        if graph.class_name == "Sequential":
            layers = [node for node in layers if not node.is_input]
        for node, stored in zip(layers, _container(self._stores, path, layers), strict=True):
            self._visit_layer(node, f"{path}/{stored}", prefix + node.name)

    def _visit_layer(self, node: LayerNode, path: str, address: str) -> None:
        if node.inner is not None:
            self._visit_model(node.inner, f"{path}/layers", address + "/")
            return
        for name, child in parts(node):
            if node.class_name == "StackedRNNCells":
                cells = [cell for _, cell in parts(node)]
                name = f"cells/{_container(self._stores, f'{path}/cells', cells)[cells.index(child)]}"
            self._visit_layer(child, f"{path}/{name}", f"{address}/{child.name}")
        own = self._own(node, path)
        if own:
            self.found[address] = own
            if own_slots(node) is None:
                self.objects[address] = path

    def _own(self, node: LayerNode, path: str) -> list[h5py.Dataset]:
        slots = own_slots(node)
        if slots is None:
            below = [name for name in sorted(self._stores) if f"{name}/".startswith(f"{path}/")]
            return [variable for name in below for variable in self._stores[name].variables]
        own: list[h5py.Dataset] = []
        for part in dict.fromkeys(slot.part for slot in slots):
            own += _part(self._stores, path, part)
        # Before its own vector, a SpectralNormalization lists the kernel of the layer within.
        return own[-1:] if node.class_name == "SpectralNormalization" else own


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
