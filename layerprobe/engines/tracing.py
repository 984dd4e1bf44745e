"""What the Keras engines share: a model called once under a tracer, its taps recorded and finished."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from layerprobe.engines.lookups import Lookups
from layerprobe.errors import UnrecordableLayerError
from layerprobe.options import Computing, Finish
from layerprobe.records import Tap, TensorSpec
from layerprobe.reductions import finished
from layerprobe.taps import Recording, find_layers

if TYPE_CHECKING:
    from layerprobe.records import Array

Refuse = Callable[[str, Any, Any], None]
"""Raises UnrecordableLayerError for a tensor that the framework cannot give: its tap's name, the tensor, and
one of the model's inputs."""


class Trace:
    """Calls a model once, and keeps what its taps saw.

    Args:
        model: A built Keras model; its `call` is wrapped meanwhile and left as it was.
        taps: What to record, in order.
        how: How it computes.
        refuse: What else the framework cannot give.
        watch: Whether the device itself lets an index outside an embedding's table pass.
    """

    def __init__(
        self, model: keras.Model, taps: Sequence[Tap], how: Computing, refuse: Refuse, *, watch: bool
    ) -> None:
        self._model, self._taps, self._how, self._refuse = model, taps, how, refuse
        self._lookups = Lookups(model) if watch else None
        self.outputs: tuple[TensorSpec, ...] = ()
        """What the layers give, not finished; sizes that the tracer leaves open are None."""
        self.counted: tuple[str, ...] = ()
        """The names of those of which the cast can make values infinite."""

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """Call the model.

        Args:
            values: One (B, ...) tensor of the tracer per input of the model.

        Returns:
            The finished tensors, in the order of `outputs`; after them, for each of `counted`, how many
            values of each row the cast made infinite, (B,); and then what `Lookups` wants to know.
        """
        watching = self._lookups.active() if self._lookups is not None else nullcontext()
        with watching:
            _, tensors = recorded(self._model, self._taps, values, self._how, self._refuse)
        own = [
            ops.cast(tensor, "float32")
            if self._how.precision == _dtype(tensor) == "bfloat16"
            else ops.convert_to_tensor(tensor)
            for tensor in tensors.values()
        ]
        self.outputs = self._specs(list(tensors), own)
        finish = self._how.finish or Finish()
        pairs = [
            finished(tensor, spec.channel_axis, finish, KerasFunctions)
            for tensor, spec in zip(own, self.outputs, strict=True)
        ]
        lost = {
            spec.name: count
            for spec, (_, count) in zip(self.outputs, pairs, strict=True)
            if count is not None
        }
        self.counted = tuple(lost)
        watched: list[Any] = []
        if self._lookups is not None:
            watched = self._lookups.ranges(lambda name, tensor: self._refuse(name, tensor, values[0]))
        return [*(stored for stored, _ in pairs), *lost.values(), *watched]

    def read(self, results: Sequence[Any], rows: int) -> tuple[dict[str, Array], dict[str, int]]:
        """Copy what the compiled function gave for a batch from the device.

        Args:
            results: As `__call__` gives them.
            rows: How many rows there were before they were padded.

        Returns:
            (rows, ...) arrays by name; and how many of their values the cast made infinite, where any.

        Raises:
            UsageError: An index was looked up that its table does not have.
        """
        names = [spec.name for spec in self.outputs]
        arrays = [np.asarray(result) for result in results]
        if self._lookups is not None:
            self._lookups.check(arrays[len(names) + len(self.counted) :])
        found = {name: array[:rows] for name, array in zip(names, arrays, strict=False)}
        lost = zip(self.counted, arrays[len(names) :], strict=False)
        counts = {name: int(each[:rows].sum()) for name, each in lost}
        return found, {name: count for name, count in counts.items() if count}

    def _specs(self, taps: Sequence[Tap], tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
        layers = find_layers(self._model)
        return tuple(
            TensorSpec(
                tap.name,
                shape := tuple(tensor.shape[1:]),
                _dtype(tensor),
                channel_axis(layers.get(tap.address), shape),
                tap.address or _layer_behind(self._model, tap.output or 0),
            )
            for tap, tensor in zip(taps, tensors, strict=True)
        )


def recorded(
    model: keras.Model, taps: Sequence[Tap], values: Sequence[Any], how: Computing, refuse: Refuse
) -> tuple[Any, dict[Tap, Any]]:
    """Call a model once.

    Args:
        model: Built; its `call` is wrapped meanwhile and left as it was.
        taps: What to record, in order.
        values: One (B, ...) tensor of the tracer per input of the model.
        how: How it computes.
        refuse: What the framework cannot give.

    Returns:
        What the model returned, and the tensors that the taps mean.
    """
    recording = Recording(model, taps)
    with recording.active(), computing_in(model, how.precision):
        outputs = model(as_the_model_takes_them(model, values), training=how.training)
    tensors = recording.tensors(outputs)
    for tap, tensor in tensors.items():
        refuse(tap.name, tensor, values[0])
        _refuse_unless_rows(tap.name, tuple(tensor.shape), values[0].shape[0])
    return outputs, tensors


class KerasFunctions:
    """`reductions.Functions` of whatever runs Keras."""

    shape = staticmethod(ops.shape)
    cast = staticmethod(ops.cast)
    reshape = staticmethod(ops.reshape)

    @staticmethod
    def dtype(x: Any) -> str:
        """See `reductions.Functions`."""
        return _dtype(x)

    @staticmethod
    def max(x: Any, axes: tuple[int, ...]) -> Any:
        """See `reductions.Functions`."""
        return ops.max(x, axes)

    @staticmethod
    def mean(x: Any, axes: tuple[int, ...]) -> Any:
        """See `reductions.Functions`."""
        dtype = _dtype(x)
        # JAX has no float64 unless it was asked for; one axis at a time, sums in float32 stay short.
        averages = ops.cast(x, "float64" if keras.backend.backend() == "tensorflow" else "float32")
        for axis in reversed(axes):
            averages = ops.mean(averages, axis)
        return ops.cast(averages, dtype if "float" in dtype else "float32")

    @staticmethod
    def infinities(x: Any) -> Any:
        """See `reductions.Functions`."""
        infinite = ops.cast(ops.isinf(x), "int32")
        return ops.sum(infinite, tuple(range(1, len(x.shape)))) if len(x.shape) > 1 else infinite


@contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Meanwhile layers that compute in float32 compute in another type, as Keras's mixed policies say it.

    Their weights stay as they are and are cast where they are used.
    """
    layers = [layer for layer in model._flatten_layers() if layer.compute_dtype == "float32"]
    if precision == "float32":
        layers = []
    before = [layer.dtype_policy for layer in layers]
    for layer in layers:
        layer.dtype_policy = f"mixed_{precision}"
    try:
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


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


def seeded(model: keras.Model, how: Computing) -> int | None:
    """Give every random layer its own stream, so that equal seeds give equal runs; gives the seed."""
    if not how.training:
        return how.seed
    seed = secrets.randbits(31) if how.seed is None else how.seed
    for number, layer in enumerate(find_layers(model).values()):
        for name, generator in vars(layer).items():
            if isinstance(generator, keras.random.SeedGenerator) and not name.startswith("__"):
                generator.state.assign(np.array([seed, number], generator.state.dtype))
    return seed


def described(backend: str, device: str, how: Computing, seed: int | None) -> dict[str, Any]:
    """What a Keras engine says of itself; in the training phase, with the seed that was drawn."""
    about = {"name": "keras", "backend": backend, "device": device, "precision": how.precision}
    return about | ({"seed": seed} if how.training else {})


def as_the_model_takes_them(model: keras.Model, values: Sequence[Any]) -> Any:
    """The inputs in the structure, a list or a dict, that the model was built with."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        return keras.tree.pack_sequence_as(structure, list(values))
    return values[0] if len(values) == 1 else list(values)


def padded(array: Array, rows: int | None) -> Array:
    """Repeat the last row until there are `rows`: real values, so that nothing overflows."""
    if rows is None or len(array) == rows:
        return array
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])


def _refuse_unless_rows(name: str, shape: tuple[int | None, ...], batch_size: int | None) -> None:
    """Raise unless the tensor has one value per row."""
    if not shape or (batch_size and shape[0] not in (None, batch_size)):
        raise UnrecordableLayerError(
            f"{name!r} cannot be recorded: its shape {shape} has no batch axis, so no value per row."
        )


def _dtype(tensor: Any) -> str:
    return str(keras.backend.standardize_dtype(tensor.dtype))


def _layer_behind(model: keras.Model, output: int) -> str:
    """The layer that gives one of a functional model's outputs; "" for a subclassed model."""
    outputs = getattr(model, "outputs", None)
    return outputs[output]._keras_history.operation.name if outputs else ""


def channel_axis(layer: Any, shape: Sequence[int | None]) -> int:
    """Which axis of one row holds the channels."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 0 if first and len(shape) > 1 else -1
