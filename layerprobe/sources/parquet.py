"""Lists in Parquet: paths beside other columns, or the images themselves, read as their turn comes."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprobe.errors import LayerprobeError, SampleError, UsageError
from layerprobe.registry import missing
from layerprobe.sources.files import MAX_BYTES, Container, LocalFile
from layerprobe.sources.jsonlines import Listed
from layerprobe.sources.tables import PATH_COLUMNS, choose_column, listed

if TYPE_CHECKING:
    import pyarrow.parquet

SUFFIXES = (".parquet", ".pq")
IMAGE_COLUMNS = ("image", "img", "bytes", "image_bytes", "jpg", "jpeg", "png", "webp", "picture", "photo")
"""Names of columns that may hold the images themselves; these go before columns that name them."""

_ROWS_LISTED, _ROWS_READ = 1024, 8
"""Rows that are read at a time: of names, of images."""
_HELD = 512
"""Images that are kept for threads that come later; what is dropped is read again if it is asked for."""
_BUFFER = 2**20
"""Bytes of a column that are read ahead, rather than all of a row group."""


def parquet_rows(place: Container, where: str, column: str | None) -> Iterator[Listed]:
    """Read a table, a group of rows at a time.

    Args:
        place: The file.
        where: It, for messages.
        column: Of the paths or images; None: the first of `IMAGE_COLUMNS` that holds bytes (or, as data sets
            of Hugging Face have it, bytes and path), else the first of `PATH_COLUMNS`.

    Yields:
        A row each, with the other columns as its fields, but for those that hold bytes.

    Raises:
        UnavailableError: pyarrow is not installed.
        UsageError: It is no such table.
    """
    try:
        file = opened(place)
        columns = {field.name: _kind(field.type) for field in file.schema_arrow}
        images = [name for name, kind in columns.items() if kind in ("bytes", "struct")]
        if column is None and any(name.lower() in IMAGE_COLUMNS for name in images):
            column = choose_column(where, images, None, IMAGE_COLUMNS)
        else:
            column = choose_column(where, list(columns), column, PATH_COLUMNS)
        kind = columns[column]
        if kind == "other":
            raise UsageError(f"column {column!r} of {where} holds neither paths nor images: give --column.")
        others = [name for name, kind in columns.items() if name != column and kind in ("text", "other")]
        wanted = {"text": [column], "struct": [f"{column}.path"], "bytes": []}[kind]
        source = None if kind == "text" else Images(place, column)
        for row, values in enumerate(_rows(file, [*wanted, *others])):
            value = values.pop(column, None)
            if source is None:
                yield listed(value, values, f"{place.name}[{row}]", column)
                continue
            path = value.get("path") if isinstance(value, dict) else None
            key = f"{place.name}::{path}" if isinstance(path, str) and path else f"{place.name}[{row}]"
            entry = listed(key, values, key, column)
            yield Listed(Embedded(source, row, key), entry.fields)
    except (LayerprobeError, GeneratorExit):
        raise
    except Exception as error:  # a parser, fed with strangers' bytes
        words = " ".join(str(error).split())
        raise UsageError(f"{where} is no Parquet file that can be read: {words[:200]}.") from error


def opened(place: Container) -> pyarrow.parquet.ParquetFile:
    """Open a file with as little in memory as goes. Raises UnavailableError, and what pyarrow raises."""
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise missing(repr(place.name), "pyarrow") from error
    stream = place.open()
    if isinstance(place, LocalFile):  # It was looked at, and is a regular file.
        stream.close()
    where = place.name if isinstance(place, LocalFile) else stream
    return parquet.ParquetFile(where, buffer_size=_BUFFER, pre_buffer=False)


def _kind(dtype: Any) -> str:
    """ "text", "bytes", "struct" of bytes and maybe a path, or "other"."""
    import pyarrow.types as types

    if types.is_dictionary(dtype):
        dtype = dtype.value_type
    if types.is_string(dtype) or types.is_large_string(dtype):
        return "text"
    if types.is_binary(dtype) or types.is_large_binary(dtype) or types.is_fixed_size_binary(dtype):
        return "bytes"
    if types.is_struct(dtype) and "bytes" in [dtype.field(at).name for at in range(dtype.num_fields)]:
        return "struct"
    return "other"


def _rows(file: pyarrow.parquet.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from ({} for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(_ROWS_LISTED, columns=columns, use_threads=False):
        yield from batch.to_pylist()


@dataclass(frozen=True, slots=True)
class Embedded:
    """An image in a table; see `files.Readable`."""

    images: Images
    row: int
    key: str

    @property
    def far(self) -> bool:
        """Whether the table is read through a network."""
        return self.images.place.far

    def read(self) -> bytes:
        """Give its bytes; raises SampleError."""
        return self.images.read(self.row)

    def state(self) -> bytes:
        """Say which version of the table is there."""
        return self.images.place.state()


class Images:
    """The images in one column, read forwards, a few rows at a time. Threads and processes may share it.

    Args:
        place: The file.
        column: Its name.
    """

    def __init__(self, place: Container, column: str) -> None:
        self.place, self._column = place, column
        self._lock = threading.Lock()
        self._file: Any = None
        self._rows: Iterator[tuple[int, Any]] = iter(())
        self._next = 0
        """The row that `_rows` gives next."""
        self._held: dict[int, Any] = {}
        """Rows that were passed by, for threads that ask for them later."""

    def __getstate__(self) -> tuple[Container, str]:
        return self.place, self._column

    def __setstate__(self, state: tuple[Container, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def read(self, row: int) -> bytes:
        """Give one image; raises SampleError where there is none."""
        try:
            with self._lock:
                value = self._value(row)
        except LayerprobeError:
            raise
        except Exception as error:  # a parser, fed with strangers' bytes
            self._rows = iter(())
            words = " ".join(str(error).split())
            raise SampleError(f"the table cannot be read here: {words[:200]}") from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise SampleError(f"no image: {self._column!r} is empty")
        if len(data) > MAX_BYTES:
            raise SampleError(f"{len(data)} bytes are more than the limit of {MAX_BYTES}")
        return bytes(data)

    def _value(self, row: int) -> Any:
        if row in self._held:
            return self._held.pop(row)
        if not self._next <= row < self._next + _HELD:
            self._begin_near(row)
        for number, value in self._rows:
            self._next = number + 1
            if number == row:
                return value
            self._held[number] = value
            if len(self._held) > _HELD:
                del self._held[min(self._held)]
        self._begin_near(row)
        return next(value for number, value in self._rows if number == row)

    def _begin_near(self, row: int) -> None:
        """Go to a row, at the beginning of whose group reading must begin."""
        if self._file is None:
            self._file = opened(self.place)
        told = self._file.metadata
        sizes = [told.row_group(group).num_rows for group in range(told.num_row_groups)]
        starts = [0, *itertools.accumulate(sizes)]
        group = bisect_right(starts, row) - 1
        if row >= starts[-1]:
            raise SampleError("the table has become shorter")
        rows = enumerate(self._from(range(group, len(sizes))), starts[group])
        self._rows = itertools.dropwhile(lambda numbered: numbered[0] < row, rows)
        self._next = row

    def _from(self, groups: range) -> Iterator[Any]:
        for batch in self._file.iter_batches(
            _ROWS_READ, row_groups=list(groups), columns=[self._column], use_threads=False
        ):
            yield from batch.column(0).to_pylist()
