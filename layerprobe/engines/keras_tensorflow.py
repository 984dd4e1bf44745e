"""The reference engine: the Keras model itself, traced once by TensorFlow with its taps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from layerprobe.engines.device import find_gpu
from layerprobe.engines.tracing import (
    Trace,
    as_the_model_takes_them,
    described,
    fixed_batch_size,
    padded,
    seeded,
)
from layerprobe.errors import (
    LayerprobeError,
    ResourceError,
    UnavailableError,
    UnrecordableLayerError,
    UsageError,
)
from layerprobe.loading.reasons import first_line
from layerprobe.options import INFERENCE, MAX_MEMORY, Computing
from layerprobe.records import Tap, TensorSpec
from layerprobe.taps import Recording, variables_unchanged

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
        self._model, self._taps, self._how = model, taps, how
        self.finish = how.finish
        self.overflowed: dict[str, int] = {}
        self.batch_size = batch_size or 1
        self._padded = None if how.training else batch_size
        self.seed = seeded(model, how)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="layerprobe-compute")
        # On a GPU TensorFlow gives zeros for an index that a table lacks; on a processor it stops.
        watch = bool(tf.config.get_visible_devices("GPU"))
        self._trace = Trace(model, taps, how, refuse, watch=watch)
        self._compiled = self._compile(self._trace, inputs)
        refuse_oversized(self._compiled, max_memory)
        self.outputs = self._sized(self._trace.outputs, inputs)

    @staticmethod
    def gpus() -> list[str]:
        """The GPUs that TensorFlow has, by name."""
        return [gpu.name for gpu in tf.config.list_physical_devices("GPU")]

    @staticmethod
    def prepare(device: str) -> None:
        """Have TensorFlow use one device, and take no more of its memory than it needs.

        Args:
            device: See `device.check_device`.

        Raises:
            UnavailableError: There is no such GPU, or TensorFlow already computes on others.
        """
        gpus = tf.config.list_physical_devices("GPU")
        number = find_gpu(device, [gpu.name for gpu in gpus])
        chosen = [] if number is None else [gpus[number]]
        try:
            if chosen != tf.config.get_visible_devices("GPU"):
                tf.config.set_visible_devices(chosen, "GPU")
        except RuntimeError as error:
            if device != "auto":
                raise UnavailableError(
                    f"device {device} cannot be had: TensorFlow already computes on others in this process."
                ) from error
        for gpu in chosen:
            try:
                tf.config.experimental.set_memory_growth(gpu, True)
            except RuntimeError:  # It computes already, with the memory that it has.
                return

    @staticmethod
    def is_out_of_memory(error: BaseException | None) -> bool:
        """Whether TensorFlow says by this error that memory is exhausted."""
        return isinstance(error, tf.errors.ResourceExhaustedError)

    @staticmethod
    def output_shapes(
        model: keras.Model, addresses: Sequence[str], inputs: Sequence[TensorSpec]
    ) -> dict[str, tuple[tuple[int | None, ...], ...]]:
        """Shapes of one row of each layer's outputs, all calls together; without layers that do not run."""
        recording = Recording(model, [Tap(address) for address in addresses])

        def traced(*values: tf.Tensor) -> None:
            with recording.active():
                model(as_the_model_takes_them(model, values), training=False)

        specs = [tf.TensorSpec((fixed_batch_size(model), *spec.shape), spec.dtype) for spec in inputs]
        tf.function(traced, autograph=False).get_concrete_function(*specs)
        return {
            address: tuple(tuple(tensor.shape[1:]) for tensor in tensors)
            for address, tensors in recording.seen().items()
        }

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`: the last batch is padded, so that every row is computed alike."""
        found = self._collected(len(inputs[0]), partial(self._results, inputs))
        return {name: array.copy() for name, array in found.items()}

    @property
    def trace(self) -> Any:
        """The concrete function behind `run`, for what converts it."""
        return self._compiled

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`: in a thread, which goes on while results are copied from the device."""
        computing = self._thread.submit(self._results, inputs)
        return partial(self._collected, len(inputs[0]), computing.result)

    def _results(self, inputs: Sequence[Array]) -> list[tf.Tensor]:
        results: list[tf.Tensor] = self._compiled(
            *(tf.constant(padded(array, self._padded)) for array in inputs)
        )
        return results

    def _collected(self, rows: int, results: Callable[[], list[tf.Tensor]]) -> dict[str, Array]:
        with told_at_run(rows):
            found, self.overflowed = self._trace.read(results(), rows)
        return found

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return described("tensorflow", devices[0].name, self._how, self.seed)

    def _compile(self, trace: Trace, inputs: Sequence[TensorSpec]) -> Any:
        """Compile the model for one batch shape."""

        def traced(*values: tf.Tensor) -> list[tf.Tensor]:
            with variables_unchanged([self._model]):
                return trace(values)

        specs = [tf.TensorSpec((self._padded, *spec.shape), spec.dtype) for spec in inputs]
        with told_at_trace(inputs):
            return tf.function(traced, autograph=False).get_concrete_function(*specs)

    def _sized(self, outputs: tuple[TensorSpec, ...], inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The outputs with every size known; what the trace leaves open is learnt by running it once."""
        if not any(None in spec.shape for spec in outputs):
            return outputs
        plain = dataclasses.replace(self._how, finish=None)
        compiled = self._compile(Trace(self._model, self._taps, plain, refuse, watch=False), inputs)
        zeros = [tf.zeros((self._padded or 1, *spec.shape), spec.dtype) for spec in inputs]
        results = compiled(*zeros)
        return tuple(
            dataclasses.replace(spec, shape=tuple(tensor.shape[1:]))
            for spec, tensor in zip(outputs, results, strict=True)
        )


@contextmanager
def told_at_run(rows: int) -> Iterator[None]:
    """What TensorFlow raises while it computes a batch, as the error that it is to the user."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise ResourceError(
            f"not enough memory for a batch of {rows} rows: give a smaller --batch-size."
        ) from error
    except tf.errors.InvalidArgumentError as error:
        raise UsageError(f"the model cannot compute with these inputs: {first_line(error)}.") from error


@contextmanager
def told_at_trace(inputs: Sequence[TensorSpec]) -> Iterator[None]:
    """The same, while a model is traced."""
    try:
        yield
    except LayerprobeError:
        raise
    except tf.errors.ResourceExhaustedError as error:
        raise ResourceError(f"not enough memory to build the model: {first_line(error)}.") from error
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        shapes = ", ".join(str(("rows", *spec.shape)) for spec in inputs)
        raise UsageError(f"the model cannot take inputs of shape {shapes}: {first_line(error)}.") from error


def refuse(name: str, tensor: Any, _: Any) -> None:
    """Raise unless the tensor is dense and belongs to the traced model itself."""
    if isinstance(tensor, tf.SparseTensor | tf.RaggedTensor):
        raise UnrecordableLayerError(f"{name!r} cannot be recorded: its values are sparse or ragged.")
    graph = getattr(tensor, "graph", None)
    if graph is not None and graph is not tf.compat.v1.get_default_graph():
        raise UnrecordableLayerError(
            f"{name!r} cannot be recorded: it is computed once per step of a loop; name the layer around it."
        )


def refuse_oversized(compiled: Any, max_memory: int) -> None:
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
