"""Rows that are read as they are sliced: what a reader gives where an array cannot be mapped into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from layerprobe.records import Array


class LazyRows(ABC):
    """An (N, ...) array of which only what is sliced is read, as NumPy indexes.

    A subclass has `_rows`. Every slice is an array of the caller's own.

    Args:
        shape: (N, ...)
        dtype: Of the values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype

    @abstractmethod
    def _rows(self, rows: range | Array) -> Array:
        """Read rows by their numbers, in any order and as often as they are there."""

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Of all values."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Read as NumPy indexes: a row, a slice, rows by their numbers or by truth values, and then more."""
        first, *others = index if isinstance(index, tuple) else (index,)
        if first is Ellipsis or first is None:
            return np.asarray(self)[index]
        if isinstance(first, int | np.integer):
            row = range(len(self))[first]
            return self._rows(range(row, row + 1))[(0, *others)]
        if isinstance(first, slice):
            return self._rows(range(len(self))[first])[(slice(None), *others)]
        return self._rows(np.arange(len(self))[first])[(slice(None), *others)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read everything."""
        values: Array = self[:]
        return values.astype(self.dtype if dtype is None else dtype, copy=bool(copy))

    def __iter__(self) -> Iterator[Array]:
        return (self[row] for row in range(len(self)))
