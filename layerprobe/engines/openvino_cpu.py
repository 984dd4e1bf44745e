"""OpenVINO models on this processor: compiled for one batch size and precision, run batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.finite import all_finite
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.errors import PrecisionError, ResourceError, UsageError
from layerprobe.reductions import NumPyFunctions, finished

if TYPE_CHECKING:
    from layerprobe.options import Finish
    from layerprobe.records import Array, TensorSpec

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_WORTH_IT = 100_000
"""From so many values on a cast takes longer than to ask OpenVINO for it."""


class OpenVINOFunctions(NumPyFunctions):
    """`reductions.Functions` for what OpenVINO gave; float16 is cast 30 times as fast as NumPy does it."""

    @staticmethod
    def cast(x: Array, dtype: str) -> Array:
        """See `Functions`: rounded to the nearest, ties to even, too large values infinite, as by NumPy."""
        if dtype != "float16" or x.dtype.name != "float32" or x.size < _WORTH_IT:
            return NumPyFunctions.cast(x, dtype)
        found = np.empty(x.shape, np.float16)
        request = _to_float16().create_infer_request()
        request.set_output_tensor(ov.Tensor(found.reshape(-1), shared_memory=True))
        request.infer([np.ascontiguousarray(x).reshape(-1)], share_inputs=True)
        return found


def finish_all(
    values: Mapping[str, Array], outputs: Sequence[TensorSpec], finish: Finish | None
) -> tuple[dict[str, Array], dict[str, int]]:
    """Reduce and cast what OpenVINO gave for a batch; see `reductions.finished`.

    Args:
        values: (n, ...) arrays by name.
        outputs: What they are, in order.
        finish: The reduction and the cast; None: neither.

    Returns:
        What is stored, by name; and how many values the cast made infinite, where any.
    """
    if finish is None:
        return dict(values), {}
    found, overflowed = {}, {}
    for spec in outputs:
        stored, lost = finished(values[spec.name], spec.channel_axis, finish, OpenVINOFunctions)
        found[spec.name] = np.ascontiguousarray(stored)
        if lost is not None and lost.any():
            overflowed[spec.name] = int(lost.sum())
    return found, overflowed


@cache
def _to_float16() -> ov.CompiledModel:
    """A model of one operation, for vectors of any length."""
    values = op.parameter([-1], np.float32)
    model = ov.Model([op.convert(values, "f16")], [values])
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": PRECISIONS["float32"]})


class CompiledModel:
    """What computes the outputs of an OpenVINO model.

    Args:
        model: Of B rows, or of any number.
        batch_size: B; None takes any number of rows and pads nothing.
        precision: "float32" or "bfloat16".

    Raises:
        Unsupported: OpenVINO cannot compile it.
        PrecisionError: The processor does not compute in that precision.
        ResourceError: There is not enough memory for it.
    """

    def __init__(self, model: ov.Model, batch_size: int | None, precision: str) -> None:
        self._padded = batch_size
        core = ov.Core()
        check_precision(precision, core)
        # Two batches on half of the processor each cost less than one on all of it after the other: cores
        # that wait for each other after every layer take 15 % more time, a quarter more beside decoding.
        streams = "2" if batch_size is not None and batch_size > 1 else "1"
        # Without the hint OpenVINO may take bfloat16 where the processor has it.
        options = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision], "NUM_STREAMS": streams}
        try:
            self._compiled = core.compile_model(model, "CPU", options)
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise ResourceError(f"not enough memory to build the model: {last_line(error)}.") from error
            raise Unsupported(last_line(error)) from error

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Compute one batch; a short one is padded, so that every row is computed alike.

        Args:
            inputs: One (n, ...) array per input of the model, in its order, 1 <= n <= B.

        Returns:
            One (B, ...) array per output of the model, in its order; the first n rows are the inputs'.

        Raises:
            UsageError: The model cannot compute with these inputs.
            ResourceError: There is not enough memory for so many rows.
        """
        with _reported(len(inputs[0])):
            request = self._for_run
        return [array.copy() for array in self._started(request, inputs)()]

    def start(self, inputs: Sequence[Array]) -> Callable[[], list[Array]]:
        """Begin to compute one batch; see `protocols.Engine`. The results are OpenVINO's own memory."""
        with _reported(len(inputs[0])):
            request = self._in_turn[0]
        self._in_turn.rotate()
        return self._started(request, inputs)

    @cached_property
    def _for_run(self) -> ov.InferRequest:
        return self._compiled.create_infer_request()

    @cached_property
    def _in_turn(self) -> deque[ov.InferRequest]:
        """Two: while the results of one are read, the other computes."""
        return deque(self._compiled.create_infer_request() for _ in range(2))

    def _started(self, request: ov.InferRequest, inputs: Sequence[Array]) -> Callable[[], list[Array]]:
        finite = all(map(all_finite, inputs))
        fed = [np.ascontiguousarray(_padded(array, self._padded)) for array in inputs]

        def collect() -> list[Array]:
            with _reported(len(fed[0])):
                request.wait()
            if not finite:
                raise UsageError(
                    "the input holds NaN or infinite values, which OpenVINO does not pass on as Keras does: "
                    "give --engine keras."
                )
            return [tensor.data for tensor in request.output_tensors]

        with _reported(len(fed[0])):
            request.start_async(dict(enumerate(fed)), share_inputs=True)
        return collect


def check_precision(precision: str, core: ov.Core | None = None) -> None:
    """Check that this processor computes in "float32" or "bfloat16", and does not emulate it.

    Raises:
        PrecisionError: It does not.
    """
    if precision == "float32":
        return
    found = (core or ov.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if PRECISIONS[precision].upper() not in found:
        raise PrecisionError(f"this processor cannot compute in {precision}: leave --precision out.")


def last_line(error: Exception) -> str:
    """What an exception says, in one line; OpenVINO begins with places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


@contextmanager
def _reported(rows: int) -> Iterator[None]:
    """Turn what OpenVINO says of a batch into the error that it is to the user."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error):
            raise ResourceError(
                f"not enough memory for a batch of {rows} rows: give a smaller --batch-size."
            ) from error
        reason = last_line(error).rstrip(".")
        raise UsageError(f"the model cannot compute with these inputs: {reason}.") from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether that is what OpenVINO means; it says so in one way or another: "bad_alloc", "allocate"."""
    return isinstance(error, MemoryError) or "alloc" in last_line(error)


def _padded(array: Array, rows: int | None) -> Array:
    """Repeat the last row until there are `rows`: real values, so that nothing overflows."""
    if rows is None or len(array) == rows:
        return array
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])
