"""An expression -> a Keras layer that computes it with `keras.ops`, in place of the file's Lambda."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from layerprobe.errors import LayerprobeError, ModelError, ResourceError
from layerprobe.loading.reasons import first_line
from layerprobe.modelfile.expressions import Expression, evaluate

MAX_NUMBERS = 1 << 31
"""In one row of a value within an expression; 8 GiB in float32."""


class ExpressionLayer(keras.layers.Layer):  # type: ignore[misc]
    """Computes an expression; has no weights, and like Keras's Lambda passes no mask on."""

    def __init__(self, expression: Expression, **options: Any) -> None:
        super().__init__(**options)
        self.expression = expression
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Compute the expression.

        Args:
            inputs: One (B, ...) tensor, or a list of them.

        Raises:
            ModelError: The expression does not fit the shapes or types of the inputs.
            ResourceError: A value within it has more than `MAX_NUMBERS` numbers per row.
        """
        x = tuple(inputs) if isinstance(inputs, list | tuple) else inputs
        try:
            result = evaluate(self.expression, x, _OPERATIONS)
        except (LayerprobeError, MemoryError):
            raise
        except Exception as error:  # Backends have no class of their own for shapes or types that do not fit.
            raise ModelError(
                f"the expression {str(self.expression)[:200]!r} of layer {self.name!r} does not fit its "
                f"input ({first_line(error)}): give another one with --lambda {self.name}='...'."
            ) from error
        return list(result) if isinstance(result, tuple) else result

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """No mask goes on, as with a Lambda that has none."""
        return None


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a result that is too large before it is computed: shapes are known while the model is built."""

    def checked(*arguments: Any) -> Any:
        result = function(*arguments)
        shape = getattr(result, "shape", None) or ()
        numbers = math.prod(size for size in shape if isinstance(size, int))
        if numbers > MAX_NUMBERS:
            raise ResourceError(
                f"the operation {name} of a Lambda layer would need {4 * numbers / 2**30:.0f} GiB per image: "
                f"give a smaller expression with --lambda."
            )
        return result

    return checked


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A tuple of numbers becomes a tensor of the other operand's type."""

    def apply(x1: Any, x2: Any) -> Any:
        if isinstance(x1, tuple):
            x1 = ops.convert_to_tensor(x1, getattr(x2, "dtype", None))
        if isinstance(x2, tuple):
            x2 = ops.convert_to_tensor(x2, getattr(x1, "dtype", None))
        return function(x1, x2)

    return apply


def _constant(value: Any, dtype: str | None) -> Any:
    """Numbers without a type take that of the tensor they meet."""
    return value if dtype is None else ops.convert_to_tensor(value, dtype)


def _matmul(x1: Any, x2: Any, transpose_x1: bool, transpose_x2: bool) -> Any:
    x1 = ops.swapaxes(x1, -1, -2) if transpose_x1 else x1
    x2 = ops.swapaxes(x2, -1, -2) if transpose_x2 else x2
    return ops.matmul(x1, x2)


def _relu(x: Any, negative_slope: float, max_value: float | None, threshold: float) -> Any:
    if negative_slope == 0 and max_value is None and threshold == 0:
        return ops.relu(x)
    result = ops.where(x >= threshold, x, negative_slope * (x - threshold))
    return result if max_value is None else ops.minimum(result, max_value)


def _l2_normalize(x: Any, axis: Any, epsilon: float) -> Any:
    """tf.nn.l2_normalize: the epsilon bounds the squared norm."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis, keepdims=True), epsilon))


def _batch_dot(x1: Any, x2: Any, axes: Any) -> Any:
    if axes is None:
        axes = (len(x1.shape) - 1, max(len(x2.shape) - 2, 1))
    return keras.layers.Dot(axes=axes)([x1, x2])


def _pad(x: Any, pad_width: Any, mode: str, constant_values: float) -> Any:
    return ops.pad(x, pad_width, mode, constant_values if mode == "constant" else None)


def _flatten(x: Any) -> Any:
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def _resize(x: Any, size: tuple[int, int], interpolation: str, half_pixel_centers: bool) -> Any:
    if half_pixel_centers:
        return ops.image.resize(x, size, interpolation, data_format="channels_last")
    for axis, length in zip((-3, -2), size, strict=True):
        x = _resize_axis(x, axis, length, interpolation)
    return x


def _resize_axis(x: Any, axis: int, length: int, interpolation: str) -> Any:
    """TensorFlow 1: output i lies at input i * scale, without the half pixel of TensorFlow 2."""
    size = x.shape[axis]
    places = [i * size / length for i in range(length)]
    below = [min(int(place), size - 1) for place in places]
    low = ops.take(x, below, axis)
    if interpolation == "nearest":
        return low
    shape = [length if dimension == len(x.shape) + axis else 1 for dimension in range(len(x.shape))]
    share = ops.reshape(
        ops.convert_to_tensor([place - b for place, b in zip(places, below, strict=True)], x.dtype), shape
    )
    high = ops.take(x, [min(b + 1, size - 1) for b in below], axis)
    return low + (high - low) * share


def _depth_to_space(x: Any, block_size: int) -> Any:
    height, width, channels = x.shape[1:]
    depth = channels // block_size**2
    x = ops.reshape(x, (-1, height, width, block_size, block_size, depth))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, height * block_size, width * block_size, depth))


def _space_to_depth(x: Any, block_size: int) -> Any:
    height, width, channels = x.shape[1:]
    rows, columns = height // block_size, width // block_size
    x = ops.reshape(x, (-1, rows, block_size, columns, block_size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, rows, columns, channels * block_size**2))


def _filled(function: Callable[..., Any]) -> Callable[[Any, str | None], Any]:
    return lambda x, dtype: function(x, dtype=dtype)


_SAME = (
    "logical_and logical_or logical_not abs sign square sqrt rsqrt exp log log1p round floor ceil sin cos "
    "tan tanh arctan sigmoid softplus softsign relu6 elu selu silu gelu leaky_relu hard_sigmoid softmax "
    "log_softmax clip where cast sum mean max min prod var std any all logsumexp argmax argmin cumsum shape "
    "transpose expand_dims squeeze concatenate stack tile repeat flip take dot reshape negative one_hot"
)
"""Operations of `keras.ops` that take the same arguments in the same order."""
_BINARY = (
    "add subtract multiply divide floor_divide mod power less less_equal greater greater_equal equal "
    "not_equal maximum minimum divide_no_nan"
)

_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    name: _bounded(name, function)
    for name, function in {
        **{name: getattr(ops, name) for name in _SAME.split()},
        **{name: _binary(getattr(ops, name)) for name in _BINARY.split()},
        "batch_dot": _batch_dot,
        "constant": _constant,
        "depth_to_space": _depth_to_space,
        "dtype": lambda x: keras.backend.standardize_dtype(x.dtype),
        "einsum": lambda subscripts, operands: ops.einsum(subscripts, *operands),
        "flatten": _flatten,
        "index": lambda value, key: value[key],
        "l2_normalize": _l2_normalize,
        "matmul": _matmul,
        "ndim": lambda x: len(x.shape),
        "ones_like": _filled(ops.ones_like),
        "pad": _pad,
        "relu": _relu,
        "resize": _resize,
        "space_to_depth": _space_to_depth,
        "split": lambda x, sections, axis: tuple(ops.split(x, sections, axis)),
        "unstack": lambda x, num, axis: tuple(ops.unstack(x, num, axis)),
        "zeros_like": _filled(ops.zeros_like),
    }.items()
}
