"""The arrays of each layer, found without reading them and read when asked for.

There are three layouts: `flat_layout` and `tree_layout` in HDF5, `object_layout` in SavedModels
(https://keras.io/api/models/model_saving_apis/).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layerprobe.errors import ModelError
from layerprobe.modelfile import flat_layout, object_layout
from layerprobe.modelfile.archive import Archive, reading
from layerprobe.modelfile.arrays import Source, Stored, read, unread
from layerprobe.modelfile.graph import Graph, LayerNode, walk, walk_layer
from layerprobe.modelfile.migrate.weights import convert
from layerprobe.modelfile.saved import read_version
from layerprobe.modelfile.slots import own_slots
from layerprobe.modelfile.tree_layout import TreeLayout

if TYPE_CHECKING:
    from layerprobe.records import Array


class Weights:
    """The weights of a model by layer address; valid while its archive is open."""

    def __init__(self, archive: Archive, graph: Graph) -> None:
        """Find the weights of every layer.

        Args:
            archive: Of the model.
            graph: `read_graph(archive)`.

        Raises:
            ModelError: The weights are damaged, or those of another model.
        """
        self._place = archive.weights_place
        self._version = read_version(archive.keras_version, archive.config())
        self._backend = archive.backend
        self._source: Source | None = None
        self._nodes: Mapping[str, LayerNode] = dict(walk(graph))
        self._stored: Mapping[str, Sequence[Stored] | str] = {}
        self.objects: Mapping[str, str] = {}
        """Address -> path of the object in the file's tree, for layers of classes that are not Keras's."""
        if archive.savedmodel is not None:
            self.present = True
            self._stored = object_layout.find(archive.savedmodel.checkpoint, graph) if graph.layers else {}
            return
        file = archive.hdf5()
        self._source = archive.weights_source
        self.present = file is not None
        """Whether the model came with weights at all."""
        if file is not None:
            with reading(self._place):
                if flat_layout.is_flat(file):
                    self._stored = flat_layout.find(file, graph, self._place, self._version)
                else:
                    tree = TreeLayout(file, graph, self._place)
                    self._stored, self.objects = tree.found, tree.objects

    def parameters(self, address: str) -> int | None:
        """How many numbers a layer's weights have, those of layers within it included.

        None where the model has no weights, or where they cannot be told apart.
        """
        if not self.present:
            return None
        total = 0
        for inner, _ in walk_layer(self._nodes[address], address.removesuffix(self._nodes[address].name)):
            stored = self._stored.get(inner, ())
            if isinstance(stored, str):
                return None
            total += sum(int(math.prod(dataset.shape)) for dataset in stored)
        return total

    def total(self) -> int:
        """How many numbers all stored weights have together."""
        found = [datasets for datasets in self._stored.values() if not isinstance(datasets, str)]
        return sum(int(math.prod(dataset.shape)) for datasets in found for dataset in datasets)

    def shapes(self, address: str) -> list[tuple[int, ...]]:
        """The shapes of a layer's own weights, as stored, without reading them.

        Raises:
            ModelError: They cannot be told from those of other layers.
        """
        return [tuple(dataset.shape) for dataset in self._datasets(address)]

    def arrays(self, address: str) -> dict[str, Array]:
        """Read a layer's own weights, without those of layers within it.

        Returns:
            Arrays by Keras 3's name for them ("kernel", "query/kernel"), in Keras's order and layout; for a
            class that is not Keras's own, by the number of each.

        Raises:
            ModelError: They are missing, damaged, or not as many as the class has.
        """
        with reading(self._place):
            return self._named(address, [read(dataset, self._source) for dataset in self._datasets(address)])

    def unread(self, address: str) -> dict[str, Array]:
        """What `arrays` would give, as arrays of which only the shapes mean anything; nothing is read.

        Raises:
            ModelError: They are missing, or not as many as the class has.
        """
        with reading(self._place):
            return self._named(address, [unread(shape) for shape in self.shapes(address)])

    def _named(self, address: str, stored: Sequence[Array]) -> dict[str, Array]:
        """A layer's own weights in Keras 3's layout, by name."""
        node = self._nodes[address]
        arrays = convert(node, stored, self._version, self._backend)
        slots = own_slots(node)
        if slots is None:
            return {str(number): array for number, array in enumerate(arrays)}
        if len(arrays) != len(slots):
            raise ModelError(
                f"layer {address!r} ({node.class_name}) has {len(slots)} weights, "
                f"but {len(arrays)} are stored in {self._place}."
            )
        return {slot.name: array for slot, array in zip(slots, arrays, strict=True)}

    def _datasets(self, address: str) -> Sequence[Stored]:
        stored = self._stored.get(address, ())
        if isinstance(stored, str):
            raise ModelError(f"{self._place}: {stored}.")
        return stored
