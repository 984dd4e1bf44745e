"""`extract`: from a saved model and inputs to a file of activations. The only file that knows all stages."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from layerprobe import registry
from layerprobe.batches import batches, worker_threads
from layerprobe.errors import AllInputsFailedError, LayerprobeError, UsageError
from layerprobe.feeds import Clock, Feeds
from layerprobe.fitting import SIZES, measured, row_bytes
from layerprobe.formats.space import check_space
from layerprobe.journal import Journal
from layerprobe.plan import (
    BATCH_BYTES,
    choose_batch_size,
)
from layerprobe.probed_model import ProbedModel
from layerprobe.records import (
    MAX_MEMORY,
    Computing,
    ExtractOptions,
    Finish,
    ModelOptions,
    TensorSpec,
)
from layerprobe.remote import Job, alone
from layerprobe.report import RunReport
from layerprobe.request import find_feeds, open_request
from layerprobe.resume import check_same_run, claim, earlier_batch_size, finished_output
from layerprobe.run import Progress, Run, Stop
from layerprobe.shards import parse_shard, rows_of
from layerprobe.storing import Storing

if TYPE_CHECKING:
    from layerprobe.fitting import Build
    from layerprobe.protocols import Engine, LoadedModel, Outline, Source, Writer
    from layerprobe.request import Inputs

    Built = TypeVar("Built", bound=Outline)
    Fill = Callable[[Run, Writer, Progress | None, Journal | None, Stop | None], None]


def extract(
    model: str | os.PathLike[str] | Any,
    inputs: Inputs | Mapping[str, Inputs],
    layers: Sequence[str],
    output: str | os.PathLike[str] | None = None,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
    progress: Progress | None = None,
    stop: Stop | None = None,
    **options: Any,
) -> RunReport:
    """Run a saved model over images or arrays and write the activations of its layers to one file.

    Args:
        model: Path of a saved model, or a Keras model.
        inputs: Image files, folders and globs, or array files (`.npy`, `.npz`, `file.h5::dataset`), or a
            `Source`; for a model of several inputs, a mapping from each input's name to such.
        layers: Addresses and patterns; see `modelfile/select.py`.
        output: `.npz`, `.h5`, `.hdf5`, or a folder; None: named after the input.
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.
        progress: Called before the first batch and after each.
        stop: Asked after each batch; True ends the run early, as one that `resume` goes on with.
        options: The fields of `records.ExtractOptions`.

    Returns:
        What was done. Rows that failed are in the output too, as NaN, with the reason beside them.

    Raises:
        AllInputsFailedError: Not one row could be computed; no output is left.
        StoppedError: `stop` said so.
        LayerprobeError: Others by cause; see `errors`. Whatever is raised, the output is as it was before;
            rows that are done are kept beside it, for `resume`.
    """
    started, clock = time.perf_counter(), Clock()
    needs = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    request = open_request(model, inputs, layers, output, needs, options)
    probed, path, file_format, how = request.probed, request.path, request.file_format, request.how
    now = clock.add("list", started)
    with claim(path, file_format, how) as journal, closing(probed), ExitStack() as stack:
        if how.resume and how.batch_size == "auto":
            how = dataclasses.replace(how, batch_size=earlier_batch_size(path, journal.head) or "auto")
        loaded: LoadedModel = probed
        fill: Fill = Run.fill
        if how.processes > 1:
            from layerprobe.team import Team  # It imports what takes time, and few need.

            job = _job(probed, inputs, request.sources, layers, needs, how)
            team = stack.enter_context(Team(job, how.processes, clock))
            loaded, fill = team.model, team.fill
        run = prepare_run(loaded, request.sources, how, clock, partial(check_space, path, file_format))
        now = clock.add("load", now)
        resumes_finished = how.resume and journal.head is None
        finished = finished_output(path, how, run.signature) if resumes_finished else None
        if finished is not None:
            clock.add("total", started)
            with finished:
                return run.nothing_to_do(finished)
        writer = _open_writer(path, file_format, run, journal)
        clock.add("write", now)
        _write(
            run,
            writer,
            journal,
            partial(fill, run, writer, progress, journal if run.resumable else None, stop),
        )
    clock.add("total", started)
    return run.report(path)


def _job(
    probed: ProbedModel,
    inputs: Inputs | Mapping[str, Inputs],
    sources: Mapping[str, Source],
    layers: Sequence[str],
    needs: ModelOptions,
    how: ExtractOptions,
) -> Job:
    """Say what worker processes are to do."""
    if not probed.path:
        raise UsageError("processes need a model from a file, which each of them loads.")
    given = inputs if isinstance(inputs, Mapping) else {"": inputs}
    # Images are listed once. Files of arrays stay open, which no other process can go on with.
    sent = {name: given[name] if source.kind == "arrays" else source for name, source in sources.items()}
    return Job(probed.path, layers, sent, needs, alone(how))


def _open_writer(path: str, file_format: str, run: Run, journal: Journal) -> Writer:
    """Lay out the output, or go on with the one that the journal is about."""
    if journal.head is not None:
        check_same_run(path, journal.head, run.signature)
    writer_class = registry.find(registry.WRITERS, file_format, "format")
    writer: Writer = writer_class(
        path, run.stored, run.keys, None if journal.head is None else journal.head.layout
    )
    if journal.head is not None:
        run.adopt(writer, journal)
    return writer


def _write(run: Run, writer: Writer, journal: Journal, fill: Callable[[], None]) -> None:
    """Fill and name the output; what is on disk when that fails is kept for a later run."""
    try:
        fill()
        run.failures.finish()
        run.commit(writer)
        journal.remove()
    except AllInputsFailedError:
        journal.clear()
        raise
    except BaseException as error:
        with suppress(LayerprobeError):
            if run.resumable:
                run.checkpoint(writer, journal)
        if journal.entries:
            writer.suspend()
            error.add_note(f"{journal.rows} of {len(run.keys)} rows are kept in an unfinished output")
        raise
    finally:
        writer.abort()
        run.failures.close()


def prepare_run(
    probed: LoadedModel,
    sources: Mapping[str, Source],
    how: ExtractOptions,
    clock: Clock,
    check: Callable[[int, Sequence[TensorSpec]], None] | None = None,
) -> Run:
    """Load the model, and build all that computes with it.

    Args:
        probed: The model.
        sources: Its inputs by name; "" where it has only one.
        how: The user's options.
        clock: Counts the seconds of each stage.
        check: Called, before the weights of a large model are read, with the number of rows and what is to be
            stored of each.
    """
    probed.prepare()
    feeds = find_feeds(probed, sources, how, clock)
    planned = None
    if probed.takes_long_to_load:
        planned = plan_engine(probed, feeds, how)
        if check is not None:
            check(len(rows_to_do(feeds, how, planned)), Storing(planned, Finish(how.pool, how.dtype)).specs)
    computing = Computing(how.training, how.seed, how.precision, Finish(how.pool, how.dtype))

    def build(batch_size: int) -> Engine:
        return probed.engine(feeds.specs, batch_size=batch_size, how=computing)

    one_size = how.training or probed.fixed_batch_size is not None
    engine, note = _engine(probed, feeds, how, build, planned)
    feeds.take(rows_to_do(feeds, how, engine))
    return Run(probed, feeds, engine, how, clock, None if one_size else build, note)


def plan_engine(probed: LoadedModel, feeds: Feeds, how: ExtractOptions) -> Outline:
    """Tell what engine a run would have, and with which batch size, where it need not be measured."""
    computing = Computing(how.training, how.seed, how.precision, Finish(how.pool, how.dtype))

    def build(batch_size: int) -> Outline:
        return probed.outline(feeds.specs, batch_size=batch_size, how=computing)

    return _fitted(probed, feeds, how, build)


def rows_to_do(feeds: Feeds, how: ExtractOptions, engine: Outline) -> range:
    """Say which rows of the list are this run's."""
    if how.shard is None:
        return feeds.place
    return rows_of(parse_shard(how.shard), len(feeds), engine.batch_size)


