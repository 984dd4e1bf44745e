"""What a run's own process and its workers tell each other, and a worker's model as it is seen from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from layerprobe.options import INFERENCE, Computing, ExtractOptions, ModelOptions
from layerprobe.records import ModelInfo, TensorSpec
from layerprobe.run.entries import Entry

if TYPE_CHECKING:
    from layerprobe.formats.places import RowPlaces


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a run is told first."""

    model: str
    """Path of the file."""
    layers: Sequence[str]
    inputs: Mapping[str, Any]
    """By name of the model's input: an image source, or names of array files."""
    needs: ModelOptions
    how: ExtractOptions


@dataclass(frozen=True, slots=True)
class Described:
    """What a worker knows once its engine is built, and how it would compute."""

    path: str
    note: str | None
    info: ModelInfo
    inputs: tuple[TensorSpec, ...]
    provenance: Mapping[str, Any]
    signature: Mapping[str, Any]
    """Of the run."""
    model_signature: Mapping[str, Any]
    outputs: tuple[TensorSpec, ...]
    batch_size: int
    engine: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker does, and where the rows go."""

    places: RowPlaces
    starts: Sequence[int]
    """First rows of batches."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a worker has counted since it began."""

    seconds: Mapping[str, float]
    """Of each stage."""
    engine: Mapping[str, Any]
    """What computed the last batch."""
    at_once: int
    """How many rows of a batch fit into memory."""
    repeated: Mapping[str, tuple[int, str]]
    """Requests to stores that had to be made again; see `stores/attempts.py`."""


@dataclass(frozen=True, slots=True)
class Written:
    """A batch stands at its place."""

    entry: Entry
    counts: Counts


def alone(how: ExtractOptions) -> ExtractOptions:
    """Say how one of several workers works: its failed rows are dealt with where they are told."""
    workers = max(1, how.workers // how.processes) if isinstance(how.workers, int) else None
    return replace(
        how,
        processes=1,
        cluster=None,
        cpus_per_worker=None,
        gpus_per_worker=None,
        workers=None if how.cluster else workers,
        on_error="skip",
        max_errors=None,
        errors_to=None,
        stats=False,
    )


class RemoteModel:
    """The model of the workers, which this process never loads; see `protocols.LoadedModel`."""

    takes_long_to_load = False

    def __init__(self, described: Described) -> None:
        self._described = described
        self.path, self.note, self.info = described.path, described.note, described.info
        self.inputs = described.inputs
        self.fixed_batch_size = self.usual_batch_size = described.batch_size

    def prepare(self) -> None:
        """The workers have loaded it."""

    def engine(
        self, inputs: Sequence[TensorSpec], *, batch_size: int | None, how: Computing = INFERENCE
    ) -> RemoteEngine:
        """Describe the engine that they built."""
        self.built = RemoteEngine(self._described)
        return self.built

    outline = engine

    def provenance(self) -> dict[str, Any]:
        """Which model this is."""
        return dict(self._described.provenance)

    def signature(self) -> dict[str, Any]:
        """What of the model decides its values."""
        return dict(self._described.model_signature)


class RemoteEngine:
    """What the workers compute with; here it only says what it is. See `protocols.Engine`."""

    finish = None
    overflowed: Mapping[str, int] = {}

    def __init__(self, described: Described) -> None:
        self.batch_size, self.outputs = described.batch_size, described.outputs
        self._engine = described.engine

    def run(self, inputs: object) -> NoReturn:
        """Nothing is computed in this process."""
        raise AssertionError("the engine is in another process")

    start = run

    def describe(self) -> dict[str, Any]:
        """Name, device and precision."""
        return dict(self._engine)
