"""Gradients of a model's values with respect to what its layers give, traced once by TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from layerprobe.engines.gradient_tensors import GradientTensors
from layerprobe.engines.keras_tensorflow import (
    refuse,
    refuse_oversized,
    told_at_run,
    told_at_trace,
)
from layerprobe.engines.tracing import channel_axis, fixed_batch_size, padded, recorded
from layerprobe.errors import UsageError
from layerprobe.options import INFERENCE
from layerprobe.records import Tap, TensorSpec
from layerprobe.taps import find_layers, variables_unchanged

if TYPE_CHECKING:
    from layerprobe.records import Array


class TensorFlowGradients:
    """Differentiates what some taps record with respect to what others do.

    Args:
        model: A built Keras model; its `call` is wrapped while tracing and left as it was.
        outputs: What is differentiated.
        layers: With respect to what.
        inputs: One spec per input of the model, in the model's order, with every size known.
        before_activation: Take what went into the softmax or sigmoid that an output comes from, where Keras
            knows that it comes from one.
        max_memory: Bytes that one tensor of one row may have.

    Raises:
        ResourceError: A tensor is larger than that.
        UnrecordableLayerError: A tap's values live inside a loop or have no batch axis.
        UsageError: The inputs do not fit the model, or no output depends on a layer. Where only some do, the
            others' gradients are 0.
    """

    def __init__(
        self,
        model: keras.Model,
        outputs: Sequence[Tap],
        layers: Sequence[Tap],
        inputs: Sequence[TensorSpec],
        *,
        before_activation: bool,
        max_memory: int,
    ) -> None:
        self._model, self._outputs, self._taps = model, outputs, layers
        self._before_activation = before_activation
        self._size = fixed_batch_size(model)
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        """Of one row of each output, by name, in the order of the taps; None where only a call can tell."""
        self.layers: tuple[TensorSpec, ...] = ()
        """What the layers give."""
        specs = [tf.TensorSpec((self._size, *spec.shape), spec.dtype) for spec in inputs]
        with told_at_trace(inputs):
            self._values = tf.function(self._recorded, autograph=False).get_concrete_function(*specs)
            seeds = [tf.TensorSpec((self._size, None), "float32")] * len(self.shapes)
            self._gradients = tf.function(self._differentiated, autograph=False).get_concrete_function(
                tuple(specs), tuple(seeds)
            )
        refuse_oversized(self._gradients, max_memory)

    def values(self, inputs: Sequence[Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give (B, ...) values of the outputs by name, as differentiated and as the taps record them."""
        rows = len(inputs[0])
        with told_at_run(rows):
            results = self._values(*self._fed(inputs))
            arrays = [np.asarray(tensor)[:rows] for tensor in results]
        count = len(self.shapes)
        return (
            dict(zip(self.shapes, arrays[:count], strict=True)),
            dict(zip(self.shapes, arrays[count:], strict=True)),
        )

    def __call__(self, inputs: Sequence[Array], seeds: Sequence[Array]) -> GradientTensors:
        """Compute values and gradients.

        Args:
            inputs: One (B, ...) array per input of the model, in the model's order.
            seeds: For each output (B, n) float32, what each of its n values of a row counts.
        """
        rows = len(inputs[0])
        with told_at_run(rows):
            results = self._gradients(
                *self._fed(inputs), *(tf.constant(padded(seed, self._size)) for seed in seeds)
            )
            arrays = [np.asarray(tensor)[:rows] for tensor in results]
        found = iter(arrays)
        outputs = {name: next(found) for name in self.shapes}
        layers = {spec.name: next(found) for spec in self.layers}
        gradients = {output: {layer: next(found) for layer in layers} for output in outputs}
        return GradientTensors(outputs, layers, gradients)

    def _fed(self, inputs: Sequence[Array]) -> list[tf.Tensor]:
        return [tf.constant(padded(array, self._size)) for array in inputs]

    def _recorded(self, *values: tf.Tensor) -> list[tf.Tensor]:
        """What is differentiated, and the same as the taps record it."""
        outputs, _, plain = self._call(values)
        return [*outputs.values(), *plain]

    def _differentiated(self, values: tuple[tf.Tensor, ...], seeds: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        outputs, layers, _ = self._call(values)
        found = [
            tf.gradients(
                output,
                list(layers.values()),
                grad_ys=tf.cast(tf.reshape(seed, tf.shape(output)), output.dtype),
            )
            for seed, output in zip(seeds, outputs.values(), strict=True)
        ]
        for name, of_layer in zip(layers, zip(*found, strict=True), strict=True):
            if all(gradient is None for gradient in of_layer):
                raise UsageError(
                    f"{', '.join(map(repr, outputs))} has no gradient with respect to {name!r}: it is not "
                    "computed from it by operations that can be differentiated; name a layer before it."
                )
        gradients = [
            tf.zeros_like(layer) if gradient is None else tf.convert_to_tensor(gradient)
            for of_output in found
            for layer, gradient in zip(layers.values(), of_output, strict=True)
        ]
        return [*outputs.values(), *layers.values(), *gradients]

    def _call(
        self, values: Sequence[tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], list[tf.Tensor]]:
        """The outputs and layers by name, and the outputs as their taps record them."""
        with variables_unchanged([self._model]):
            _, tensors = recorded(self._model, [*self._outputs, *self._taps], values, INFERENCE, refuse)
        plain = {tap.name: tensor for tap, tensor in tensors.items() if _is_meant(tap, self._outputs)}
        layers = {tap.name: tensor for tap, tensor in tensors.items() if _is_meant(tap, self._taps)}
        outputs = {
            name: getattr(tensor, "_keras_logits", tensor) if self._before_activation else tensor
            for name, tensor in plain.items()
        }
        self.shapes = {name: tuple(tensor.shape[1:]) for name, tensor in outputs.items()}
        known = find_layers(self._model)
        self.layers = tuple(
            _described(tap, tensor, known.get(tap.address))
            for tap, tensor in tensors.items()
            if tap.name in layers
        )
        return outputs, layers, list(plain.values())


def _described(tap: Tap, tensor: tf.Tensor, layer: keras.Operation | None) -> TensorSpec:
    shape = tuple(tensor.shape[1:])
    return TensorSpec(tap.name, shape, tensor.dtype.name, channel_axis(layer, shape), tap.address)


def _is_meant(tap: Tap, wanted: Sequence[Tap]) -> bool:
    """Whether one tensor's tap is among those that were asked for, which may mean several."""
    return any(
        (tap.address, tap.kind) == (one.address, one.kind)
        and one.call in (None, tap.call)
        and one.output in (None, tap.output)
        for one in wanted
    )
