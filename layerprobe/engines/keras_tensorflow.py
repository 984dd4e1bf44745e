"""The reference engine: the Keras model itself, traced once by TensorFlow with its taps."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from layerprobe.errors import LayerprobeError, ResourceError, UnrecordableLayerError, UsageError
from layerprobe.loading.layers import first_line
from layerprobe.records import MAX_MEMORY, Tap, TensorSpec
from layerprobe.taps import Recording, find_layers, variables_unchanged

if TYPE_CHECKING:
    from layerprobe.protocols import Collect
    from layerprobe.records import Array


class KerasTensorFlowEngine:
    """Runs a Keras model and returns what its taps see.

    Args:
        model: A built Keras model; its `call` is wrapped while tracing and left as it was.
        taps: What to record, in order.
        inputs: One spec per input of the model, in the model's order, with every size known.
        batch_size: B; None takes any number of rows and pads nothing.
        training: Whether dropout and batch normalisation run as in training. Nothing is padded then, since
            the rows of a batch influence each other.
        seed: Of every random layer, with `training`; drawn when None.

        max_memory: Bytes that one tensor of one row may have.

    Raises:
        ResourceError: A tensor is larger than that.
        UnrecordableLayerError: A tap's values live inside a loop or have no batch axis.
        UsageError: The inputs do not fit the model.
    """

    def __init__(
        self,
        model: keras.Model,
        taps: Sequence[Tap],
        *,
        inputs: Sequence[TensorSpec],
        batch_size: int | None,
        training: bool = False,
        seed: int | None = None,
        max_memory: int = MAX_MEMORY,
    ) -> None:
        self._model = model
        self._taps = taps
        self._training = training
        self.seed = secrets.randbits(31) if training and seed is None else seed
        self.batch_size = batch_size or 1
        self._padded = None if training else batch_size
        if training:
            self._seed_random_layers()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="layerprobe-compute")
        self._compiled, found = self._trace(inputs)
        _refuse_oversized(self._compiled, max_memory)
        self.outputs = self._specs(found, inputs)

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`: the last batch is padded, so that every row is computed alike."""
        rows = len(inputs[0])
        fed = [tf.constant(_padded(array, self._padded)) for array in inputs]
        try:
            results = self._compiled(*fed)
        except tf.errors.ResourceExhaustedError as error:
            raise ResourceError(
                f"not enough memory for a batch of {len(fed[0])} rows: give a smaller --batch-size."
            ) from error
        except tf.errors.InvalidArgumentError as error:
            raise UsageError(f"the model cannot compute with these inputs: {first_line(error)}.") from error
        return {spec.name: value.numpy()[:rows] for spec, value in zip(self.outputs, results, strict=True)}

    @property
    def trace(self) -> Any:
        """The concrete function that takes the inputs and gives the outputs, for what converts it."""
        return self._compiled

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`: in a thread, so that the caller can store what was computed before."""
        return self._thread.submit(self.run, inputs).result

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return {"name": "keras", "backend": "tensorflow", "device": devices[0].name, "precision": "float32"}

    def _trace(self, inputs: Sequence[TensorSpec]) -> tuple[Any, tuple[Tap, ...]]:
        """Compile the model for one batch shape; also gives the tap behind each result."""
        found: list[Tap] = []

        def traced(*values: tf.Tensor) -> list[tf.Tensor]:
            recording = Recording(self._model, self._taps)
            fed = _as_the_model_takes_them(self._model, values)
            with recording.active(), variables_unchanged([self._model]):
                outputs = self._model(fed, training=self._training)
            tensors = recording.tensors(outputs)
            for tap, tensor in tensors.items():
                _refuse_unless_rows(tap.name, tensor, values[0].shape[0])
            found[:] = tensors
            return [tf.convert_to_tensor(tensor) for tensor in tensors.values()]

        specs = [tf.TensorSpec((self._padded, *spec.shape), spec.dtype) for spec in inputs]
        try:
            compiled = tf.function(traced, autograph=False).get_concrete_function(*specs)
        except LayerprobeError:
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise ResourceError(f"not enough memory to build the model: {first_line(error)}.") from error
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            shapes = ", ".join(str(("rows", *spec.shape)) for spec in inputs)
            raise UsageError(
                f"the model cannot take inputs of shape {shapes}: {first_line(error)}."
            ) from error
        return compiled, tuple(found)

    def _specs(self, found: Sequence[Tap], inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        results = self._compiled.structured_outputs
        shapes = [tuple(tensor.shape[1:]) for tensor in results]
        if any(None in shape for shape in shapes):
            # Sizes that the trace leaves open are learnt by running it once.
            zeros = [tf.zeros((self._padded or 1, *spec.shape), spec.dtype) for spec in inputs]
            shapes = [tuple(tensor.shape[1:]) for tensor in self._compiled(*zeros)]
        layers = find_layers(self._model)
        return tuple(
            TensorSpec(
                tap.name,
                shape,
                tensor.dtype.name,
                _channel_axis(layers.get(tap.address), shape),
                tap.address or _layer_behind(self._model, tap.output or 0),
            )
            for tap, shape, tensor in zip(found, shapes, results, strict=True)
        )

    def _seed_random_layers(self) -> None:
        """Give every random layer its own stream, so that equal seeds give equal runs."""
        for number, layer in enumerate(find_layers(self._model).values()):
            for name, generator in vars(layer).items():
                if isinstance(generator, keras.random.SeedGenerator) and not name.startswith("__"):
                    generator.state.assign(np.array([self.seed, number], generator.state.dtype))


def model_inputs(model: keras.Model) -> tuple[TensorSpec, ...] | None:
    """The inputs of a model, with None for free sizes; of a subclassed one the shapes it was built with.

    None when only a call can tell.
    """
    symbolic = getattr(model, "inputs", None)
    if symbolic:
        return tuple(TensorSpec(tensor.name, tuple(tensor.shape[1:]), tensor.dtype) for tensor in symbolic)
    shapes = _shapes_within(getattr(model, "_build_shapes_dict", None) or {})
    names = ["input"] if len(shapes) == 1 else [f"input_{number}" for number in range(len(shapes))]
    return (
        tuple(TensorSpec(name, shape[1:], "float32") for name, shape in zip(names, shapes, strict=True))
        or None
    )


def _shapes_within(structure: Any) -> list[tuple[int | None, ...]]:
    """Every shape in the nested lists and dicts of shapes that a subclassed model was built with."""
    if isinstance(structure, dict):
        return [shape for value in structure.values() for shape in _shapes_within(value)]
    if all(size is None or isinstance(size, int) for size in structure):
        return [tuple(structure)]
    return [shape for value in structure for shape in _shapes_within(value)]


def fixed_batch_size(model: keras.Model) -> int | None:
    """The batch size that the model was built for, where it is part of its input's shape."""
    sizes = {tensor.shape[0] for tensor in getattr(model, "inputs", None) or ()} - {None}
    return sizes.pop() if sizes else None


def output_shapes(
    model: keras.Model, addresses: Sequence[str], inputs: Sequence[TensorSpec]
) -> dict[str, tuple[tuple[int | None, ...], ...]]:
    """Shapes of one row of each layer's outputs, all calls together; layers that do not run are left out."""
    recording = Recording(model, [Tap(address) for address in addresses])

    def traced(*values: tf.Tensor) -> None:
        with recording.active():
            model(_as_the_model_takes_them(model, values), training=False)

    specs = [tf.TensorSpec((fixed_batch_size(model), *spec.shape), spec.dtype) for spec in inputs]
    tf.function(traced, autograph=False).get_concrete_function(*specs)
    return {
        address: tuple(tuple(tensor.shape[1:]) for tensor in tensors)
        for address, tensors in recording.seen().items()
    }


def _as_the_model_takes_them(model: keras.Model, values: Sequence[tf.Tensor]) -> Any:
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        return keras.tree.pack_sequence_as(structure, list(values))
    return values[0] if len(values) == 1 else list(values)


def _refuse_unless_rows(name: str, tensor: Any, batch_size: int | None) -> None:
    """Raise unless the tensor belongs to the traced model itself and has one value per row."""
    if isinstance(tensor, tf.SparseTensor | tf.RaggedTensor):
        raise UnrecordableLayerError(f"{name!r} cannot be recorded: its values are sparse or ragged.")
    graph = getattr(tensor, "graph", None)
    if graph is not None and graph is not tf.compat.v1.get_default_graph():
        raise UnrecordableLayerError(
            f"{name!r} cannot be recorded: it is computed once per step of a loop; name the layer around it."
        )
    shape = tensor.shape
    if shape.rank == 0 or (shape.rank and batch_size and shape[0] not in (None, batch_size)):
        raise UnrecordableLayerError(
            f"{name!r} cannot be recorded: its shape {tuple(shape)} has no batch axis, so no value per row."
        )


def _refuse_oversized(compiled: Any, max_memory: int) -> None:
    """Raise ResourceError for a tensor that the results need and that nobody has the memory for."""
    seen: set[Any] = set()
    pending = [tensor.op for tensor in compiled.outputs]
    while pending:
        operation = pending.pop()
        if operation in seen:
            continue
        seen.add(operation)
        pending += [tensor.op for tensor in operation.inputs]
        for tensor in operation.outputs:
            sizes = [size for size in (tensor.shape[1:] if tensor.shape.rank else ()) if size is not None]
            needed = math.prod(sizes) * tensor.dtype.size
            if needed > max_memory:
                raise ResourceError(
                    f"{operation.name!r} would need {needed / 2**30:.1f} GiB per image, more than "
                    f"{max_memory / 2**30:.1f}: allow more with --max-memory, or name a layer before it."
                )


def _layer_behind(model: keras.Model, output: int) -> str:
    """The layer that gives one of a functional model's outputs; "" for a subclassed model."""
    outputs = getattr(model, "outputs", None)
    return outputs[output]._keras_history.operation.name if outputs else ""


def _channel_axis(layer: Any, shape: Sequence[int]) -> int:
    """Which axis of one row holds the channels."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 0 if first and len(shape) > 1 else -1


def _padded(array: Array, rows: int | None) -> Array:
    """Repeat the last row until there are `rows`: real values, so that nothing overflows."""
    if rows is None or len(array) == rows:
        return array
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])
