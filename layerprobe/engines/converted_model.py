"""A model file as the converted engine takes it: converted once, and kept in the cache with the verdict."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

from layerprobe.engines.agreement import Agreement
from layerprobe.engines.cache import Cache, Entry
from layerprobe.engines.converted import (
    CheckedEngine,
    Converted,
    ConvertedEngine,
    convert,
    description,
    deserialize,
    serialize,
)
from layerprobe.engines.device import keras_backend
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.keras_model import KerasModel
from layerprobe.engines.openvino_cpu import check_precision
from layerprobe.engines.planned import Planned
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.modelfile.naming import told
from layerprobe.options import INFERENCE, Computing
from layerprobe.records import Tap, TensorSpec
from layerprobe.version import __version__

if TYPE_CHECKING:
    from layerprobe.engines.keras_tensorflow import KerasTensorFlowEngine
    from layerprobe.protocols import Engine

Inputs = Sequence[TensorSpec]
Instead = Callable[[Unsupported, Inputs, int | None, Computing], "Engine"]


class ConvertedModel:
    """A model file and the taps that are wanted of it; see `protocols.Runnable`.

    Args:
        file: The model.
        taps: What to record, in order.
        keras: The same model and taps, for what is not in the cache.
        layers: How many layers the model has.
        cache: Where conversions are kept; None keeps none.
        instead: Gives the engine for a model whose conversion differs from Keras: why, and the arguments of
            `engine`.
    """

    def __init__(
        self,
        file: ModelFile,
        taps: Sequence[Tap],
        *,
        keras: KerasModel,
        layers: int,
        cache: Cache | None,
        instead: Instead,
    ) -> None:
        self._file, self._taps, self._keras, self._layers = file, taps, keras, layers
        self._cache, self._instead = cache, instead
        self._traced: dict[tuple[TensorSpec, ...], KerasTensorFlowEngine] = {}
        self._made: dict[tuple[TensorSpec, ...], Converted] = {}
        self.usual_batch_size = 8
        """As for the graph engine."""
        self.note: str | None = None
        """Why the conversion is trusted, once that is known."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the (pruned) model needs, in its order; free sizes are None."""
        if self._remembered is not None:
            return _specs(self._remembered["inputs"])
        return self._keras.inputs

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size that is part of the model's input shape, if one is."""
        if self._remembered is not None:
            size: int | None = self._remembered["fixed_batch_size"]
            return size
        return self._keras.fixed_batch_size

    def engine(self, inputs: Inputs, batch_size: int | None, how: Computing) -> Engine:
        """Build the engine for inputs with every size known.

        Raises:
            Unsupported: OpenVINO cannot run what Keras traces, or was found to compute something else.
        """
        key = self._key(inputs)
        entry = self._find(key)
        if entry is None:
            return self._checked(key, inputs, batch_size, how)
        if entry.about["refused"] is not None:
            raise Unsupported(entry.about["refused"])
        self.note = f"it agreed with Keras when it was converted: {entry.about['agreement']}"
        converted = deserialize(entry.parts, _specs(entry.about["outputs"]))
        return ConvertedEngine(converted, inputs=inputs, batch_size=batch_size, how=how)

    def outline(self, inputs: Inputs, batch_size: int | None, how: Computing) -> Planned:
        """Tell what `engine` would build, from the cache or from Keras's trace; nothing is converted."""
        check_precision(how.precision)
        entry = self._find(self._key(inputs))
        if entry is not None and entry.about["refused"] is not None:
            raise Unsupported(entry.about["refused"])
        if entry is None:
            self.note = "whether it agrees with Keras is seen then"
            outputs = self._trace(tuple(inputs)).outputs
        else:
            self.note = f"it agreed with Keras when it was converted: {entry.about['agreement']}"
            outputs = _specs(entry.about["outputs"])
        return Planned(outputs, batch_size or 1, description(how.precision))

    def _checked(self, key: str, inputs: Inputs, batch_size: int | None, how: Computing) -> Engine:
        """The engine for a model that was not converted before; it settles at its first batch."""
        try:
            converted = self._convert(tuple(inputs))
        except Unsupported as reason:
            self._keep(key, {"refused": str(reason)}, {})
            raise
        first, chosen = (
            ConvertedEngine(converted, inputs=inputs, batch_size=batch_size, how=one)
            for one in (INFERENCE, how)
        )

        def settle(verdict: Agreement) -> Engine:
            if not verdict.agreed:
                reason = f"it differs from Keras by more than {verdict.limit:.0e}: {verdict}"
                self._keep(key, {"refused": reason}, {})
                return self._instead(Unsupported(reason), inputs, batch_size, how)
            self.note = f"it agrees with Keras: {verdict}"
            self._keep_converted(key, converted, verdict)
            return chosen

        return CheckedEngine(self._trace(tuple(inputs)), first, self._layers, settle)

    def _trace(self, inputs: tuple[TensorSpec, ...]) -> KerasTensorFlowEngine:
        """Keras for any number of rows, unless the model is built for a certain one."""
        if inputs not in self._traced:
            if keras_backend() != "tensorflow":
                raise Unsupported("Keras does not run on TensorFlow here")
            engine: Any = self._keras.engine(inputs, self._keras.fixed_batch_size)
            self._traced[inputs] = engine
        return self._traced[inputs]

    def _convert(self, inputs: tuple[TensorSpec, ...]) -> Converted:
        """Once for all batch sizes."""
        if inputs not in self._made:
            reference = self._trace(inputs)
            self._made[inputs] = convert(reference.trace, reference.outputs)
        return self._made[inputs]

    @cached_property
    def _remembered(self) -> Mapping[str, Any] | None:
        """What an earlier run found out about the model itself."""
        if self._file.options.custom_objects:
            return None  # It depends on code that only Keras knows.
        entry = self._find(self._key(None))
        return None if entry is None else entry.about

    def _find(self, key: str) -> Entry | None:
        return None if self._cache is None else self._cache.find(key)

    def _keep_converted(self, key: str, converted: Converted, verdict: Agreement) -> None:
        if self._cache is None:
            return
        outputs = [asdict(spec) for spec in converted.outputs]
        try:
            with self._cache.workspace() as folder:
                parts = serialize(converted, folder)
        except OSError as error:
            self._tell_not_kept(error)
            return
        self._keep(key, {"refused": None, "agreement": str(verdict), "outputs": outputs}, parts)

    def _keep(self, key: str, verdict: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
        """Keep a verdict for later runs; a run does not fail because that cannot be done."""
        if self._cache is None:
            return
        about = {
            "model": told(self._file.path),
            "layers": [tap.name for tap in self._taps],
            "kept": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **verdict,
        }
        itself = {
            "inputs": [asdict(spec) for spec in self._keras.inputs],
            "fixed_batch_size": self._keras.fixed_batch_size,
        }
        try:
            self._cache.keep(key, about, parts)
            self._cache.keep(self._key(None), itself, {})
        except OSError as error:
            self._tell_not_kept(error)

    def _tell_not_kept(self, error: OSError) -> None:
        self.note = f"{self.note}; it is not kept for later runs: {error}"

    def _key(self, inputs: Inputs | None) -> str:
        """Of all that decides what the conversion computes; without inputs, of the model itself."""
        options = self._file.options
        parts = {
            "model": self._file.archive.sha256(),
            "weights": _sha256(options.weights) if options.weights is not None else None,
            "lambdas": dict(options.lambdas),
            "max_memory": options.max_memory,
            "taps": [tap.name for tap in self._taps],
            "inputs": None if inputs is None else [asdict(spec) for spec in inputs],
            "code": None,
            "versions": [__version__, *map(metadata.version, ("keras", "tensorflow", "openvino"))],
        }
        if inputs is not None and options.custom_objects:
            parts["code"] = _fingerprint(self._trace(tuple(inputs)).trace)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _specs(stored: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """What `asdict` and JSON made lists of."""
    return tuple(TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in stored)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(trace: Any) -> str:
    """SHA-256 of what a trace computes, with the values it holds: of the user's code in the end."""
    digest = hashlib.sha256(trace.graph.as_graph_def().SerializeToString(deterministic=True))
    variables = {id(variable.handle): variable for variable in trace.variables}
    for captured in trace.captured_inputs:
        digest.update(variables.get(id(captured), captured).numpy().tobytes())
    return digest.hexdigest()
