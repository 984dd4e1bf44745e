"""What the caller gives, as tensors of the inputs' dtypes; what comes back, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from layerprobe.backend_function.graph import Tensor, describe
from layerprobe.errors import UsageError
from layerprobe.loading.reasons import first_line


def signature(tensor: Tensor) -> tf.TypeSpec:
    """The type of the values that stand for a symbolic tensor: one for every batch size that it allows.

    Raises:
        UsageError: The tensor is ragged.
    """
    if getattr(tensor, "ragged", False):
        raise UsageError(f"{describe(tensor)} is ragged: `inputs` can only hold dense and sparse tensors.")
    spec = tf.SparseTensorSpec if tensor.sparse else tf.TensorSpec
    return spec(tensor.shape, tf.as_dtype(tensor.dtype))


def to_tensor(value: Any, tensor: Tensor) -> tf.Tensor | tf.SparseTensor:
    """Convert what the caller gives for a symbolic tensor.

    Args:
        value: Anything NumPy can convert, a SciPy sparse matrix or a `tf.SparseTensor`, of its shape.
        tensor: Gives the shape, the dtype, and whether the result is sparse.

    Raises:
        UsageError: The values are not numbers (or text, for a tensor of strings), or have another shape.
    """
    dtype = tf.as_dtype(tensor.dtype)
    if hasattr(value, "tocoo"):
        value = _from_scipy(value)
    if not isinstance(value, tf.SparseTensor):
        dense = tf.convert_to_tensor(_to_array(value, tensor, dtype), dtype)
        return tf.sparse.from_dense(dense) if tensor.sparse else dense
    _check_shape(tuple(value.shape), tensor)
    value = tf.sparse.reorder(tf.cast(value, dtype))
    return value if tensor.sparse else tf.sparse.to_dense(value)


def to_dense(value: Any) -> Any:
    """A sparse tensor as a dense one, which an array can hold; others as they are."""
    return tf.sparse.to_dense(tf.sparse.reorder(value)) if isinstance(value, tf.SparseTensor) else value


def _from_scipy(matrix: Any) -> tf.SparseTensor:
    entries = matrix.tocoo(copy=True)
    entries.sum_duplicates()
    indices = np.stack([entries.row, entries.col], axis=1).astype(np.int64)
    return tf.SparseTensor(indices, entries.data, entries.shape)


def _to_array(value: Any, tensor: Tensor, dtype: tf.DType) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise _wrong(tensor, f"a {type(value).__name__} that is no array ({first_line(error)})") from error
    kind = array.dtype.kind
    if dtype == tf.string:
        fits = kind in "OSU"
    else:  # NumPy sees bfloat16 and its kin as void
        fits = (
            kind in "biuf"
            or (kind == "c" and dtype.is_complex)
            or (kind == "V" and array.dtype.names is None)
        )
    if not fits:
        raise _wrong(tensor, f"{type(value).__name__} of {array.dtype}")
    _check_shape(array.shape, tensor)
    return array if dtype == tf.string else array.astype(dtype.as_numpy_dtype, copy=False)


def _check_shape(shape: tuple[int, ...], tensor: Tensor) -> None:
    if len(shape) != len(tensor.shape) or any(
        wanted not in (None, size) for size, wanted in zip(shape, tensor.shape, strict=True)
    ):
        hint = (
            ", which lacks the batch axis: give `value[None]`" if len(shape) + 1 == len(tensor.shape) else ""
        )
        raise _wrong(tensor, f"shape {shape}{hint}")


def _wrong(tensor: Tensor, received: str) -> UsageError:
    shape = tuple(tensor.shape)
    return UsageError(
        f"{describe(tensor)} takes {tensor.dtype} values of shape {shape}. Received: {received}."
    )
