"""`extract`: from a saved model and inputs to a file of activations. The only file that knows all stages."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from layerprobe import registry
from layerprobe.errors import AllInputsFailedError, LayerprobeError, UsageError
from layerprobe.formats.piping import STANDARD_OUTPUT
from layerprobe.formats.space import check_space
from layerprobe.formats.streams import open_file_stream, open_pipe_stream
from layerprobe.records import (
    MAX_MEMORY,
    ExtractOptions,
    ModelOptions,
)
from layerprobe.run.feeds import Clock
from layerprobe.run.journal import Journal
from layerprobe.run.loop import Progress, Run, Stop
from layerprobe.run.plan import (
    check_pipe,
)
from layerprobe.run.pouring import check_stream, keys_ahead, pour
from layerprobe.run.preparing import prepare_run
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.report import RunReport
from layerprobe.run.request import has_places, open_request, place_output
from layerprobe.run.resume import check_same_run, claim, earlier_batch_size, finished_output
from layerprobe.workers.remote import Job, alone

if TYPE_CHECKING:
    from layerprobe.protocols import LoadedModel, Source, Writer
    from layerprobe.run.request import Inputs

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
    pipe_format: str = "npz",
    **options: Any,
) -> RunReport:
    """Run a saved model over images or arrays and write the activations of its layers to one file.

    Args:
        model: Path of a saved model, or a Keras model.
        inputs: Image files, folders and globs, or array files (`.npy`, `.npz`, `file.h5::dataset`), or a
            `Source`; for a model of several inputs, a mapping from each input's name to such.
        layers: Addresses and patterns; see `modelfile/select.py`.
        output: `.npz`, `.h5`, `.hdf5`, `.parquet`, `.safetensors`, `.jsonl`, `.tar`, or a folder; None: named
            after the input. Or a binary file whose `write` takes everything that it is given, such as
            standard output.
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.
        progress: Called before the first batch and after each.
        stop: Asked after each batch; True ends the run early, as one that `resume` goes on with.
        pipe_format: Of what is written to a binary file: a name in `registry.STREAMS` or `registry.PIPES`.
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
    request = open_request(model, inputs, layers, needs, options)
    probed, sources, how = request.probed, request.sources, request.how
    if output is not None and not isinstance(output, str | os.PathLike):
        check_pipe(pipe_format, how)
        now = clock.add("list", started)
        with closing(probed):
            run = prepare_run(probed, sources, how, clock)
            clock.add("load", now)
            pour(run, open_pipe_stream(output, pipe_format, run.stored, keys_ahead(run)), progress, stop)
        clock.add("total", started)
        return run.report(STANDARD_OUTPUT)
    path, file_format = place_output(request, inputs, output)
    in_place = has_places(request, file_format)
    if not in_place:
        check_stream(file_format, how)
    now = clock.add("list", started)
    with claim(path, file_format, how) as journal, closing(probed), ExitStack() as stack:
        if how.resume and how.batch_size == "auto":
            how = dataclasses.replace(how, batch_size=earlier_batch_size(path, journal.head) or "auto")
        loaded: LoadedModel = probed
        fill: Fill = Run.fill
        if how.processes > 1:
            from layerprobe.workers.team import Team  # It imports what takes time, and few need.

            job = _job(probed, inputs, sources, layers, needs, how)
            team = stack.enter_context(Team(job, how.processes, clock))
            loaded, fill = team.model, team.fill
        run = prepare_run(loaded, sources, how, clock, partial(check_space, path, file_format))
        now = clock.add("load", now)
        if not in_place:
            pour(run, open_file_stream(path, file_format, run.stored, keys_ahead(run)), progress, stop)
            clock.add("total", started)
            return run.report(path)
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
        if journal.rows:
            writer.suspend()
            error.add_note(f"{journal.rows} of {len(run.keys)} rows are kept in an unfinished output")
        raise
    finally:
        writer.abort()
        run.failures.close()
