"""The model of a run: a file, of which only what is wanted gets loaded, or a live Keras model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerprobe import registry
from layerprobe.engines.graph.file import GraphFile
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.errors import UnavailableError, UsageError
from layerprobe.modelfile.listing import describe
from layerprobe.modelfile.select import select
from layerprobe.records import MAX_MEMORY, LayerInfo, ModelInfo, ModelOptions, Tap, TensorSpec

if TYPE_CHECKING:
    import keras

    from layerprobe.protocols import Engine


class ProbedModel:
    """Knows the layers at once, loads late, and no more than the taps need.

    Args:
        model: A path, or a Keras model.
        layers: What to record: addresses and patterns.
        options: What the file needs beside itself.
        engine: "graph", "keras", or "auto": graph where it can run the model exactly as Keras does.

    Raises:
        UsageError: No layer is named, or one that the model does not have; or there is no such engine.
        ModelError: The file is refused.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | keras.Model,
        layers: Sequence[str],
        options: ModelOptions,
        engine: str = "auto",
    ) -> None:
        self._options = options
        self._engine = engine
        self._live: keras.Model | None = None
        self._file: GraphFile | None = None
        self.note: str | None = None
        """Why Keras runs the model, where it was for `auto` to decide."""
        if isinstance(layers, str):
            raise UsageError(
                f"layers must be a list of addresses, such as [{layers!r}]. Received: {layers!r}"
            )
        if isinstance(model, str | os.PathLike):
            self.path = os.fspath(model)
            self.info = _describe(self.path, options)
        elif not hasattr(model, "layers"):
            raise UsageError(f"a model is a path or a Keras model. Received: {type(model).__name__}")
        else:
            self.path = ""
            self._live = model
            self.info = _describe_live(model)
        if not layers:
            raise UsageError(
                f"name at least one layer: `layerprobe layers {self.path or 'MODEL'}` lists them."
            )
        if not self.info.layers:
            # The file of a subclassed model does not list its layers; the loaded model does.
            self._live = self._load(None)
            self.info = _describe_live(self._live, self.info)
        for text in layers:
            if not isinstance(text, str):
                raise UsageError(f"layers are named by text, such as 'conv1'. Received: {text!r}")
        self.taps: tuple[Tap, ...] = select(layers, self.info.layers)

    def prepare(self) -> None:
        """Find out what runs the model, and load what that needs to know its inputs."""
        if self._graph_file() is None:
            self._keras_model()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the (pruned) model needs, in its order; free sizes are None."""
        file = self._graph_file()
        if file is not None:
            return file.inputs
        from layerprobe.engines.keras_tensorflow import model_inputs

        return model_inputs(self._keras_model()) or self.info.inputs

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size that is part of the model's input shape, if one is."""
        file = self._graph_file()
        if file is not None:
            return file.fixed_batch_size
        from layerprobe.engines.keras_tensorflow import fixed_batch_size

        return fixed_batch_size(self._keras_model())

    def engine(
        self,
        inputs: Sequence[TensorSpec],
        *,
        batch_size: int | None,
        training: bool = False,
        seed: int | None = None,
    ) -> Engine:
        """Build what runs the model: inputs with every size known, B, and what `training` needs.

        Raises:
            UnavailableError: The graph engine was asked for, and cannot run this model.
        """
        if training:
            self._need_keras("training, which only Keras computes")
        file = self._graph_file()
        if file is not None:
            try:
                return file.engine(inputs, batch_size)
            except (Unsupported, UnavailableError) as reason:
                self._fall_back(str(reason).rstrip("."))
        engine: Engine = registry.find(registry.ENGINES, "keras", "engine")(
            self._keras_model(),
            self.taps,
            inputs=inputs,
            batch_size=batch_size,
            training=training,
            seed=seed,
            max_memory=self._options.max_memory,
        )
        return engine

    def provenance(self) -> dict[str, Any]:
        """Which model this is: path, SHA-256, format, Keras version."""
        from layerprobe.modelfile.archive import sha256

        return {
            "path": os.path.abspath(self.path) if self.path else "",
            "sha256": sha256(self.path) if self.path else None,
            "file_format": self.info.file_format,
            "keras_version": self.info.keras_version,
            "class_name": self.info.class_name,
        }

    def _graph_file(self) -> GraphFile | None:
        """The file as the graph engine takes it; None where Keras runs the model."""
        if self._live is not None or self._options.custom_objects:
            self._need_keras("a live model" if not self.path else "code of the user's own")
        if self._engine != "keras" and self._file is None:
            try:
                self._file = GraphFile(self.path, self.taps, self._options)
            except Unsupported as reason:
                self._fall_back(str(reason))
        return self._file if self._engine != "keras" else None

    def _need_keras(self, reason: str) -> None:
        """Have Keras run the model, for what was asked can be done by no other."""
        if self._engine == "graph":
            raise UnavailableError(f"the graph engine cannot run this model ({reason}): leave --engine out.")
        self._engine = "keras"

    def _fall_back(self, reason: str) -> None:
        """Have Keras run a model that `auto` would have given to the graph engine."""
        self._need_keras(reason)
        self.note = f"engine keras: the graph engine cannot run this model ({reason})"

    def _keras_model(self) -> keras.Model:
        """The live model, at the first call from its file; pruned to the taps' ancestors."""
        if self._live is None:
            self._live = self._load({tap.address for tap in self.taps})
        return self._live

    def _load(self, keep: set[str] | None) -> keras.Model:
        return _load(self.path, self._options, keep)


