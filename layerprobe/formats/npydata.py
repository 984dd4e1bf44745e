"""The bytes of `.npy` data, as `numpy.save` writes them, for arrays that are never in memory as a whole."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from math import prod
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

_TEXT_BYTES = 1 << 18
"""Texts are converted about this many bytes at a time: NumPy pads each to the length of the longest."""


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Write what stands before an array in C order; a multiple of 64 bytes."""
    header = io.BytesIO()
    description = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(header, description)
    return header.getvalue()


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and dtype; the file then stands at the array.

    Raises:
        ValueError: It is no `.npy` data, or the array is not in C order.
    """
    npy_format.read_magic(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of names of types that only a damaged file has.
        shape, columns_first, dtype = npy_format.read_array_header_1_0(file)
    if columns_first and len(shape) > 1:
        raise ValueError("an array is in Fortran order")
    return shape, dtype


def text_dtype(texts: Sequence[str]) -> np.dtype[Any]:
    """Find NumPy's dtype for the longest of these texts."""
    return np.dtype(f"<U{max(map(len, texts), default=0) or 1}")


def text_blocks(texts: Sequence[str], dtype: np.dtype[Any]) -> Iterator[bytes]:
    """Write texts in NumPy's form, a part at a time."""
    rows = max(1, _TEXT_BYTES // dtype.itemsize)
    for start in range(0, len(texts), rows):
        yield np.array(texts[start : start + rows], dtype).tobytes()


def read_texts(file: IO[bytes]) -> list[str]:
    """Read `.npy` data that holds texts, a part at a time.

    Raises:
        ValueError: It holds something else, or ends early.
    """
    shape, dtype = read_npy_header(file)
    if dtype.kind != "U" or not dtype.itemsize:
        raise ValueError(f"texts were expected, {dtype} came")
    texts: list[str] = []
    rows = max(1, _TEXT_BYTES // dtype.itemsize)
    for start in range(0, prod(shape), rows):
        part = file.read(min(rows, prod(shape) - start) * dtype.itemsize)
        texts += np.frombuffer(part, dtype).tolist()
    if len(texts) != prod(shape):
        raise ValueError("texts are missing")
    return texts
