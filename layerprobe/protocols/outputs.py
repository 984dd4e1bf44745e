"""Where activations go and from where they are read: what a writer, a stream and a reader must offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from layerprobe.formats.places import RowPlaces
    from layerprobe.formats.row_texts import RowTexts
    from layerprobe.records import Array, Provenance, WrittenBlock


class Writer(Protocol):
    """Where activations go. Nothing stands under the output's name until `commit`.

    Constructed as `Writer(path, layers, paths)`: `layers` are `TensorSpec`s with every size known, `paths`
    the N keys. The constructor reserves the space on disk and raises OutputError or WriteError. With a fourth
    argument, the `layout` of an earlier writer, it goes on with the unfinished output which that one left,
    and raises ResumeError where rows would stand at other places.
    """

    layout: dict[str, int]
    """Where each layer's rows begin in its file."""

    def write(self, start: int, activations: Mapping[str, Array]) -> WrittenBlock:
        """Put (n, ...) arrays, one for each layer, at rows start to start + n, where none came before."""
        ...

    def adopt(self, block: WrittenBlock) -> None:
        """Take rows as written, for an earlier writer wrote them and they are on disk."""
        ...

    def sync(self) -> None:
        """Bring what was written to disk, by other processes too."""
        ...

    def commit(
        self, failures: Mapping[int, str], provenance: Provenance, fields: Sequence[str] | None = None
    ) -> None:
        """Write status, error and provenance, flush to disk, and name the file.

        Args:
            failures: Row -> reason; every other row is "ok".
            provenance: Stored as one JSON record.
            fields: For each row the JSON text of an object, or ""; None: there is none for any.
        """
        ...

    def suspend(self) -> None:
        """Leave the output unfinished, for a later writer to go on with."""
        ...

    def abort(self) -> None:
        """Remove what was written; a second call, or one after `commit` or `suspend`, does nothing."""
        ...


class PlacedWriter(Writer, Protocol):
    """A writer whose rows have their places from the beginning."""

    @property
    def places(self) -> RowPlaces:
        """Where the rows go, for other processes to put them there; those are then taken with `adopt`."""
        ...


class RowStream(Protocol):
    """Where rows go one after the other: no row needs to be known before its turn, nor how many there are.

    Until `commit` nothing stands under the name of a file; what reads a pipe has the rows as they come.
    """

    def append(self, texts: RowTexts, activations: Mapping[str, Array]) -> object:
        """Take the next n rows: what is said of them, and an (n, ...) array for each layer."""
        ...

    def commit(self, provenance: Provenance) -> None:
        """Say that all rows came; a file is flushed to disk and named."""
        ...

    def abort(self) -> None:
        """Remove what was written; a second call, or one after `commit`, does nothing."""
        ...


class FileStream(RowStream, Protocol):
    """A `RowStream` that an earlier one's file can be gone on with."""

    def append(self, texts: RowTexts, activations: Mapping[str, Array]) -> WrittenBlock:
        """As any stream; says what was written."""
        ...

    def adopt(self, texts: RowTexts, block: WrittenBlock) -> None:
        """Take the next rows as written."""
        ...


class Reader(Protocol):
    """An output, opened lazily: a mapping from layer name to an array that reads what is sliced."""

    path: str
    provenance: dict[str, Any]
    checksums: dict[str, Any] | None
    """Of rows and texts, see `formats/schema.py`; None in outputs of before there were any."""
    intact: bool | None
    """Whether the record, `provenance` and `checksums`, is what was written; None where that is not known."""
    compression: str | None
    """How the layers are compressed; None: they are not."""
    stored_bytes: int
    """What they take in the file, where they are compressed."""

    def faults(self) -> Iterator[str]:
        """Say what of the file is not as this version writes it, beside what checksums tell."""
        ...

    @property
    def paths(self) -> list[str]:
        """The N keys, in row order, as they were given."""
        ...

    @property
    def status(self) -> list[str]:
        """ "ok" or "failed" for each of the N rows."""
        ...

    @property
    def error(self) -> list[str]:
        """The reason for each failed row, "" for the others."""
        ...

    @property
    def fields(self) -> list[dict[str, Any]] | None:
        """What the list of inputs said of each row beside its path; None: nothing of any."""
        ...

    @property
    def fields_texts(self) -> list[str] | None:
        """The same as JSON texts, "" where nothing was said."""
        ...

    def __getitem__(self, layer: str) -> Any:
        """An array-like of shape (N, ...) with `shape`, `dtype`, `__len__`, `__array__` and slicing."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Layer names in the order they were asked for."""
        ...

    def __len__(self) -> int:
        """How many layers."""
        ...

    def close(self) -> None:
        """Release the file; arrays taken from the reader are no longer usable."""
        ...

    def __enter__(self) -> Self:
        """Begin a `with` block, which closes the reader at its end."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
