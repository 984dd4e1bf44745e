"""Convolutions of `channels_first` models, computed channels-last inside.

TensorFlow on a CPU convolves channels-first images only in builds with oneDNN; elsewhere it stops with an
error. The layers below take and give channels-first tensors as before and transpose around the convolution
alone.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class _Convolution:
    """Mixed into a convolution of Keras whose `data_format` is "channels_first"."""

    def call(self: Any, inputs: Any) -> Any:
        """Convolve.

        Args:
            inputs: (B, C, ...).
        """
        if self.padding == "causal":
            inputs = ops.pad(inputs, [[0, 0], [0, 0], [self.dilation_rate[0] * (self.kernel_size[0] - 1), 0]])
        outputs = _channels_last(inputs)
        outputs = self._convolve(outputs)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        outputs = _channels_first(outputs)
        return outputs if self.activation is None else self.activation(outputs)

    def _convolve(self: Any, inputs: Any) -> Any:
        return ops.conv(
            inputs,
            self.kernel,
            strides=list(self.strides),
            padding="valid" if self.padding == "causal" else self.padding,
            dilation_rate=self.dilation_rate,
            data_format="channels_last",
        )


class _TransposedConvolution(_Convolution):
    """The same for Keras's transposed convolutions."""

    def _convolve(self: Any, inputs: Any) -> Any:
        return ops.conv_transpose(
            inputs,
            self.kernel,
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format="channels_last",
        )


def channels_first_class(layer_class: type) -> type:
    """The class to construct in place of one of Keras's for a channels-first layer; often the same."""
    return _CLASSES.get(layer_class, layer_class)


def _channels_last(x: Any) -> Any:
    rank = len(x.shape)
    return ops.transpose(x, [0, *range(2, rank), 1])


def _channels_first(x: Any) -> Any:
    rank = len(x.shape)
    return ops.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def _mixed(mixin: type, *names: str) -> dict[type, type]:
    classes = [getattr(keras.layers, name) for name in names]
    return {cls: type(cls.__name__, (mixin, cls), {"__doc__": cls.__doc__}) for cls in classes}


_CLASSES = {
    **_mixed(_Convolution, "Conv1D", "Conv2D", "Conv3D"),
    **_mixed(_TransposedConvolution, "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
}
