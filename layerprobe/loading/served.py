"""A SavedModel's own graph as a Keras model whose layers are the places that are wanted.

For SavedModels without Keras metadata, and for those with layers of unknown classes: what such a layer
computes is in the graph, whatever its class was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from layerprobe.errors import ModelError
from layerprobe.loading.reasons import first_line
from layerprobe.modelfile.graph import Graph
from layerprobe.modelfile.savedmodel import SavedModel
from layerprobe.modelfile.served_layers import places


def load_served(savedmodel: SavedModel, graph: Graph, keep: Collection[str] | None) -> keras.Model:
    """Load what a SavedModel serves, its variables frozen.

    Args:
        savedmodel: Inspected, and found harmless.
        graph: Keras's description of it; one without layers means that its operations are the layers.
        keep: Addresses of the layers that are wanted, "" for the model's own outputs; None for all.

    Returns:
        A model that takes the signature's inputs and returns its outputs. Its layers bear the wanted
        addresses as their names, "/" included.

    Raises:
        ModelError: TensorFlow cannot load it, or a wanted layer is not in the graph.
    """
    signature = savedmodel.signature
    savedmodel.checkpoint.verify()
    found = places(graph, signature)
    wanted = [address for address in (found if keep is None else keep) if address]
    missing = [address for address in wanted if address not in found]
    if missing:
        raise ModelError(f"layer {missing[0]!r} does not show in the graph that {savedmodel.folder} serves.")
    try:
        loaded = tf.saved_model.load(savedmodel.folder)
        frozen = convert_variables_to_constants_v2(loaded.signatures[signature.name])
        frozen._keeps_alive = loaded
    except Exception as error:  # damaged files provoke TensorFlow's classes, one a code, and Python's own
        raise ModelError(f"{savedmodel.folder} cannot be loaded: {first_line(error)}.") from error
    return ServedModel(
        frozen, [spec.name for spec in signature.inputs], {name: found[name] for name in wanted}
    )


class ServedModel(keras.Model):  # type: ignore[misc]
    """Runs a frozen graph; each wanted place is a layer that passes its value on."""

    def __init__(self, frozen: Any, inputs: Sequence[str], taken: Mapping[str, Sequence[str]]) -> None:
        """Cut the graph down to what is wanted.

        Args:
            frozen: A concrete function without variables.
            inputs: Names of what it takes, in the order of the signature.
            taken: Address -> the operations whose values the layer of that name gives, one for each call.
        """
        super().__init__(name="served")
        self._input_names = tuple(inputs)
        self._counts: list[tuple[Passing, int]] = []
        fetched = []
        for address, paths in taken.items():
            layer = Passing(autocast=False)
            layer.name = address  # Only names given to a constructor may not hold a "/".
            for path in paths:
                tensors = _tensors(frozen, path)
                self._counts.append((layer, len(tensors)))
                fetched += tensors
        self._order = [tensor.name.split(":")[0] for tensor in frozen.inputs]
        self._function = frozen.prune(list(frozen.inputs), [*fetched, *frozen.outputs])
        self._places = [layer for layer, _ in self._counts]
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Run the graph.

        Args:
            inputs: One (B, ...) tensor, a list of them in the signature's order, or a dict by name.
            training: Without effect: the graph is that of inference.
        """
        if not isinstance(inputs, dict):
            inputs = dict(zip(self._input_names, keras.tree.flatten(inputs), strict=True))
        values = list(self._function(*(inputs[name] for name in self._order)))
        for layer, count in self._counts:
            taken, values = values[:count], values[count:]
            # Not called as a layer: Keras makes a scope of its name, and "/" is not possible there.
            layer.call(taken[0] if count == 1 else taken)
        return values[0] if len(values) == 1 else values


class Passing(keras.layers.Layer):  # type: ignore[misc]
    """Gives what it gets."""

    def call(self, inputs: Any) -> Any:
        """Give it."""
        return inputs


def _tensors(frozen: Any, path: str) -> list[Any]:
    """What an operation gives; of the statistics beside a normalised batch, only those that are used."""
    try:
        outputs = frozen.graph.get_operation_by_name(path).outputs
    except KeyError as error:
        raise ModelError(
            f"operation {path!r} is not in the graph that TensorFlow made of the model."
        ) from error
    return [tensor for tensor in outputs if tensor.consumers()] or list(outputs[:1])
