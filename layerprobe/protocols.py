"""What a source, an engine, a reduction, a writer and a reader must offer.

The conformance tests run over the tables of `registry.py`; whatever is listed there is held to these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from layerprobe.formats.places import RowPlaces
    from layerprobe.formats.row_texts import RowTexts
    from layerprobe.options import Computing, Finish
    from layerprobe.records import Array, ModelInfo, Provenance, Sample, TensorSpec, WrittenBlock


class Source(Protocol):
    """Where samples come from. Listing happens when it is made; reading only in `Sample.read`.

    A source may have three methods more, for those who want some of its samples: `rows(start, stop)` gives
    the samples from one to before another, `names(start, stop)` a pair of key and fields for each of them,
    and `states(start, stop)` what `Sample.state` gives. Without these it is gone through from the beginning,
    and its names are kept.
    """

    kind: str
    """"images" or "arrays"."""

    def __len__(self) -> int:
        """N, known before the first sample is read; raises TypeError for a stream, whose end must be seen."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """Samples 0 to N - 1 in order; the same again at each call, but for a stream."""
        ...


class Outline(Protocol):
    """What is known of an engine before it is built: what decides the rows, but for the numbers in them."""

    batch_size: int
    """B: every batch is padded to this."""

    outputs: tuple[TensorSpec, ...]
    """What the layers give, in the order asked for and not finished; shapes of one row, all sizes known."""

    @property
    def finish(self) -> Finish | None:
        """What it finishes its results with; None: they are the layers' own."""
        ...

    @property
    def overflowed(self) -> Mapping[str, int]:
        """How many values of the last collected batch its cast made infinite, by name; not those of none."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        ...


class Engine(Outline, Protocol):
    """What runs a model. Built once for its taps and its batch size.

    An engine whose results lie on a device is told when it is built what they are to be finished with
    (`reductions.finished`), and does that before it copies them; the others leave it to who runs them.
    """

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """Compute the wanted activations of one batch.

        Args:
            inputs: One (n, ...) array per input of the model, in the model's order, 1 <= n <= B.

        Returns:
            (n, ...) arrays by name, in the order of `outputs`; they are the caller's.

        Raises:
            UsageError: The model cannot compute with some of the rows, such as an index that a table lacks.
            ResourceError: There is not enough memory for so many rows.
        """
        ...

    def start(self, inputs: Sequence[Array]) -> Collect:
        """Begin to compute one batch; one more may be begun, and `run` be called, before it is collected.

        Args:
            inputs: As for `run`; they must stay as they are until the results are collected.

        Returns:
            What waits for the results, and raises what `run` would. They are the engine's, not to be written
            to, and their memory is used again when `start` is called for the second time after.
        """
        ...


Collect = Callable[[], "dict[str, Array]"]
"""Waits for a batch that is being computed, and gives its activations by name; may be called again."""


class Runnable(Protocol):
    """A model as one engine takes it, before the engine is built for certain sizes.

    What cannot be run so raises `Unsupported` (`engines/graph/unsupported.py`), and the next engine is tried.
    """

    note: str | None
    """Why its numbers are trusted, where that is not the same for every model."""

    usual_batch_size: int
    """B where nothing else is asked for."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the taps need, in the model's order; free sizes are None."""
        ...

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size that is part of the model's input shape, if one is."""
        ...

    def engine(self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing) -> Engine:
        """Build the engine for inputs with every size known; None takes any number of rows."""
        ...

    def outline(self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing) -> Outline:
        """Tell what `engine` would build, reading as little of the model as that takes."""
        ...


class LoadedModel(Protocol):
    """The model of a run, which knows its layers, and what runs it: here, or in another process."""

    path: str
    """Of its file; "" where it came from none."""

    info: ModelInfo

    @property
    def note(self) -> str | None:
        """Which engine runs the model and why, where that is not the same for every model."""
        ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the taps need, in the model's order; free sizes are None."""
        ...

    @property
    def fixed_batch_size(self) -> int | None:
        """The only B that there is, if there is only one."""
        ...

    @property
    def usual_batch_size(self) -> int:
        """B where nothing else is asked for."""
        ...

    def prepare(self) -> None:
        """Load what has to be known of the inputs."""
        ...

    def engine(self, inputs: Sequence[TensorSpec], *, batch_size: int | None, how: Computing = ...) -> Engine:
        """Build the engine for inputs with every size known; None takes any number of rows."""
        ...

    @property
    def takes_long_to_load(self) -> bool:
        """Whether the weights are so large that it pays to find out all sizes before they are read."""
        ...

    def outline(
        self, inputs: Sequence[TensorSpec], *, batch_size: int | None, how: Computing = ...
    ) -> Outline:
        """Tell what `engine` would build, as far as that is known before; it reads as little as it can."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Which model this is."""
        ...

    def signature(self) -> dict[str, Any]:
        """What of the model decides its values."""
        ...


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
