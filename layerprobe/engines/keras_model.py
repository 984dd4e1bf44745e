"""A Keras model that its own framework runs: a live one, or one that is loaded from its file when needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from layerprobe import registry
from layerprobe.errors import UnavailableError
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.records import Tap, TensorSpec

if TYPE_CHECKING:
    import keras

    from layerprobe.protocols import Engine


class KerasModel:
    """A model and the taps that are wanted of it; see `protocols.Runnable`.

    Args:
        model: The file, of which no more is loaded than the taps need, or the live model.
        taps: What to record, in order.
        inputs: What the file says of the model's inputs, for a model that does not say it itself.
        max_memory: Bytes that one tensor of one row may have.
    """

    note: str | None = None

    def __init__(
        self,
        model: ModelFile | keras.Model,
        taps: Sequence[Tap],
        inputs: tuple[TensorSpec, ...],
        max_memory: int,
    ) -> None:
        self._source, self._taps = model, taps
        self._inputs, self._max_memory = inputs, max_memory

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the (pruned) model needs, in its order; free sizes are None."""
        from layerprobe.engines.keras_tensorflow import model_inputs

        return model_inputs(self._model) or self._inputs

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size that is part of the model's input shape, if one is."""
        from layerprobe.engines.keras_tensorflow import fixed_batch_size

        return fixed_batch_size(self._model)

    def engine(
        self,
        inputs: Sequence[TensorSpec],
        batch_size: int | None,
        precision: str,
        *,
        training: bool = False,
        seed: int | None = None,
    ) -> Engine:
        """Build the engine for inputs with every size known, and for what only Keras does.

        Raises:
            UnavailableError: Keras is to compute in another precision than float32.
        """
        if precision != "float32":
            raise UnavailableError(
                f"the keras engine computes in float32 only: leave --precision out. Received: {precision}"
            )
        engine: Engine = registry.find(registry.ENGINES, "keras", "engine")(
            self._model,
            self._taps,
            inputs=inputs,
            batch_size=batch_size,
            training=training,
            seed=seed,
            max_memory=self._max_memory,
        )
        return engine

    @cached_property
    def _model(self) -> keras.Model:
        if isinstance(self._source, ModelFile):
            return load(self._source, {tap.address for tap in self._taps})
        return self._source


def load(file: ModelFile, keep: set[str] | None) -> keras.Model:
    """The live model of a file, cut down to the ancestors of some layers; None keeps all.

    Raises:
        UnavailableError: Keras is to run on another framework.
        ModelError: It cannot be built.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise UnavailableError(
            f"layerprobe needs Keras on TensorFlow: unset KERAS_BACKEND. Received: KERAS_BACKEND={backend}"
        )
    from layerprobe.loading.build import load_file

    return load_file(file, keep)
