"""A Keras model that its own framework runs: a live one, or one that is loaded from its file when needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerprobe import registry
from layerprobe.engines.device import keras_backend, may_have_gpu
from layerprobe.errors import ResourceError, UnavailableError
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.options import INFERENCE, Computing
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
        device: See `device.check_device`.
        max_memory: Bytes that one tensor of one row may have.
    """

    note: str | None = None
    usual_batch_size = 32

    def __init__(
        self,
        model: ModelFile | keras.Model,
        taps: Sequence[Tap],
        inputs: tuple[TensorSpec, ...],
        device: str,
        max_memory: int,
    ) -> None:
        self._source, self._taps = model, taps
        self._inputs, self._device, self._max_memory = inputs, device, max_memory
        self._outlined: tuple[Any, Engine] | None = None

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the (pruned) model needs, in its order; free sizes are None."""
        model = self._model
        from layerprobe.engines.tracing import model_inputs

        return model_inputs(model) or self._inputs

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size that is part of the model's input shape, if one is."""
        model = self._model
        from layerprobe.engines.tracing import fixed_batch_size

        return fixed_batch_size(model)

    def engine(
        self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing = INFERENCE
    ) -> Engine:
        """Build the engine for inputs with every size known, and for what only Keras does."""
        asked = (tuple(inputs), batch_size, how)
        if self._outlined is not None and self._outlined[0] == asked:
            return self._outlined[1]
        engine: Engine = _engine_class()(
            self._model,
            self._taps,
            inputs=inputs,
            batch_size=batch_size,
            how=how,
            device=self._device,
            max_memory=self._max_memory,
        )
        return engine

    def outline(
        self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing = INFERENCE
    ) -> Engine:
        """Give the engine itself, and again when that is asked for: only a traced model knows its shapes."""
        engine = self.engine(inputs, batch_size, how)
        self._outlined = (tuple(inputs), batch_size, how), engine
        return engine

    def gradients(
        self,
        outputs: Sequence[Tap],
        layers: Sequence[Tap],
        inputs: Sequence[TensorSpec],
        *,
        before_activation: bool,
    ) -> Any:
        """Build what differentiates outputs with respect to layers; see `gradients_tensorflow`.

        Args:
            outputs: Taps that the model was loaded for.
            layers: Others, or the same.
            inputs: With every size known.
            before_activation: Take what went into an output's softmax or sigmoid.

        Raises:
            UnavailableError: It is not written for the framework that Keras runs on.
        """
        framework = keras_backend()
        if framework not in registry.KERAS_GRADIENTS:
            raise UnavailableError(
                f"gradients need Keras on TensorFlow: set KERAS_BACKEND=tensorflow. Received: {framework}."
            )
        _engine_class().prepare(self._device)
        return registry.find(registry.KERAS_GRADIENTS, framework, "framework of Keras")(
            self._model,
            outputs,
            layers,
            inputs,
            before_activation=before_activation,
            max_memory=self._max_memory,
        )

    @cached_property
    def _model(self) -> keras.Model:
        if isinstance(self._source, ModelFile):
            return load(self._source, {tap.address for tap in self._taps}, self._device)
        return self._source


def load(file: ModelFile, keep: set[str] | None, device: str = "auto") -> keras.Model:
    """The live model of a file, cut down to the ancestors of some layers; None keeps all.

    Raises:
        UnavailableError: Keras cannot run here, or not on that device.
        ResourceError: The device has not the memory for its weights.
        MemoryError: The machine has not.
        ModelError: It cannot be built.
    """
    engine_class = _engine_class()
    engine_class.prepare(device)
    from layerprobe.loading.build import load_file

    try:
        return load_file(file, keep)
    except Exception as error:  # each framework has a class of its own for memory that it cannot have
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        if engine_class.is_out_of_memory(error) or engine_class.is_out_of_memory(error.__cause__):
            raise ResourceError("not enough memory to build the model: give another --device.") from error
        raise


def output_shapes(
    model: keras.Model, addresses: Sequence[str], inputs: Sequence[TensorSpec]
) -> dict[str, tuple[tuple[int | None, ...], ...]]:
    """Shapes of one row of each layer's outputs, all calls together; without layers that do not run."""
    shapes: dict[str, tuple[tuple[int | None, ...], ...]]
    shapes = _engine_class().output_shapes(model, addresses, inputs)
    return shapes


def gpus() -> list[str]:
    """The GPUs that Keras has, if it can run here; without a sign of one it is not asked."""
    if not may_have_gpu():
        return []
    try:
        found: list[str] = _engine_class().gpus()
    except UnavailableError:
        return []
    return found


def _engine_class() -> Any:
    """The engine for the framework that Keras runs on."""
    return registry.find(registry.KERAS_ENGINES, keras_backend(), "framework of Keras")