def _describe_live(model: keras.Model, info: ModelInfo | None = None) -> ModelInfo:
    """What a live model says of itself; `info` is what its file said before."""
    from layerprobe.engines.keras_tensorflow import model_inputs
    from layerprobe.taps import describe_model

    return ModelInfo(
        path=info.path if info else "",
        file_format=info.file_format if info else "live",
        keras_version=info.keras_version if info else None,
        class_name=type(model).__name__,
        inputs=model_inputs(model) or (info.inputs if info else ()),
        layers=describe_model(model),
    )


def layers(
    path: str | os.PathLike[str],
    *,
    shapes: bool = False,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> tuple[LayerInfo, ...]:
    """The layers of a saved model, from its file alone.

    Args:
        path: The model.
        shapes: Load the model and add the output shapes, which no file stores.
        custom_objects: The user's own classes and functions, by name; with them a model is loaded whose file
            lists no layers.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.

    Returns:
        An outer layer before its inner ones; empty for a subclassed model that was not loaded.
    """
    options = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    info = _describe(os.fspath(path), options)
    if not shapes and (info.layers or not custom_objects):
        return info.layers
    reachable = [layer.address for layer in info.layers if not layer.problem]
    model = _load(os.fspath(path), options, set(reachable) if info.layers else None)
    live = _describe_live(model, info)
    found = info.layers or live.layers
    if not shapes:
        return found

    from layerprobe.engines.keras_tensorflow import output_shapes

    known = output_shapes(model, reachable or [layer.address for layer in found], live.inputs)
    return tuple(dataclasses.replace(layer, shapes=known.get(layer.address)) for layer in found)


def _describe(path: str, options: ModelOptions) -> ModelInfo:
    return describe(
        path,
        options.weights,
        given=options.custom_objects,
        lambdas=options.lambdas,
        max_memory=options.max_memory,
    )


def _load(path: str, options: ModelOptions, keep: set[str] | None) -> keras.Model:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise UnavailableError(
            f"layerprobe needs Keras on TensorFlow: unset KERAS_BACKEND. Received: KERAS_BACKEND={backend}"
        )
    from layerprobe.loading.build import load_model

    return load_model(
        path,
        custom_objects=options.custom_objects,
        keep=keep,
        weights=options.weights,
        lambdas=options.lambdas,
        max_memory=options.max_memory,
    )
