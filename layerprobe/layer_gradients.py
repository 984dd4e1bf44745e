"""`gradients`: how much a model's values change with what its layers give."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import UsageError
from layerprobe.options import MAX_MEMORY, ModelOptions
from layerprobe.probe import arrays_of_batch
from layerprobe.records import TensorSpec
from layerprobe.run.probed_model import ProbedModel

if TYPE_CHECKING:
    import keras
    import numpy.typing as npt

    from layerprobe.engines.gradient_tensors import GradientTensors
    from layerprobe.records import Array

KEPT = 16
"""For so many shapes of inputs the traced model is kept."""


def gradients(
    model: str | os.PathLike[str] | keras.Model,
    outputs: str | Sequence[str],
    layers: str | Sequence[str],
    *,
    device: str = "auto",
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> LayerGradients:
    """Make a function of a batch that gives d(output) / d(what a layer gives), nested layers included.

    ::

        gradients = layerprobe.gradients("model.h5", "pre:predictions", "conv5_3")
        found = gradients(batch, 3)                            # of unit 3
        found.gradients["pre:predictions"]["conv5_3"]          # (B, H, W, C)
        found.layers["conv5_3"], found.outputs["pre:predictions"]

    Keras computes them, on TensorFlow, in the inference phase. In gradients of a softmax those of all units
    are mixed: take what goes into it, `pre:`.

    Args:
        model: Path of a saved model, or a Keras model.
        outputs: What is differentiated: addresses and patterns; see `modelfile/select.py`.
        layers: With respect to what.
        device: "auto" (a GPU that Keras has, else the processor), "cpu", "gpu" or "gpu:N".
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.

    Raises:
        UnknownLayerError: The model has no such layer.
        ModelError: The file is refused.
        UnavailableError: Keras runs on another framework than TensorFlow.
    """
    options = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    return LayerGradients(model, outputs, layers, options, device)


class LayerGradients:
    """See `gradients`, which makes it. The model is traced at the first batch of each shape."""

    def __init__(
        self,
        model: str | os.PathLike[str] | keras.Model,
        outputs: str | Sequence[str],
        layers: str | Sequence[str],
        options: ModelOptions,
        device: str,
    ) -> None:
        self._outputs = [outputs] if isinstance(outputs, str) else list(outputs)
        self._layers = [layers] if isinstance(layers, str) else list(layers)
        if not self._outputs or not self._layers:
            raise UsageError("name at least one output and one layer.")
        named = [*self._outputs, *self._layers]
        self._probed = ProbedModel(model, named, options, "keras", device)
        self._traced: dict[tuple[tuple[int, ...], ...], Any] = {}

    def __call__(
        self,
        batch: npt.ArrayLike | Sequence[npt.ArrayLike] | Mapping[str, npt.ArrayLike],
        units: int | npt.ArrayLike | Mapping[str, Any] | None = None,
    ) -> GradientTensors:
        """Compute values and gradients for one batch.

        Args:
            batch: (B, ...) values as the model takes them, as `Probe` takes them.
            units: Which value of each row of an output: a whole number for all rows, or (B,) of them, counted
                in C order; or (B, ...) weights of the output's own shape, by which its values are multiplied
                and added; None adds all of them. For several outputs a dict by name.

        Returns:
            Values of outputs and layers by name, and gradients by the names of both.

        Raises:
            UsageError: The batch or the units do not fit.
            ResourceError: There is not enough memory for so many rows.
        """
        arrays = arrays_of_batch(self._probed.inputs, batch)
        traced = self._at(arrays)
        shapes: dict[str, tuple[int | None, ...]] = traced.shapes
        if any(None in shape for shape in shapes.values()):
            shapes = {name: values.shape[1:] for name, values in traced.values(arrays)[0].items()}
        unknown = [name for name in units if name not in shapes] if isinstance(units, Mapping) else []
        if unknown:
            raise UsageError(f"there is no output {unknown[0]!r}: they are {', '.join(shapes)}.")
        seeds = [
            _seed(name, (len(arrays[0]), *shape), units.get(name) if isinstance(units, Mapping) else units)
            for name, shape in shapes.items()
        ]
        found: GradientTensors = traced(arrays, seeds)
        return found

    def _at(self, arrays: Sequence[Array]) -> Any:
        """The model traced for rows of these shapes."""
        key = tuple(array.shape[1:] for array in arrays)
        if key not in self._traced:
            if len(self._traced) >= KEPT:
                del self._traced[next(iter(self._traced))]
            known = self._probed.inputs or [
                TensorSpec(f"input{number}", (), "float32") for number in range(len(arrays))
            ]
            specs = [TensorSpec(spec.name, shape, spec.dtype) for spec, shape in zip(known, key, strict=True)]
            self._traced[key] = self._probed.gradients(self._outputs, self._layers, specs)
        return self._traced[key]


def _seed(name: str, shape: tuple[Any, ...], units: Any) -> Array:
    """What each value of an output of shape (B, ...) counts, as (B, n); for units see `LayerGradients`."""
    rows, count = shape[0], math.prod(shape[1:])
    if units is None:
        return np.ones((rows, count), np.float32)
    given = np.asarray(units)
    if given.dtype.kind in "iu" and given.shape in ((), (rows,)):
        chosen = np.broadcast_to(given, (rows,))
        if not ((chosen >= 0) & (chosen < count)).all():
            raise UsageError(f"{name!r} has units 0 to {count - 1}. Received: {units}")
        seed = np.zeros((rows, count), np.float32)
        seed[np.arange(rows), chosen] = 1
        return seed
    if given.shape != shape or given.dtype.kind not in "biuf":
        raise UsageError(
            f"units of {name!r} are whole numbers, one or {rows}, or weights of shape {shape}. "
            f"Received: {given.dtype} of shape {given.shape}"
        )
    return np.asarray(given.reshape(rows, count), np.float32)
