"""`dry_run`: what a run of `extract` will do, found out without doing any of it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

from layerprobe import registry
from layerprobe.diagnosis.evidence import with_evidence
from layerprobe.engines.planned import Planned
from layerprobe.errors import LayerprobeError
from layerprobe.formats.placement import journal_name
from layerprobe.formats.space import check_space, row_bytes, space_free, space_needed
from layerprobe.formats.writing import waiting_name
from layerprobe.options import MAX_MEMORY, Finish, ModelOptions
from layerprobe.records import Preprocessing, TensorSpec
from layerprobe.run.batches import batches_ahead, worker_threads
from layerprobe.run.clock import Clock
from layerprobe.run.destination import Destination
from layerprobe.run.fitting import row_bytes as computed_bytes
from layerprobe.run.identity import signature
from layerprobe.run.plan import why_batch_size
from layerprobe.run.request import (
    Request,
    check_output_options,
    find_feeds,
    open_request,
    place_output,
)
from layerprobe.run.resume import check_same_run, finished_output, look, with_earlier_batch_size
from layerprobe.run.sizing import outlined, rows_to_do
from layerprobe.run.storing import Storing

if TYPE_CHECKING:
    from layerprobe.run.request import Inputs


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, and what would end it."""

    output: str
    file_format: str
    """A name in `registry.WRITERS` or `registry.STREAMS`."""
    unfinished: str
    """Where the output stands until it is complete."""
    journal: str
    """What says which rows of it are on disk."""
    rows: int | None
    """N; None for a stream, where only reading to the end tells."""
    first: str | None
    """Key of the first row."""
    last: str | None
    layers: tuple[TensorSpec, ...]
    """What is stored of each row."""
    row_bytes: int
    """Of what is stored of one row."""
    bytes: int | None
    """Of all arrays; None where N or the format does not tell."""
    compress: str | None
    """How they are compressed; None: not."""
    needed: int | None
    """Bytes that the disk has still to have for them; None where nobody knows."""
    free: int
    """Bytes that it has."""
    memory: int
    """About so many bytes this process, or each worker of several, will take."""
    batch_size: int
    batch_size_reason: str
    engine: Mapping[str, Any]
    """Name, device and precision."""
    engine_reason: str
    preprocessing: Preprocessing | None
    rows_done: int
    """How many rows of an earlier run this one would take as they are."""
    problem: LayerprobeError | None
    """What the run would end with, as far as that is known now."""


def dry_run(
    model: str | os.PathLike[str] | Any,
    inputs: Inputs | Mapping[str, Inputs],
    layers: Sequence[str],
    output: str | os.PathLike[str] | None = None,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
    **options: Any,
) -> Plan:
    """Say what `extract` would do with the same arguments. Nothing is written, and nothing computed.

    The shapes of what the graph engine runs come from the graph, without its weights; what Keras runs is
    loaded and traced.

    Raises:
        LayerprobeError: As `extract`, for what keeps the plan from being made: a layer or an image that is
            not there, a model that is refused. What ends a run later is the plan's `problem`.
    """
    needs = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    request = open_request(model, inputs, layers, needs, options)
    where = Destination(output)
    path, file_format = place_output(request, inputs, where.path)
    check_output_options(request, file_format)
    with closing(request.probed):
        return _Planner(request, path, file_format, where).plan()


