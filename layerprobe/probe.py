"""`Probe`: the layers of a model as a function of a batch, for use from Python."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from layerprobe.engines.cache import user_cache
from layerprobe.errors import ResourceError, UsageError
from layerprobe.options import MAX_MEMORY, Computing, ModelOptions
from layerprobe.records import TensorSpec
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.row_shapes import check_row_shape

if TYPE_CHECKING:
    import keras
    import numpy.typing as npt

    from layerprobe.protocols import Engine
    from layerprobe.records import Array


LARGEST_BATCH = 32
"""More rows are computed one batch after the other."""

KEPT_ENGINES = 16
"""How many shapes and sizes of batches a model stays compiled for; each holds the weights that it needs."""


class Probe:
    """Computes the activations of some layers; loads once, and compiles at the first batch of each shape.

    Threads may share one: their batches are computed one after the other, each on all of the processor.

    ::

        probe = Probe("model.h5", ["conv5_3", "output"])
        activations = probe(batch)           # {"conv5_3": (B, H, W, C), "output": (B, classes)}

    Args:
        model: Path of a saved model, or a Keras model.
        layers: Addresses and patterns; see `modelfile/select.py`.
        engine: "graph", which needs no TensorFlow; "converted"; "keras"; or "auto": the first of these that
            computes what Keras would.
        device: "auto" (a GPU that Keras has, else the processor), "cpu", "gpu" or "gpu:N".
        cache: Whether what was converted is kept for later runs, and taken from there.
        precision: What the model computes in: "float32", or "bfloat16", faster where the processor has it.
        training: Dropout and batch normalisation as in training.
        seed: Of every random layer, with `training`; drawn when None.
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.

    Raises:
        UnknownLayerError: The model has no such layer.
        ModelError: The file is refused.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | keras.Model,
        layers: Sequence[str],
        *,
        engine: str = "auto",
        device: str = "auto",
        cache: bool = True,
        precision: Literal["float32", "bfloat16"] = "float32",
        training: bool = False,
        seed: int | None = None,
        custom_objects: Mapping[str, Any] | None = None,
        weights: str | None = None,
        lambdas: Mapping[str, str] | None = None,
        max_memory: int = MAX_MEMORY,
    ) -> None:
        options = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
        if precision not in ("float32", "bfloat16"):
            raise UsageError(f"precision must be float32 or bfloat16. Received: {precision!r}")
        self._probed = ProbedModel(model, layers, options, engine, device, user_cache() if cache else None)
        self._how = Computing(training, seed, precision)
        self._engines: dict[tuple[int | tuple[int, ...] | None, ...], Engine] = {}
        # An engine has one place for the batch that it computes, and for what comes of it.
        self._turn = threading.Lock()

    def __call__(
        self, batch: npt.ArrayLike | Sequence[npt.ArrayLike] | Mapping[str, npt.ArrayLike]
    ) -> dict[str, Array]:
        """Compute the activations of one batch.

        Args:
            batch: (B, ...) values as the model takes them; nothing is preprocessed. For a model of several
                inputs a list of such in the model's order, or a dict by input name.

        Returns:
            (B, ...) arrays by name, in the order of the layers.

        Raises:
            UsageError: The number of inputs, their shapes or their lengths do not fit.
            ResourceError: There is not enough memory for so many rows.
        """
        with self._turn:
            return self._compute(arrays_of_batch(self._probed.inputs, batch))

    def _compute(self, arrays: Sequence[Array]) -> dict[str, Array]:
        engine, rows = self._engine(arrays), len(arrays[0])
        step = rows if self._how.training else engine.batch_size
        try:
            parts = [
                engine.run([array[start : start + step] for array in arrays])
                for start in range(0, rows, step)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        except MemoryError as error:
            raise ResourceError(f"not enough memory for {rows} rows: give fewer at once.") from error

    def _engine(self, arrays: Sequence[Array]) -> Engine:
        """The engine for rows of these shapes, and for so many of them or for the largest batch."""
        size = self._probed.fixed_batch_size
        if size is None and not self._how.training:
            # Of a few sizes only, for each takes a compilation; never of any size: there OpenVINO computes
            # some sums of convolutions wrong.
            size = min(1 << (len(arrays[0]) - 1).bit_length(), LARGEST_BATCH)
        key = (size, *(array.shape[1:] for array in arrays))
        if key not in self._engines:
            if len(self._engines) >= KEPT_ENGINES:
                del self._engines[next(iter(self._engines))]
            specs = [
                TensorSpec(spec.name, array.shape[1:], spec.dtype)
                for spec, array in zip(self._specs(arrays), arrays, strict=True)
            ]
            self._engines[key] = self._probed.engine(specs, batch_size=size, how=self._how)
        return self._engines[key]

    def _specs(self, arrays: Sequence[Array]) -> Sequence[TensorSpec]:
        known = self._probed.inputs
        return known or [TensorSpec(f"input{i}", (), "float32") for i in range(len(arrays))]


def arrays_of_batch(specs: Sequence[TensorSpec], batch: Any) -> list[Array]:
    """The inputs of a model in its order.

    Args:
        specs: The model's inputs; none where only a call can tell them.
        batch: As `Probe` takes it.

    Raises:
        UsageError: The number of inputs, their types or their lengths do not fit.
    """
    names = [spec.name for spec in specs]
    if isinstance(batch, Mapping):
        if set(batch) != set(names):
            raise UsageError(
                f"the model's inputs are {', '.join(names)}. Received: {', '.join(map(str, batch))}"
            )
        batch = [batch[name] for name in names]
    elif len(specs) < 2 and not (isinstance(batch, list | tuple) and not specs):
        batch = [batch]
    if specs and len(batch) != len(specs):
        raise UsageError(
            f"the model has {len(specs)} inputs, {', '.join(names)}. Received: {len(batch)} arrays"
        )
    for values in map(np.asarray, batch):
        if values.dtype.kind not in "biuf":
            raise UsageError(f"a batch holds real numbers. Received: an array of {values.dtype}")
    dtypes = [spec.dtype for spec in specs] or ["float32"] * len(batch)
    arrays = [
        np.asarray(values).astype(dtype, copy=False) for values, dtype in zip(batch, dtypes, strict=True)
    ]
    if len({array.shape[:1] for array in arrays}) != 1 or arrays[0].ndim == 0 or len(arrays[0]) == 0:
        raise UsageError(
            f"a batch needs at least one row, and as many for every input. "
            f"Received: {', '.join(str(array.shape) for array in arrays)}"
        )
    for spec, array in zip(specs, arrays, strict=False):  # Without specs only a call tells what fits.
        check_row_shape(spec, array.shape[1:])
    return arrays
