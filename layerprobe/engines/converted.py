"""The converted engine: Keras's own trace of a model, run by OpenVINO once it agreed with Keras."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from layerprobe.engines.agreement import Agreement, compare
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.openvino_cpu import CompiledModel, finish_all, last_line
from layerprobe.engines.openvino_import import convert_model
from layerprobe.errors import ResourceError, UsageError
from layerprobe.options import INFERENCE, Computing
from layerprobe.records import TensorSpec

if TYPE_CHECKING:
    from layerprobe.options import Finish
    from layerprobe.protocols import Collect, Engine
    from layerprobe.records import Array


@dataclass(frozen=True, slots=True)
class Converted:
    """A model as OpenVINO's converter made it, for any number of rows."""

    model: ov.Model
    outputs: tuple[TensorSpec, ...]
    """What it gives, in its order."""
    memory: Any = None
    """What the model's constants are views of; it has to live as long as whatever runs the model."""


class ConvertedEngine:
    """Runs a converted model.

    Args:
        converted: The model.
        inputs: One spec per input of the model, in its order, with every size known.
        batch_size: B; None takes any number of rows and pads nothing.
        how: Which precision, and what is done with the results.

    Raises:
        Unsupported: OpenVINO cannot run it for these sizes, or not so that it gives what it should.
        PrecisionError: The processor does not compute in that precision.
    """

    def __init__(
        self,
        converted: Converted,
        *,
        inputs: Sequence[TensorSpec],
        batch_size: int | None,
        how: Computing = INFERENCE,
    ) -> None:
        self.finish = how.finish
        self.overflowed: dict[str, int] = {}
        self.outputs = converted.outputs
        self.batch_size = batch_size or 1
        self._precision = how.precision
        self._memory = converted.memory
        model = _sized(converted.model, inputs, batch_size)
        _check_outputs(model, self.outputs, batch_size)
        self._compiled = CompiledModel(model, batch_size, how.precision)

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`: the last batch is padded, so that every row is computed alike."""
        return self._named(self._compiled.run(inputs), len(inputs[0]))

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`: the results are OpenVINO's own memory."""
        collect = self._compiled.start(inputs)
        return lambda: self._named(collect(), len(inputs[0]))

    def _named(self, results: Sequence[Array], rows: int) -> dict[str, Array]:
        named = {spec.name: values[:rows] for spec, values in zip(self.outputs, results, strict=True)}
        found, self.overflowed = finish_all(named, self.outputs, self.finish)
        return found

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        return description(self._precision)


def description(precision: str) -> dict[str, Any]:
    """What the converted engine says of itself."""
    return {"name": "converted", "backend": "openvino", "device": "CPU", "precision": precision}


class CheckedEngine:
    """Has Keras and a converted model compute the first batch, and settles for the engine that may go on.

    Args:
        reference: Keras, for any number of rows.
        converted: In float32.
        layers: How many layers the model has.
        settle: Gives the engine for all rows, the first batch included, once the verdict is known.
    """

    def __init__(
        self, reference: Engine, converted: Engine, layers: int, settle: Callable[[Agreement], Engine]
    ) -> None:
        self.outputs = converted.outputs
        self.batch_size = converted.batch_size
        self._candidates: tuple[Engine, Engine] | None = (reference, converted)
        self._layers, self._settle = layers, settle
        self._settled = converted

    @property
    def finish(self) -> Finish | None:
        """See `protocols.Engine`: known with the first results."""
        return self._settled.finish

    @property
    def overflowed(self) -> Mapping[str, int]:
        """See `protocols.Engine`."""
        return self._settled.overflowed

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """See `protocols.Engine`."""
        if self._candidates is not None:
            reference, converted = self._candidates
            wanted = reference.run(inputs)
            try:
                verdict = compare(converted.run(inputs), wanted, self._layers)
            except UsageError:  # It cannot compute with what Keras computes with.
                verdict = Agreement(math.inf, next(iter(wanted)), 0.0, len(inputs[0]))
            self._settled = self._settle(verdict)
            self._candidates = None
        return self._settled.run(inputs)

    def start(self, inputs: Sequence[Array]) -> Collect:
        """See `protocols.Engine`: the first batch is computed when it is collected."""
        if self._candidates is not None:
            return lambda: self.run(inputs)
        return self._settled.start(inputs)

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        return self._settled.describe()


