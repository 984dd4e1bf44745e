"""A watch on what embedding layers look up, for devices that give NaN or zeros where a table has no entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from layerprobe.errors import UnrecordableLayerError, UsageError
from layerprobe.records import Tap
from layerprobe.taps import Recording, find_layers

if TYPE_CHECKING:
    from layerprobe.records import Array


class Lookups:
    """Records the range of all indices that a model looks up in one call; `active` while it is called.

    Args:
        model: Any Keras model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._sizes = {
            address: int(layer.input_dim)
            for address, layer in find_layers(model).items()
            if isinstance(layer, keras.layers.Embedding)
        }
        recording = Recording(model, [Tap(address, "input") for address in self._sizes])
        self._recording, self.active = recording, recording.active
        self._watched: list[str] = []

    def ranges(self, refuse: Callable[[str, Any], None]) -> list[Any]:
        """Give (2,) int32, the smallest and the largest index, of each call of each layer.

        Args:
            refuse: Raises UnrecordableLayerError for tensors of a loop's body, which go unwatched.
        """
        self._watched, found = [], []
        for address, tensors in self._recording.seen().items():
            try:
                refuse(address, tensors[0])
            except UnrecordableLayerError:
                continue
            for tensor in tensors:
                indices = ops.cast(tensor, "int32")
                found.append(ops.stack([ops.min(indices), ops.max(indices)]))
                self._watched.append(address)
        return found

    def check(self, ranges: Sequence[Array]) -> None:
        """Raise UsageError for what a run gave for `ranges` where an index is outside its table.

        Negative indices count from the end.
        """
        for address, (smallest, largest) in zip(self._watched, ranges, strict=True):
            size = self._sizes[address]
            if smallest < -size or largest >= size:
                index = largest if largest >= size else smallest
                raise UsageError(
                    f"layer {address!r} cannot look up index {index}: its table has {size} entries, so give "
                    f"0 to {size - 1}."
                )
