"""Whether the rows of an array are what an input of the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from layerprobe.records import TensorSpec


def check_row_shape(spec: TensorSpec, shape: Sequence[int]) -> None:
    """Check that rows of this shape fit an input, whose free sizes take any.

    Raises:
        UsageError: They do not.
    """
    fits = len(shape) == len(spec.shape) and all(
        wanted in (None, size) for size, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"input {spec.name!r} takes arrays of shape {_readable(('N', *spec.shape))}: reshape it. "
            f"Received: {_readable(('N', *shape))}"
        )


def _readable(shape: Sequence[object]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