def convert(trace: Any, outputs: tuple[TensorSpec, ...]) -> Converted:
    """Convert what TensorFlow traced.

    Args:
        trace: As `KerasTensorFlowEngine.trace`, of any number of rows.
        outputs: What it gives.

    Raises:
        Unsupported: OpenVINO has no operation for something in it, or one that is less careful.
        ResourceError: There is not enough memory for it.
    """
    import tensorflow as tf

    # A function that calls the trace: the converter takes loops within such, which it refuses in the trace
    # itself, and keeps results apart that are equal.
    specs = {
        _input(place): tf.TensorSpec(spec.shape, spec.dtype)
        for place, spec in enumerate(trace.structured_input_signature[0])
    }

    def named(**values: Any) -> dict[str, Any]:
        return {_output(place): value for place, value in enumerate(trace(*values.values())[: len(outputs)])}

    try:
        function = tf.function(named, autograph=False).get_concrete_function(**specs)
        model = convert_model(function)
    except MemoryError as error:  # No property of the model, for the cache to remember.
        raise ResourceError("not enough memory to convert the model: give --engine keras.") from error
    except Exception as error:  # OpenVINO's converters raise whatever they stumble over.
        raise Unsupported(f"OpenVINO cannot convert it: {_why_not(error)}") from error
    names = [tensor.name for tensor in function.outputs]
    model = _in_order(model, list(specs), sorted(range(len(names)), key=names.__getitem__))
    for operation in model.get_ops():
        if _looks_up(operation):
            raise Unsupported("an index that a table lacks would go unnoticed in OpenVINO")
    return Converted(model, outputs)


def _in_order(model: ov.Model, inputs: Sequence[str], order: Sequence[int]) -> ov.Model:
    """The model with its inputs and outputs where the trace has them.

    Args:
        model: As the converter gives it, its outputs sorted by names that TensorFlow chose.
        inputs: The names of its inputs.
        order: For each of its outputs, which one of the trace it is. One that only hands an input on has
            lost the name that tells it; those that have theirs prove the order.

    Raises:
        Unsupported: The names say something else.
    """
    names = [output.get_names() for output in model.outputs]
    told = [{name for name in some if name.startswith("output")} for some in names]
    if len(told) != len(order) or any(
        some and _output(place) not in some for place, some in zip(order, told, strict=True)
    ):
        raise Unsupported("OpenVINO's converter lost the order of its outputs")
    parameters = {name: node for node in model.get_parameters() for name in node.output(0).get_names()}
    if len(model.inputs) != len(inputs) or not set(inputs) <= set(parameters):
        raise Unsupported("OpenVINO's converter lost one of its inputs")
    results = model.get_results()
    return ov.Model(
        [results[order.index(place)] for place in range(len(order))],
        [parameters[name] for name in inputs],
        "layerprobe",
    )


def _input(place: int) -> str:
    return f"input{place:06}"


def _output(place: int) -> str:
    return f"output{place:06}"


def serialize(converted: Converted, folder: str) -> dict[str, bytes]:
    """A model as the two files of OpenVINO's own format, by way of `folder`, which is left empty."""
    path = os.path.join(folder, "model.xml")
    ov.save_model(converted.model, path, compress_to_fp16=False)
    parts = {}
    for part in ("xml", "bin"):
        with open(os.path.join(folder, f"model.{part}"), "rb") as file:
            parts[part] = file.read()
    return parts


def deserialize(parts: Mapping[str, memoryview], outputs: tuple[TensorSpec, ...]) -> Converted:
    """The model that `serialize` made `parts` of; they are read as data, and not copied.

    Raises:
        Unsupported: This OpenVINO does not read them.
    """
    constants = np.asarray(parts["bin"])
    try:
        given = [ov.Tensor(constants, shared_memory=True)] if len(constants) else []
        return Converted(ov.Core().read_model(bytes(parts["xml"]), *given), outputs, constants)
    except RuntimeError as error:
        raise Unsupported(last_line(error)) from error


def _sized(model: ov.Model, inputs: Sequence[TensorSpec], batch_size: int | None) -> ov.Model:
    """The model for rows of these shapes; the one given stays as it is."""
    sized = model.clone()
    try:
        sized.reshape({place: _shape(spec, batch_size) for place, spec in enumerate(inputs)})
    except RuntimeError as error:
        raise Unsupported(last_line(error)) from error
    return sized


def _check_outputs(model: ov.Model, outputs: Sequence[TensorSpec], batch_size: int | None) -> None:
    """Raise Unsupported unless the model gives exactly what `outputs` says, one row for each input."""
    for spec, output in zip(outputs, model.outputs, strict=True):
        shape = _shape(spec, batch_size)
        dtype = output.get_element_type().to_dtype().name
        if not output.get_partial_shape().compatible(shape) or dtype != spec.dtype:
            found = f"{output.get_partial_shape()} {dtype}"
            raise Unsupported(f"OpenVINO gives {spec.name!r} as {found}, not as {shape} {spec.dtype}")


def _shape(spec: TensorSpec, batch_size: int | None) -> ov.PartialShape:
    return ov.PartialShape([batch_size or -1, *spec.shape])


def _looks_up(operation: Any) -> bool:
    """Whether this takes entries of a table at computed places: TensorFlow stops at one that is not there."""
    if operation.get_type_name() != "Gather":
        return False
    table, indices = (operation.input_value(place).get_node() for place in (0, 1))
    while table.get_type_name() == "Convert":
        table = table.input_value(0).get_node()
    return bool(table.get_type_name() == "Constant" and indices.get_type_name() != "Constant")


def _why_not(error: Exception) -> str:
    """What OpenVINO's converter says is in the way, in one line."""
    for line in str(error).splitlines():
        if "No conversion rule" in line or "Conversion is failed for" in line:
            return line.strip(" -.").replace("No conversion rule found", "no conversion rule")[:200]
    return last_line(error).rstrip(".")
