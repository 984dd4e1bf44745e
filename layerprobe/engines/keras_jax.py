"""The Keras model on JAX: traced and compiled with its taps for one batch shape."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import keras
from jax.extend.core import Literal, jaxprs_in_params

from layerprobe.engines.device import find_gpu
from layerprobe.engines.tracing import (
    Trace,
    as_the_model_takes_them,
    described,
    fixed_batch_size,
    padded,
    seeded,
)
from layerprobe.errors import LayerprobeError, ResourceError, UnrecordableLayerError, UsageError
from layerprobe.loading.reasons import first_line
from layerprobe.options import INFERENCE, MAX_MEMORY, Computing
from layerprobe.records import Tap, TensorSpec
from layerprobe.taps import Recording

if TYPE_CHECKING:
    from layerprobe.protocols import Collect
    from layerprobe.records import Array

SIZES = (83, 89)
"""What stands for a free size, once each: sizes that change with it are free too."""


class KerasJaxEngine:
    """Runs a Keras model and returns what its taps see.

    Args:
        model: A built Keras model; its `call` is wrapped while tracing and left as it was.
        taps: What to record, in order.
        inputs: One spec per input of the model, in the model's order, with every size known.
        batch_size: B; None takes any number of rows, pads nothing, and compiles for each number once.
        how: What it computes. In the training phase nothing is padded, since the rows of a batch influence
            each other.
        device: See `device.check_device`.
        max_memory: Bytes that one tensor of one row may have.

    Raises:
        ResourceError: A tensor is larger than that.
        UnavailableError: There is no such device.
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
        how: Computing = INFERENCE,
        device: str = "auto",
        max_memory: int = MAX_MEMORY,
    ) -> None:
        self.prepare(device)
        gpus = _gpus()
        number = find_gpu(device, list(map(str, gpus)))
        self._device = jax.devices("cpu")[0] if number is None else gpus[number]
        self._how, self._inputs = how, inputs
        self.finish = how.finish
        self.overflowed: dict[str, int] = {}
        self.batch_size = batch_size or 1
        self._padded = None if how.training else batch_size
        self.seed = seeded(model, how)
        self._trace = Trace(model, taps, how, _refuse, watch=True)
        self._variables = model.variables
        self._moving = [
            variable
            for variable in model.non_trainable_variables
            if how.training and variable.name == "seed_generator_state"
        ]
        self._values: list[Any] = []
        self._placed: list[Any] = []
        self._compiled: dict[int, Any] = {}
        # Where any number of rows is taken, two are enough to see which axis is theirs.
        traced = self._traced(self._padded or 2)
        _refuse_oversized(traced.jaxpr.jaxpr, max_memory)
        self.outputs = self._trace.outputs
        if self._padded is not None:
            self._compiled[self._padded] = self._compile(traced)

    @staticmethod
    def gpus() -> list[str]:
        """The GPUs that JAX has, by name."""
        return list(map(str, _gpus()))

    @staticmethod
    def prepare(device: str) -> None:
        """Have JAX take no more memory of a GPU than it needs, and no GPU where the processor is meant.

        Args:
            device: See `device.check_device`.

        Raises:
            UnavailableError: There is no such GPU.
        """
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        elif device != "auto":
            find_gpu(device, list(map(str, _gpus())))

    @staticmethod
    def is_out_of_memory(error: BaseException | None) -> bool:
        """Whether JAX says by this error that memory is exhausted."""
        return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)

    @staticmethod
    def output_shapes(
        model: keras.Model, addresses: Sequence[str], inputs: Sequence[TensorSpec]
    ) -> dict[str, tuple[tuple[int | None, ...], ...]]:
        """Shapes of one row of each layer's outputs, all calls together; without layers that do not run."""
        free = any(None in spec.shape for spec in inputs)
        first, *others = [
            _shapes_at(model, addresses, inputs, size) for size in (SIZES if free else SIZES[:1])
        ]
        return {
            address: tuple(
                tuple(
                    size if all(size == same for same in rest) else None
                    for size, *rest in zip(*of, strict=True)
                )
                for of in zip(shapes, *(other[address] for other in others), strict=True)
            )
            for address, shapes in first.items()
        }

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`: the last batch is padded, so that every row is computed alike."""
        return {name: array.copy() for name, array in self.start(inputs)().items()}

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`: JAX computes by itself, and copies results when they are asked for."""
        rows = len(inputs[0])
        batch = self._padded or rows
        with _told_at_run(rows):
            if batch not in self._compiled:
                self._compiled[batch] = self._compile(self._traced(batch))
            fed = jax.device_put([padded(array, self._padded) for array in inputs], self._device)
            results, moved = self._compiled[batch](self._state(), fed)
        for variable, value in zip(self._moving, moved, strict=True):
            variable.assign(value)

        def collect() -> dict[str, Array]:
            with _told_at_run(rows):
                found, self.overflowed = self._trace.read(results, rows)
            return found

        return collect

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        return described("jax", f"{self._device} ({self._device.device_kind})", self._how, self.seed)

    def _state(self) -> list[Any]:
        """The values of the model's variables on the device: arguments, so that changed ones are seen."""
        values = [variable.value for variable in self._variables]
        if len(self._values) != len(values) or any(map(operator.is_not, values, self._values)):
            self._values, self._placed = values, jax.device_put(values, self._device)
        return self._placed

    def _traced(self, batch: int) -> Any:
        """The model's function for one number of rows, as JAX sees it."""

        def called(state: Sequence[Any], values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            mapping = list(zip(self._variables, state, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                results = self._trace(values)
                return results, [scope.get_current_value(variable) for variable in self._moving]

        place = jax.sharding.SingleDeviceSharding(self._device)
        arguments = jax.tree.map(
            lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=place),
            (
                self._state(),
                [jax.ShapeDtypeStruct((batch, *spec.shape), spec.dtype) for spec in self._inputs],
            ),
        )
        with _told_at_trace(self._inputs):
            return jax.jit(called).trace(*arguments)

    def _compile(self, traced: Any) -> Any:
        with _told_at_trace(self._inputs):
            return traced.lower().compile()


def _shapes_at(
    model: keras.Model, addresses: Sequence[str], inputs: Sequence[TensorSpec], free: int
) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of one row of each layer's outputs, where every free size is the same."""
    recording = Recording(model, [Tap(address) for address in addresses])

    def called(values: Sequence[Any]) -> None:
        with keras.StatelessScope(), recording.active():
            model(as_the_model_takes_them(model, values), training=False)

    batch = fixed_batch_size(model) or 2
    jax.eval_shape(
        called,
        [
            jax.ShapeDtypeStruct((batch, *(size or free for size in spec.shape)), spec.dtype)
            for spec in inputs
        ],
    )
    return {
        address: [tuple(tensor.shape[1:]) for tensor in tensors]
        for address, tensors in recording.seen().items()
    }


def _gpus() -> list[Any]:
    """JAX's own devices, where they are not the processor."""
    return [device for device in jax.local_devices() if device.platform != "cpu"]


@contextmanager
def _told_at_run(rows: int) -> Iterator[None]:
    """What JAX raises while it computes a batch, as the error that it is to the user."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if KerasJaxEngine.is_out_of_memory(error):
            raise ResourceError(
                f"not enough memory for a batch of {rows} rows: give a smaller --batch-size."
            ) from error
        raise UsageError(f"the model cannot compute with these inputs: {first_line(error)}.") from error


@contextmanager
def _told_at_trace(inputs: Sequence[TensorSpec]) -> Iterator[None]:
    """The same, while a model is traced and compiled."""
    try:
        yield
    except LayerprobeError:
        raise
    except jax.errors.JaxRuntimeError as error:
        if not KerasJaxEngine.is_out_of_memory(error):
            raise
        raise ResourceError(f"not enough memory to build the model: {first_line(error)}.") from error
    except (ValueError, TypeError) as error:
        shapes = ", ".join(str(("rows", *spec.shape)) for spec in inputs)
        raise UsageError(f"the model cannot take inputs of shape {shapes}: {first_line(error)}.") from error


def _refuse(name: str, tensor: Any, outer: Any) -> None:
    """Raise unless the tensor belongs to the traced model itself, as its input does; JAX does not check."""
    if isinstance(tensor, jax.core.Tracer) and tensor._trace is not outer._trace:
        raise UnrecordableLayerError(
            f"{name!r} cannot be recorded: it is computed once per step of a loop; name the layer around it."
        )


def _refuse_oversized(jaxpr: Any, max_memory: int) -> None:
    """Raise ResourceError for a tensor that the results need and that nobody has the memory for."""
    needed = {variable for variable in jaxpr.outvars if not isinstance(variable, Literal)}
    for equation in reversed(jaxpr.eqns):
        if not needed.intersection(equation.outvars):
            continue
        needed.update(variable for variable in equation.invars if not isinstance(variable, Literal))
        for variable in equation.outvars:
            size = math.prod(variable.aval.shape[1:]) * variable.aval.dtype.itemsize
            if size > max_memory:
                place = f"{equation.source_info.name_stack}/{equation.primitive.name}"
                raise ResourceError(
                    f"{place!r} would need {size / 2**30:.1f} GiB per image, more than "
                    f"{max_memory / 2**30:.1f}: allow more with --max-memory, or name a layer before it."
                )
        for inner in jaxprs_in_params(equation.params):
            _refuse_oversized(inner, max_memory)