def _engine(
    probed: LoadedModel, feeds: Feeds, how: ExtractOptions, build: Build, planned: Outline | None
) -> tuple[Engine, str | None]:
    """Build the engine, with the batch size that was planned, if it was.

    Returns:
        It, and where its batch size was measured, what was found.
    """
    engine = _fitted(probed, feeds, how, build, None if planned is None else planned.batch_size)
    if how.batch_size != "auto" or probed.fixed_batch_size is not None:
        return engine, None
    most = min(-(-len(feeds) // 2), max(1, BATCH_BYTES // (row_bytes(engine.outputs) or 1)))
    return _measured(engine, feeds, how, build, most)


def _fitted(
    probed: LoadedModel,
    feeds: Feeds,
    how: ExtractOptions,
    build: Callable[[int], Built],
    batch_size: int | None = None,
) -> Built:
    """Build an engine, again with other batches where its activations are too big or it is another one."""
    if how.shard is not None and how.batch_size == "auto":
        raise UsageError("shards need one batch size, for it decides their rows: give it as a number.")
    rows = max(1, len(feeds) // (1 if how.shard is None else parse_shard(how.shard).count))

    def fitting(row_bytes: int | None) -> int:
        fixed, usual = probed.fixed_batch_size, probed.usual_batch_size
        return choose_batch_size(how, rows, fixed, usual, row_bytes)

    batch_size = batch_size or fitting(None)
    while True:
        engine = build(batch_size)
        if fitting(row_bytes(engine.outputs)) == batch_size:
            return engine
        batch_size = fitting(row_bytes(engine.outputs))


def _measured(
    engine: Engine, feeds: Feeds, how: ExtractOptions, build: Build, most: int
) -> tuple[Engine, str]:
    """The engine with as many rows at once as measuring finds best; see `_engine`."""
    with closing(batches(feeds, min(most, max(SIZES)), worker_threads(how))) as taken:
        first = next(taken)
    best, rates = measured(first.inputs, build, most) if first.rows else (None, {})
    if best is None:
        return engine, f"batch size {engine.batch_size}: there is too little to measure others"
    others = ", ".join(f"{size}: {rate:.1f}" for size, rate in rates.items())
    return best, f"batch size {best.batch_size}, measured in rows/s: {others}"
