"""The model of a run: a file, of which only what is wanted gets loaded, or a live Keras model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from layerprobe import registry
from layerprobe.engines.cache import Cache
from layerprobe.engines.device import check_device
from layerprobe.engines.graph.file import GraphFile
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.keras_model import KerasModel, gpus, load
from layerprobe.engines.openvino_import import import_openvino
from layerprobe.errors import PrecisionError, UnavailableError, UsageError
from layerprobe.modelfile.listing import describe_file
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.modelfile.naming import told
from layerprobe.modelfile.select import select
from layerprobe.options import INFERENCE, Computing, ModelOptions
from layerprobe.records import ModelInfo, Tap, TensorSpec

if TYPE_CHECKING:
    import keras

    from layerprobe.protocols import Engine, Outline, Runnable

Built = TypeVar("Built")

ENGINES = {
    "auto": ("graph", "converted", "keras"),
    "converted": ("converted",),
    "graph": ("graph",),
    "keras": ("keras",),
}
"""What the user asks for -> the engines that are tried, in this order."""
_LARGE = 64 << 20
"""Bytes that take longer to read than the sizes of all tensors to work out."""


class ProbedModel:
    """Knows the layers at once, loads late, and no more than the taps need.

    A file stays open until `close`, or the end of this object.

    Args:
        model: A path, or a Keras model.
        layers: What to record: addresses and patterns.
        options: What the file needs beside itself.
        engine: A name in `ENGINES`: "graph", "converted", "keras", or "auto": the first of these that can run
            the model exactly as Keras does, and keras where it has a GPU.
        device: "auto" (a GPU that Keras has, else the processor), "cpu", "gpu" or "gpu:N".
        cache: Where conversions are kept; None keeps none.

    Raises:
        UsageError: No layer is named, or one that the model does not have; or there is no such engine, or it
            does not run on that device.
        ModelError: The file is refused.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | keras.Model,
        layers: Sequence[str],
        options: ModelOptions,
        engine: str = "auto",
        device: str = "auto",
        cache: Cache | None = None,
    ) -> None:
        if isinstance(layers, str):
            raise UsageError(
                f"layers must be a list of addresses, such as [{layers!r}]. Received: {layers!r}"
            )
        if engine not in ENGINES:
            raise UsageError(f"engine must be one of {', '.join(ENGINES)}. Received: {engine!r}")
        check_device(device)
        if engine in ("graph", "converted") and device.startswith("gpu"):
            raise UsageError(f"the engine {engine} runs on the processor: leave --device {device} out.")
        self.options, self._device, self._cache = options, device, cache
        self._file: ModelFile | None = None
        self._live: keras.Model | None = None
        if isinstance(model, str | os.PathLike):
            self.path = os.fspath(model)
            self._file = ModelFile(self.path, options)
            self.info = describe_file(self._file)
        elif not hasattr(model, "layers"):
            raise UsageError(f"a model is a path or a Keras model. Received: {type(model).__name__}")
        else:
            self.path = ""
            self._live = model
            self.info = describe_live(model)
        if not layers:
            raise UsageError(
                f"name at least one layer: `layerprobe layers {self.path or 'MODEL'}` lists them."
            )
        if self._file is not None:
            self._file.check_weights()
        if self._file is not None and not self.info.layers:
            # The file of a subclassed model does not list its layers; the loaded model does.
            self._live = load(self._file, None, device)
            self.info = describe_live(self._live, self.info)
        for text in layers:
            if not isinstance(text, str):
                raise UsageError(f"layers are named by text, such as 'conv1'. Received: {text!r}")
        self.taps: tuple[Tap, ...] = select(layers, self.info.layers)
        self._reasons: list[str] = []
        self._engines = list(ENGINES[engine])
        self._runnable: Runnable | None = None
        if self._file is None:
            self._only_keras("a live model")

    @property
    def note(self) -> str | None:
        """Which engine runs the model and why, where that is not the same for every model."""
        trusted = None if self._runnable is None else self._runnable.note
        reasons = self._reasons if trusted is None else [*self._reasons, trusted]
        return f"engine {self._engines[0]}: {'; '.join(reasons)}" if reasons else None

    @property
    def file(self) -> ModelFile | None:
        """The model's file; None for a live model."""
        return self._file

    def close(self) -> None:
        """Release the file; no engine can be built any more."""
        if self._file is not None:
            self._file.close()

    def prepare(self) -> None:
        """Begin to hash the file, find out what runs it, and load what that needs to know its inputs."""
        if self._file is not None:
            self._file.archive.begin_reading(hashed=True)
        _ = self.inputs

    @property
    def takes_long_to_load(self) -> bool:
        """Whether the weights are so large that it pays to find out all sizes before they are read."""
        return self._file is not None and 4 * self._file.weights.total() >= _LARGE

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the (pruned) model needs, in its order; free sizes are None."""
        return self._first_runnable().inputs

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size that is part of the model's input shape, if one is."""
        return self._first_runnable().fixed_batch_size

    @property
    def usual_batch_size(self) -> int:
        """The batch size that suits the engine, where nothing else is asked for."""
        return self._first_runnable().usual_batch_size

    def engine(
        self,
        inputs: Sequence[TensorSpec],
        *,
        batch_size: int | None,
        how: Computing = INFERENCE,
    ) -> Engine:
        """Build what runs the model: inputs with every size known, B, and what only Keras does.

        Raises:
            UnavailableError: The engine that was asked for cannot run this model.
            ModelError: The file is damaged, or was changed while it was read.
        """
        if how.training:
            self._only_keras("training, which only Keras computes")
        engine = self._first(lambda runnable: runnable.engine(inputs, batch_size, how))
        if self._file is not None:
            self._file.archive.verify()
            self._file.archive.check_unchanged()
        return engine

    def outline(
        self, inputs: Sequence[TensorSpec], *, batch_size: int | None, how: Computing = INFERENCE
    ) -> Outline:
        """Tell what `engine` would build, as far as that is known before; it reads as little as it can.

        Raises:
            UnavailableError: The engine that was asked for cannot run this model.
        """
        if how.training:
            self._only_keras("training, which only Keras computes")
        return self._first(lambda runnable: runnable.outline(inputs, batch_size, how))

    def gradients(
        self,
        outputs: Sequence[str],
        layers: Sequence[str],
        inputs: Sequence[TensorSpec],
        *,
        before_activation: bool = False,
    ) -> Any:
        """Build what differentiates some of what is recorded with respect to the rest, with Keras.

        Args:
            outputs: Addresses, as this model was made for.
            layers: The same.
            inputs: With every size known.
            before_activation: Take what went into an output's softmax or sigmoid.
        """
        self._only_keras("gradients, which only Keras computes")
        listed = self.info.layers
        found = self._keras.gradients(
            select(outputs, listed), select(layers, listed), inputs, before_activation=before_activation
        )
        if self._file is not None:
            self._file.archive.verify()
            self._file.archive.check_unchanged()
        return found

    def provenance(self) -> dict[str, Any]:
        """Which model this is: path, SHA-256, format, Keras version, SHA-256 of weights given beside it."""
        return {
            "path": told(self.path) if self.path else "",
            "sha256": self._file.archive.sha256() if self._file is not None else None,
            "file_format": self.info.file_format,
            "keras_version": self.info.keras_version,
            "class_name": self.info.class_name,
            "weights": None if self._file is None else self._file.weights_sha256(),
        }

    def signature(self) -> dict[str, Any]:
        """What of the model decides its values; custom code counts by its names alone."""
        return {
            "model": self._file.archive.sha256() if self._file is not None else None,
            "weights": None if self._file is None else self._file.weights_sha256(),
            "lambdas": dict(self.options.lambdas),
            "custom_objects": sorted(self.options.custom_objects),
        }

    def _first(self, build: Callable[[Runnable], Built]) -> Built:
        """The first engine in the order that can be built, or its outline."""
        while True:
            runnable = self._first_runnable()
            try:
                return build(runnable)
            except PrecisionError:  # Keras would emulate it, which takes longer than float32.
                raise
            except (Unsupported, UnavailableError) as reason:
                self._fall_back(reason)

    def _first_runnable(self) -> Runnable:
        """The model as the first engine in the order takes it that can run it, for all that is known."""
        while self._runnable is None:
            self._take_gpu()
            try:
                self._runnable = self._make_runnable(self._engines[0])
            except (Unsupported, UnavailableError) as reason:
                self._fall_back(reason)
        return self._runnable

    def _make_runnable(self, engine: str) -> Runnable:
        if engine == "keras":
            return self._keras
        assert self._file is not None, "a live model is Keras's"
        if engine == "converted":
            import_openvino()
            converted: Runnable = registry.find(registry.ENGINES, "converted", "engine")(
                self._file,
                self.taps,
                keras=self._keras,
                layers=len(self.info.layers),
                cache=self._cache,
                instead=self._instead,
            )
            return converted
        if self.options.custom_objects:
            raise Unsupported("code of the user's own")
        return GraphFile(self._file, self.taps)

    @cached_property
    def _keras(self) -> KerasModel:
        """The model as Keras runs it, which the converted engine is held against."""
        model = self._live if self._live is not None else self._file
        return KerasModel(model, self.taps, self.info.inputs, self._device, self.options.max_memory)

    def _instead(
        self, reason: Unsupported, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing
    ) -> Engine:
        """What runs the model when an engine that was built already turns out to be none for it."""
        self._fall_back(reason)
        return self._first(lambda runnable: runnable.engine(inputs, batch_size, how))

    def _fall_back(self, reason: Unsupported | UnavailableError) -> None:
        """Go on to the next engine in the order; raises where there is none."""
        failed, *others = self._engines
        text = str(reason).rstrip(".")
        if not others and isinstance(reason, UnavailableError):
            raise reason
        if not others:
            raise UnavailableError(f"the {failed} engine cannot run this model ({text}): leave --engine out.")
        self._reasons.append(f"the {failed} engine cannot run this model ({text})")
        self._engines, self._runnable = others, None

    def _take_gpu(self) -> None:
        """Have Keras run the model where that was left open and Keras has a GPU, or one was asked for."""
        if self._engines[0] == "keras" or self._device == "cpu":
            return
        if self._device != "auto":
            self._only_keras(f"device {self._device}")
        elif "keras" in self._engines and (found := gpus()):
            self._reasons.append(f"it has a GPU, {found[0]}")
            self._only_keras("a GPU")

    def _only_keras(self, reason: str) -> None:
        """Have Keras run the model, for what was asked can be done by no other."""
        if "keras" not in self._engines:
            failed = self._engines[0]
            raise UnavailableError(
                f"the {failed} engine cannot run this model ({reason}): leave --engine out."
            )
        if self._engines != ["keras"]:
            self._engines, self._runnable = ["keras"], None


def describe_live(model: keras.Model, info: ModelInfo | None = None) -> ModelInfo:
    """What a live model says of itself; `info` is what its file said before."""
    from layerprobe.engines.tracing import model_inputs
    from layerprobe.taps import describe_model

    return ModelInfo(
        path=info.path if info else "",
        file_format=info.file_format if info else "live",
        keras_version=info.keras_version if info else None,
        class_name=type(model).__name__,
        inputs=model_inputs(model) or (info.inputs if info else ()),
        layers=describe_model(model),
    )
