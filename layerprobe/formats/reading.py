"""Outputs opened lazily: layers are mapped into memory, so that only what is used is read from disk."""

from __future__ import annotations

import json
import mmap
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import prod
from tokenize import TokenError
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from layerprobe.errors import OutputFormatError, UnknownLayerError, UsageError
from layerprobe.formats.ranged import array_in
from layerprobe.formats.schema import is_intact, load_record
from layerprobe.stores.urls import shown

if TYPE_CHECKING:
    from layerprobe.records import Array

_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, OverflowError),
    *(SyntaxError, SystemError, TokenError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What NumPy, h5py and zipfile raise for files that are not what they should be."""


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """Where a file holds an array, in C order and not compressed."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Of its first byte."""


class OutputReader(ABC):
    """What the readers of all formats share; see `protocols.Reader`.

    A subclass finds the record, then the place of each layer's array, and reads the texts.

    Args:
        path: Of the output.
        record: Its JSON text.

    Raises:
        OutputFormatError: The record is not one of layerprobe's.
    """

    def __init__(self, path: str, record: str | bytes) -> None:
        self.path = shown(path)
        self._stored, self.provenance = load_record(record, self.path)
        self.provenance.pop("crc32", None)
        self.checksums: dict[str, Any] | None = self.provenance.pop("checksums", None)
        self.intact = is_intact(record)
        self.compression: str | None = None
        self.stored_bytes = 0
        self._places: dict[str, ArrayPlace] = {}
        self._closed = False

    def _locate(self, rows: int) -> None:
        """Find every layer's array, each of `rows` rows."""
        for layer, stored in self._stored.items():
            place = self._places[layer] = self._place(stored)
            if place.shape[:1] != (rows,) or place.dtype.hasobject:
                raise ValueError(
                    f"layer {layer!r} is {place.dtype} of {place.shape}, with {rows} rows in all"
                )

    @abstractmethod
    def _place(self, stored: str) -> ArrayPlace:
        """Find an array by the name that it has in the file."""

    @abstractmethod
    def _map(self, stored: str, place: ArrayPlace) -> Array:
        """Give such an array, of which only what is used is read."""

    @abstractmethod
    def _texts(self, column: str) -> list[str]:
        """Read paths, status, error or fields."""

    @abstractmethod
    def faults(self) -> Iterator[str]:
        """Say what of the file is not as this version writes it, beside what checksums tell."""

    @cached_property
    def paths(self) -> list[str]:
        """The N keys, in row order, as they were given."""
        return self._column("paths")

    @cached_property
    def status(self) -> list[str]:
        """ "ok" or "failed" for each of the N rows."""
        return self._column("status")

    @cached_property
    def error(self) -> list[str]:
        """The reason for each failed row, "" for the others."""
        return self._column("error")

    @cached_property
    def fields(self) -> list[dict[str, Any]] | None:
        """What the list of inputs said of each row beside its path; None: nothing of any."""
        texts = self.fields_texts
        with reporting_damage(self.path):
            return None if texts is None else [dict(json.loads(text)) if text else {} for text in texts]

    @cached_property
    def fields_texts(self) -> list[str] | None:
        """The same as JSON texts, "" where nothing was said."""
        self._check_open()
        with reporting_damage(self.path):
            try:
                return self._texts("fields")
            except (KeyError, FileNotFoundError):
                return None

    def _column(self, name: str) -> list[str]:
        self._check_open()
        with reporting_damage(self.path):
            return self._texts(name)

    def __getitem__(self, layer: str) -> Array:
        """Give a layer's (N, ...) array, read-only; what is not used of it is not read.

        Raises:
            UnknownLayerError: The output has no such layer.
            OutputFormatError: The file was cut short since it was opened.
        """
        self._check_open()
        if layer not in self._places:
            near = get_close_matches(layer, self._places, 3, 0.5) or list(self._places)[:3]
            known = ", ".join(map(repr, near))
            raise UnknownLayerError(
                f"{self.path!r} holds no layer {layer!r}; the closest that it holds: {known}."
            )
        with reporting_damage(self.path):
            return self._map(self._stored[layer], self._places[layer])

    def __iter__(self) -> Iterator[str]:
        """Give layer names in the order they were asked for."""
        return iter(self._stored)

    def __len__(self) -> int:
        """Tell how many layers there are."""
        return len(self._stored)

    def close(self) -> None:
        """Release the file; arrays taken from the reader stay usable."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the reader of {self.path!r} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def map_array(file: IO[bytes], place: ArrayPlace) -> Array:
    """Map an array of an open file into memory; of one in a store, what is sliced is fetched.

    Raises:
        ValueError: The file ends before the array does.
    """
    size = prod(place.shape) * place.dtype.itemsize
    if not size:
        return np.ndarray(place.shape, place.dtype, b"")
    if (found := array_in(file, place)) is not None:
        return found
    start = place.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    mapped = mmap.mmap(file.fileno(), place.offset + size - start, access=mmap.ACCESS_READ, offset=start)
    return np.ndarray(place.shape, place.dtype, mapped, place.offset - start)


def check_names(layers: Sequence[str]) -> None:
    """Raise UsageError for one name in the place of a list of them."""
    if isinstance(layers, str):
        raise UsageError(f"layers must be a list of names, such as [{layers!r}]. Received: {layers!r}")


@contextmanager
def reporting_damage(path: str) -> Iterator[None]:
    """Turn what a broken file causes into a sentence about the output."""
    try:
        yield
    except OutputFormatError:
        raise
    except _DAMAGE as error:
        if isinstance(error, KeyError | FileNotFoundError) and "provenance" in str(error):
            raise OutputFormatError(
                f"{shown(path)!r} is no output of layerprobe: it holds no record of a run. "
                "A saved model is something for `layerprobe extract`."
            ) from error
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise OutputFormatError(
            f"{shown(path)!r} was not written by layerprobe, or is damaged: {reason.rstrip('.')}."
        ) from error
