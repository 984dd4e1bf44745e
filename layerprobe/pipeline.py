"""`extract`: from a saved model and inputs to a file of activations. The only file that knows all stages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

from layerprobe import registry
from layerprobe.diagnosis.evidence import with_evidence
from layerprobe.errors import AllInputsFailedError, LayerprobeError, UsageError
from layerprobe.formats.piping import STANDARD_OUTPUT
from layerprobe.formats.space import check_space, space_notice
from layerprobe.formats.streams import open_pipe_stream
from layerprobe.formats.writing import open_writer
from layerprobe.options import MAX_MEMORY, ExtractOptions, ModelOptions
from layerprobe.run.clock import Clock
from layerprobe.run.cluster_options import parse_cluster
from layerprobe.run.destination import Destination
from layerprobe.run.journal import Journal
from layerprobe.run.loop import Progress, Run, Stop
from layerprobe.run.plan import (
    check_pipe,
)
from layerprobe.run.pouring import pour
from layerprobe.run.preparing import prepare_run
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.report import RunReport
from layerprobe.run.request import check_output_options, open_request, place_output
from layerprobe.run.resume import check_same_run, finished_output, with_earlier_batch_size
from layerprobe.run.said import SaidOfRun
from layerprobe.workers.remote import Job, alone

if TYPE_CHECKING:
    from layerprobe.protocols import LoadedModel, Source, Writer
    from layerprobe.run.request import Inputs
    from layerprobe.workers.crew import Crew

    Fill = Callable[[Run, Writer, Progress | None, Journal | None, Stop | None], None]


def extract(
    model: str | os.PathLike[str] | Any,
    inputs: Inputs | Mapping[str, Inputs],
    layers: Sequence[str],
    output: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
    progress: Progress | None = None,
    stop: Stop | None = None,
    notice: Callable[[str], None] | None = None,
    pipe_format: str = "npz",
    **options: Any,
) -> RunReport:
    """Run a saved model over images or arrays and write the activations of its layers to one file.

    Args:
        model: Path of a saved model, or a Keras model.
        inputs: Image files, folders and globs, or array files (`.npy`, `.npz`, `file.h5::dataset`), or a
            `Source`; for a model of several inputs, a mapping from each input's name to such.
        layers: Addresses and patterns; see `modelfile/select.py`.
        output: `.npz`, `.h5`, `.hdf5`, `.parquet`, `.safetensors`, `.jsonl`, `.tar`, or a folder, here or by
            URL; None: named after the input. Or a binary file whose `write` takes everything that it is
            given, such as standard output.
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.
        progress: Called before the first batch and after each.
        stop: Asked after each batch; True ends the run early, as one that `resume` goes on with.
        notice: Given what is to be known before a run begins or while it waits: that its output may not fit,
            which workers of a cluster are not there.
        pipe_format: Of what is written to a binary file: a name in `registry.STREAMS` or `registry.PIPES`.
        options: The fields of `options.ExtractOptions`.

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
    request = open_request(model, inputs, layers, needs, options)
    probed, sources, how = request.probed, request.sources, request.how
    if output is not None and not isinstance(output, str | os.PathLike):
        check_pipe(pipe_format, how)
        now = clock.add("list", started)
        with closing(probed):
            how = with_evidence(probed, sources, how)
            run = prepare_run(probed, sources, how, clock)
            clock.add("load", now)
            keys = run.feeds.keys() if run.feeds.rows is not None else None
            pour(run, open_pipe_stream(output, pipe_format, run.stored, keys), progress, stop)
        clock.add("total", started)
        return run.report(STANDARD_OUTPUT)
    where = Destination(output)
    where.check(how)
    path, file_format = place_output(request, inputs, where.path)
    check_output_options(request, file_format)
    now = clock.add("list", started)
    with where.claimed(path, file_format, how) as journal:
        with closing(probed), ExitStack() as stack:
            how = with_earlier_batch_size(how, path, journal.head, probed)
            how = with_evidence(probed, sources, how)
            loaded: LoadedModel = probed
            fill: Fill = Run.fill
            if how.processes > 1 or how.cluster is not None:
                job = _job(probed, inputs, sources, layers, needs, how)
                crew = stack.enter_context(_crew(job, how, clock, notice))
                loaded, fill = crew.model, cast("Fill", crew.fill)  # `check_output_options`: rows have places
            check = partial(check_space, path, file_format) if how.compress is None else None
            run = prepare_run(loaded, sources, how, clock, check)
            now = clock.add("load", now)
            resumes_finished = how.resume and journal.head is None
            finished = (
                finished_output(where.finished or path, how, run.signature) if resumes_finished else None
            )
            if finished is not None:
                clock.add("total", started)
                with finished:
                    report = run.nothing_to_do(finished)
                return where.deliver(report, how)
            if how.compress is not None and notice is not None:
                said = space_notice(path, run.feeds.rows, run.stored)
                if said is not None:
                    notice(said)
            writer = _open_writer(path, file_format, run, journal, how.compress)
            clock.add("write", now)
            _write(
                run,
                writer,
                journal,
                partial(fill, run, writer, progress, journal if run.resumable else None, stop),
            )
        clock.add("total", started)
        return where.deliver(run.report(path), how)


def _crew(job: Job, how: ExtractOptions, clock: Clock, notice: Callable[[str], None] | None) -> Crew:
    """Find who computes: processes on this machine, or on a cluster."""
    cluster = parse_cluster(how)
    # They import what takes time, and few need.
    if cluster is None:
        from layerprobe.workers.team import Team

        return Team(job, how.processes, clock)
    crew: Crew = registry.find(registry.CLUSTERS, "ray", "cluster")(job, cluster, clock, notice)
    return crew


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
        raise UsageError("workers need a model from a file, which each of them loads.")
    given = inputs if isinstance(inputs, Mapping) else {"": inputs}
    # Images are listed once. Files of arrays stay open, which no other process can go on with.
    sent = {name: given[name] if source.kind == "arrays" else source for name, source in sources.items()}
    return Job(probed.path, layers, sent, needs, alone(how))


def _open_writer(path: str, file_format: str, run: Run, journal: Journal, compress: str | None) -> Writer:
    """Begin the output, or go on with the one that the journal is about."""
    head = journal.head
    if head is not None:
        check_same_run(path, head, run.signature)
    writer = open_writer(
        path,
        file_format,
        run.stored,
        SaidOfRun(run.feeds, run.failures),
        compress=compress,
        batch_size=run.engine.batch_size,
        resume=None if head is None else head.layout,
    )
    if head is not None:
        run.adopt(writer, journal, in_order=file_format in registry.STREAMS)
    return writer


def _write(run: Run, writer: Writer, journal: Journal, fill: Callable[[], None]) -> None:
    """Fill and name the output; what is on disk when that fails is kept for a later run."""
    try:
        fill()
        run.failures.finish()
        run.commit(writer)
        journal.complete()
    except AllInputsFailedError:
        journal.clear()
        raise
    except BaseException as error:
        with suppress(LayerprobeError):
            if run.resumable:
                run.checkpoint(writer, journal)
        if journal.rows:
            writer.suspend()
            error.add_note(_what_is_kept(run, journal.rows))
        raise
    finally:
        writer.abort()
        run.failures.close()


def _what_is_kept(run: Run, rows: int) -> str:
    if run.feeds.rows is None:
        return f"{rows} rows are kept in an unfinished output, for when the same stream is given again"
    return f"{rows} of {run.feeds.rows} rows are kept in an unfinished output"
