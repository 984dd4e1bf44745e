"""What is kept of each layer's activations: (B, ...) -> (B, ...); the table is in `registry.REDUCTIONS`.

Each takes one batch, the axis of the channels within one row (-1, or 0 for `channels_first` layers), and the
functions that compute: NumPy's on the host, or a framework's, so that an engine can reduce before it copies.
`finished` is all that is done with a batch before it is stored, on either side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from layerprobe import registry
from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from layerprobe.options import Finish
    from layerprobe.records import Array


class Functions(Protocol):
    """What reductions need of a framework, for its own arrays or tensors; `HOST` is NumPy's."""

    def dtype(self, x: Any) -> str:
        """NumPy's name of the type of x."""
        ...

    def shape(self, x: Any) -> tuple[Any, ...]:
        """All sizes of x, as numbers where they are known."""
        ...

    def cast(self, x: Any, dtype: str) -> Any:
        """The same values in another type; too large ones become infinite."""
        ...

    def reshape(self, x: Any, shape: tuple[Any, ...]) -> Any:
        """The same values in C order."""
        ...

    def mean(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Average to a relative error of 1e-6: float32 for integers and booleans, else of the same type."""
        ...

    def max(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Largest value; NaN where there is one."""
        ...

    def infinities(self, x: Any) -> Any:
        """(B,) how many values of each row of (B, ...) floats are infinite."""
        ...


class NumPyFunctions:
    """`Functions` on the host."""

    @staticmethod
    def shape(x: Array) -> tuple[int, ...]:
        """See `Functions`."""
        return x.shape

    @staticmethod
    def reshape(x: Array, shape: tuple[int, ...]) -> Array:
        """See `Functions`."""
        return x.reshape(shape)

    @staticmethod
    def max(x: Array, axes: tuple[int, ...]) -> Array:
        """See `Functions`."""
        largest: Array = x.max(axes)
        return largest

    @staticmethod
    def dtype(x: Array) -> str:
        """See `Functions`."""
        return str(x.dtype)

    @staticmethod
    def cast(x: Array, dtype: str) -> Array:
        """See `Functions`."""
        with np.errstate(over="ignore"):
            return x.astype(dtype, copy=False)

    @staticmethod
    def mean(x: Array, axes: tuple[int, ...]) -> Array:
        """See `Functions`: sums in float64 are no slower, and leave 1e-7 for float32."""
        dtype = np.dtype(np.float32) if x.dtype.kind in "biu" else x.dtype
        mean: Array = x.mean(axes, dtype=np.promote_types(x.dtype, np.float64))
        return mean.astype(dtype)

    @staticmethod
    def infinities(x: Array) -> Array:
        """See `Functions`."""
        # Of float16, whose functions NumPy has no vector instructions for: all ones in the exponent alone.
        found = (x.view(np.uint16) & 0x7FFF) == 0x7C00 if x.dtype == np.float16 else np.isinf(x)
        counts: Array = np.count_nonzero(found, axis=tuple(range(1, x.ndim)))
        return counts


HOST = NumPyFunctions()


def finished(values: Any, channel_axis: int, how: Finish, on: Functions = HOST) -> tuple[Any, Any]:
    """Reduce and cast one layer's activations.

    Args:
        values: (B, ...), any dtype.
        channel_axis: Of one row, -1 or 0.
        how: Which reduction, and the type that floats are stored in.
        on: What computes.

    Returns:
        What is stored, (B, ...); and (B,) how many values of each row the cast made infinite, None where it
        cannot.
    """
    reduced = registry.find(registry.REDUCTIONS, how.pool, "reduction")(values, channel_axis, on)
    dtype = stored_dtype(on.dtype(reduced), how.dtype)
    if dtype == on.dtype(reduced):
        return reduced, None
    stored = on.cast(reduced, dtype)
    return stored, on.infinities(stored) - on.infinities(reduced) if dtype == "float16" else None


def stored_dtype(dtype: str, asked: str | None) -> str:
    """What values of one type are stored as: floats as asked for, all others as they are."""
    return asked if asked is not None and "float" in dtype else dtype


def keep(activations: Any, channel_axis: int, on: Functions = HOST) -> Any:
    """Keep everything.

    Args:
        activations: (B, ...), any dtype.
        channel_axis: Does not matter here.
        on: What computes.

    Returns:
        The same values, shape and dtype.
    """
    return activations


def flatten(activations: Any, channel_axis: int, on: Functions = HOST) -> Any:
    """Make a vector of each row, in C order, as `keras.layers.Flatten` does for `channels_last`.

    Args:
        activations: (B, ...), any dtype.
        channel_axis: Does not matter here: the order of the values stays what it is.
        on: What computes.

    Returns:
        (B, n), n the number of values in a row; same dtype.
    """
    rows, *sizes = on.shape(activations)
    return on.reshape(activations, (rows, math.prod(sizes)))


def global_average(activations: Any, channel_axis: int, on: Functions = HOST) -> Any:
    """Average over all positions, as `keras.layers.GlobalAveragePooling2D` does.

    Args:
        activations: (B, ..., C), or (B, C, ...) where `channel_axis` is 0. Where there are no positions, as
            in (B, C), nothing is averaged.
        channel_axis: Of one row, -1 or 0.
        on: What computes.

    Returns:
        (B, C); dtype float32 for integers and booleans, else the same.

    Raises:
        UsageError: An axis of positions has length zero.
    """
    axes = _positions(activations, channel_axis, on)
    return on.mean(activations, axes) if axes else activations


def global_maximum(activations: Any, channel_axis: int, on: Functions = HOST) -> Any:
    """Take the largest value over all positions, as `keras.layers.GlobalMaxPooling2D` does.

    Args:
        activations: As for `global_average`.
        channel_axis: Of one row, -1 or 0.
        on: What computes.

    Returns:
        (B, C), same dtype; NaN where a position holds NaN.

    Raises:
        UsageError: An axis of positions has length zero.
    """
    axes = _positions(activations, channel_axis, on)
    return on.max(activations, axes) if axes else activations


def _positions(activations: Any, channel_axis: int, on: Functions) -> tuple[int, ...]:
    """The axes that are neither the batch nor the channels; none where there are only those."""
    shape = on.shape(activations)
    if len(shape) < 3:
        return ()
    channels = 1 if channel_axis == 0 else len(shape) - 1
    axes = tuple(axis for axis in range(1, len(shape)) if axis != channels)
    if any(isinstance(shape[axis], int) and shape[axis] == 0 for axis in axes):
        raise UsageError(
            f"activations of shape {shape[1:]} have no positions to pool over: use pool none or flatten."
        )
    return axes