class _Planner:
    """One run on its way to a plan."""

    def __init__(self, request: Request, path: str, file_format: str, where: Destination) -> None:
        self._probed, self._path, self._format = request.probed, path, file_format
        self._where = where
        self._left, self._problem = look(path, file_format, request.how)
        self._problem = where.problem(request.how, self._left is not None) or self._problem
        self._how = request.how
        head = None if self._left is None else self._left.head
        self._how = with_earlier_batch_size(self._how, path, head, self._probed)
        self._has_earlier_size = self._how.batch_size != request.how.batch_size
        self._how = with_evidence(self._probed, request.sources, self._how)
        self._feeds = find_feeds(self._probed, request.sources, self._how, Clock())
        self._outline = outlined(self._probed, self._feeds, self._how)
        if self._feeds.rows is not None:
            self._feeds.take(rows_to_do(self._feeds, self._how, self._outline))
        self._stored = Storing(self._outline, Finish(self._how.pool, self._how.dtype)).specs

    def plan(self) -> Plan:
        """Put it together."""
        rows = self._feeds.rows
        keys = [] if rows is None else self._feeds.keys()
        done = self._rows_done()
        laid_out = self._format in registry.WRITERS and self._how.compress is None
        reserved = rows if laid_out else None
        if reserved is not None and done < reserved:
            self._try(lambda: check_space(self._path, self._format, reserved, self._stored))
        size = sum(map(row_bytes, self._stored))
        return Plan(
            output=self._where.name or self._path,
            file_format=self._format,
            unfinished=waiting_name(
                self._path, self._format, rows_known=rows is not None, compress=self._how.compress
            ),
            journal=journal_name(self._path),
            rows=rows,
            first=keys[0] if keys else None,
            last=keys[-1] if keys else None,
            layers=self._stored,
            row_bytes=size,
            bytes=None if rows is None or self._format in registry.STREAMS else rows * size,
            compress=self._how.compress,
            needed=None if reserved is None else self._needed(reserved - done),
            free=space_free(self._path),
            memory=self._memory(),
            batch_size=self._outline.batch_size,
            batch_size_reason=self._why_batch_size(),
            engine=self._outline.describe(),
            engine_reason=self._engine_reason(),
            preprocessing=self._feeds.preprocessing,
            rows_done=done,
            problem=self._problem,
        )

    def _needed(self, left: int) -> int:
        return space_needed(self._path, self._format, len(self._feeds), self._stored) if left else 0

    def _try(self, check: Callable[[], object]) -> None:
        """Note what a run would end with here, unless it ends before."""
        try:
            check()
        except LayerprobeError as error:
            self._problem = self._problem or error

    def _rows_done(self) -> int:
        """How many rows of an earlier run this one would take as they are."""
        if not self._how.resume or self._how.restart or self._problem is not None:
            return 0
        own = signature(self._probed, self._feeds, self._outline, self._stored, self._how)
        if self._left is not None:
            head = self._left.head
            self._try(lambda: check_same_run(self._path, head, own))
            return 0 if self._problem is not None else self._left.rows
        try:
            finished = finished_output(self._where.finished or self._path, self._how, own)
        except LayerprobeError as error:
            self._problem = error
            return 0
        if finished is None:
            return 0
        with finished:
            return len(self._feeds)

    def _why_batch_size(self) -> str:
        if self._has_earlier_size:
            return "those of the run that it goes on with"
        return why_batch_size(
            self._how,
            self._probed.fixed_batch_size,
            self._probed.usual_batch_size,
            self._outline.batch_size,
            computed_bytes(self._outline.outputs),
        )

    def _engine_reason(self) -> str:
        note = self._probed.note
        if note is not None:
            return note.partition(": ")[2]
        if self._how.engine != "auto":
            return "asked for"
        return "it builds the model from its file alone"

    def _memory(self) -> int:
        """Of this process as it is, and of what a run has beside: weights, activations, batches of inputs."""
        inputs = sum(math.prod(cast(tuple[int, ...], spec.shape)) * 4 for spec in self._feeds.specs)
        batch_size = self._outline.batch_size
        ahead = batches_ahead(batch_size, worker_threads(self._how, self._feeds))
        results = 2 * computed_bytes(self._outline.outputs)
        engine = self._outline.memory if isinstance(self._outline, Planned) else 0
        return _resident() + engine + batch_size * (ahead * inputs + results)


def _resident() -> int:
    """Bytes of memory that this process has."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
