"""The rows of several outputs as if they were in one, read as they are sliced."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import LayerprobeError, NoInputError, OutputFormatError
from layerprobe.formats.lazy_rows import LazyRows
from layerprobe.formats.opening import open_output

if TYPE_CHECKING:
    from layerprobe.formats.reading import ArrayPlace
    from layerprobe.protocols import Reader
    from layerprobe.records import Array


class PartFiles:
    """The outputs that a virtual one refers to; the one that was used last is open.

    Args:
        whole: Path of the virtual output.
        parts: What its provenance says of each: "path", from its folder, "rows" and "id".
    """

    def __init__(self, whole: str, parts: Sequence[Mapping[str, Any]]) -> None:
        self._whole, self._parts = whole, parts
        self._folder = os.path.dirname(os.path.realpath(whole))
        self._starts = [int(part["rows"][0]) for part in parts]
        self._open: tuple[int, Reader] | None = None

    def rows_of(self, layer: str, place: ArrayPlace) -> JoinedRows:
        """Give the array of a layer, whose shape and dtype `place` has."""
        return JoinedRows(place.shape, place.dtype, self._starts, lambda number: self._reader(number)[layer])

    def _reader(self, number: int) -> Reader:
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = number, self._opened(self._parts[number])
        return self._open[1]

    def _opened(self, part: Mapping[str, Any]) -> Reader:
        path = os.path.join(self._folder, part["path"])
        try:
            with ExitStack() as on_error:
                reader = on_error.enter_context(open_output(path))
                run = reader.provenance["run"]
                # What only refers to others in its turn could refer to itself.
                if run["id"] == part["id"] and not run.get("virtual"):
                    on_error.pop_all()
                    return reader
            reason = "another one is there by now"
        except NoInputError:
            reason = "it is not there"
        except (LayerprobeError, LookupError, TypeError) as error:
            reason = str(error).rstrip(".")
        raise OutputFormatError(
            f"{self._whole!r} has its rows in parts, and part {path!r} cannot be read: {reason}; bring it "
            "back, or merge the parts again."
        )

    def close(self) -> None:
        """Release the file that is open."""
        opened, self._open = self._open, None
        if opened is not None:
            opened[1].close()


class JoinedRows(LazyRows):
    """The rows of several arrays as one (N, ...) array of which only what is sliced is read.

    Args:
        shape: (N, ...)
        dtype: Of all of them.
        starts: The first row of each; 0 first.
        read: Number of an array -> the array.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        starts: Sequence[int],
        read: Callable[[int], Array],
    ) -> None:
        super().__init__(shape, dtype)
        self._starts, self._read = starts, read

    def _rows(self, rows: range | Array) -> Array:
        """Rows by their numbers, in any order; those of one array without a copy."""
        if isinstance(rows, range) and len(rows) and rows.step == 1:
            number = bisect_right(self._starts, rows.start) - 1
            end = [*self._starts[1:], len(self)][number]
            if rows.stop <= end:
                start = self._starts[number]
                return self._read(number)[rows.start - start : rows.stop - start]
        wanted = np.asarray(rows, int)
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        numbers = np.searchsorted(self._starts, wanted, "right") - 1
        for number in np.unique(numbers).tolist():
            here = numbers == number
            found[here] = self._read(number)[wanted[here] - self._starts[number]]
        return found
