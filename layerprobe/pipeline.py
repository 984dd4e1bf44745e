"""`extract`: from a saved model and inputs to a file of activations. The only file that knows all stages."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from layerprobe import registry
from layerprobe.engines.cache import user_cache
from layerprobe.errors import AllInputsFailedError, LayerprobeError, UsageError
from layerprobe.failures import check_log
from layerprobe.feeds import ArrayFeed, Clock, Feed, Feeds, ImageFeed, length
from layerprobe.formats.piping import STANDARD_OUTPUT
from layerprobe.formats.streams import open_file_stream, open_pipe_stream
from layerprobe.journal import Journal
from layerprobe.plan import (
    check_not_an_input,
    check_options,
    check_pipe,
    choose_output,
    choose_preprocessing,
    takes_images,
)
from layerprobe.pouring import again, check_stream, keys_ahead, pour
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
from layerprobe.resume import check_same_run, claim, earlier_batch_size, finished_output
from layerprobe.run import Progress, Run, Stop
from layerprobe.shards import parse_shard, rows_of
from layerprobe.sizing import fitted_engine
from layerprobe.sources.opening import open_source

if TYPE_CHECKING:
    from layerprobe.protocols import Engine, LoadedModel, Source, Writer

    Inputs = Source | Sequence[str]
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
        output: `.npz`, `.h5`, `.hdf5`, `.jsonl`, `.tar`, or a folder; None: named after the input. Or a
            binary file whose `write` takes everything that it is given, such as standard output.
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.
        progress: Called before the first batch and after each.
        stop: Asked after each batch; True ends the run early, as one that `resume` goes on with.
        pipe_format: Of what is written to a binary file: npz, npy, jsonl or tar.
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
    how = read_options(options)
    needs = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    cache = user_cache() if how.cache else None
    probed = ProbedModel(model, layers, needs, how.engine, how.device, cache)
    sources = open_sources(inputs, how.limit)
    shard = None if how.shard is None else parse_shard(how.shard)
    if output is not None and not isinstance(output, str | os.PathLike):
        check_pipe(pipe_format, how)
        now = clock.add("list", started)
        with closing(probed):
            run = prepare_run(probed, sources, how, clock)
            clock.add("load", now)
            pour(run, open_pipe_stream(output, pipe_format, run.stored, keys_ahead(run)), progress, stop)
        clock.add("total", started)
        return run.report(STANDARD_OUTPUT)
    keys = [sample.key for sample in itertools.islice(again(next(iter(sources.values()))), 2)]
    path, file_format = choose_output(None if output is None else os.fspath(output), keys, shard)
    check_not_an_input(path, itertools.chain([probed.path], _files_of(inputs)))
    if how.errors_to is not None:
        check_log(how.errors_to, path)
    in_place = file_format in registry.WRITERS and None not in map(length, sources.values())
    if how.resume and (how.training or not probed.path):
        raise UsageError(
            "resume needs a model from a file, without training: it must do exactly what is left to do."
        )
    if not in_place:
        check_stream(file_format, how)
    now = clock.add("list", started)
    with claim(path, file_format, how) as journal, closing(probed), ExitStack() as stack:
        if how.resume and how.batch_size == "auto":
            how = dataclasses.replace(how, batch_size=earlier_batch_size(path, journal) or "auto")
        loaded: LoadedModel = probed
        fill: Fill = Run.fill
        if how.processes > 1:
            from layerprobe.team import Team  # It imports what takes time, and few need.

            job = _job(probed, inputs, sources, layers, needs, how)
            team = stack.enter_context(Team(job, how.processes, clock))
            loaded, fill = team.model, team.fill
        run = prepare_run(loaded, sources, how, clock)
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
        check_same_run(path, journal, run.signature)
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


def prepare_run(probed: LoadedModel, sources: Mapping[str, Source], how: ExtractOptions, clock: Clock) -> Run:
    """Load the model, and build all that computes with it.

    Args:
        probed: The model.
        sources: Its inputs by name; "" where it has only one.
        how: The user's options.
        clock: Counts the seconds of each stage.
    """
    probed.prepare()
    feeds = _feeds(probed, sources, how, clock)
    shard = None if how.shard is None else parse_shard(how.shard)
    if shard is not None and how.batch_size == "auto":
        raise UsageError("shards need one batch size, for it decides their rows: give it as a number.")
    computing = Computing(how.training, how.seed, how.precision, Finish(how.pool, how.dtype))

    def build(batch_size: int) -> Engine:
        return probed.engine(feeds.specs, batch_size=batch_size, how=computing)

    one_size = how.training or probed.fixed_batch_size is not None
    if feeds.rows is None and (shard is not None or how.batch_size == "auto"):
        what = "split: give --shard" if shard is not None else "measured with: give --batch-size auto"
        raise UsageError(f"a stream cannot be {what} files, folders, tar files or lists.")
    rows = feeds.rows if shard is None or feeds.rows is None else max(1, feeds.rows // shard.count)
    engine, note = fitted_engine(probed, feeds, rows, how, build)
    if shard is not None:
        feeds.take(rows_of(shard, len(feeds), engine.batch_size))
    return Run(probed, feeds, engine, how, clock, None if one_size else build, note)


def read_options(options: Mapping[str, Any]) -> ExtractOptions:
    """Check the fields of `ExtractOptions`; those that are not given have their defaults."""
    known = {field.name for field in dataclasses.fields(ExtractOptions)}
    for name in options:
        if name not in known:
            raise UsageError(f"extract has no option {name!r}: expected one of {', '.join(sorted(known))}.")
    checked = ExtractOptions(**options)
    check_options(checked)
    if checked.shard is None:
        return checked
    return dataclasses.replace(checked, shard=str(parse_shard(checked.shard, os.environ)))


def open_sources(inputs: Inputs | Mapping[str, Inputs], limit: int | None) -> dict[str, Source]:
    """By name of the model's input; "" where the model has only one."""
    if isinstance(inputs, Mapping):
        return {name: _open_source(given, limit) for name, given in inputs.items()}
    return {"": _open_source(inputs, limit)}


def _open_source(given: Inputs, limit: int | None) -> Source:
    return open_source(_names(given), limit=limit) if isinstance(given, str | Sequence) else given


def _files_of(inputs: Inputs | Mapping[str, Inputs]) -> Iterator[str]:
    """The files that were named one by one; an output must not replace them."""
    for given in inputs.values() if isinstance(inputs, Mapping) else [inputs]:
        if isinstance(given, str | Sequence):
            yield from (name.split("::")[0] for name in _names(given))
        else:
            yield from (sample.key for sample in again(given))


def _names(given: str | Sequence[str]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str | os.PathLike):
            raise UsageError(
                f"inputs are paths of images or arrays; for arrays in memory there is `Probe`. "
                f"Received: {type(name).__name__}"
            )
    return [os.fspath(name) for name in names]


def _feeds(probed: LoadedModel, sources: Mapping[str, Source], how: ExtractOptions, clock: Clock) -> Feeds:
    """Match sources with the model's inputs, and say how each becomes rows."""
    specs = probed.inputs
    names = [spec.name for spec in specs]
    if set(sources) == {""} and len(specs) > 1:
        raise UsageError(
            f"the model has {len(specs)} inputs: give each with --input NAME=FILE, for {', '.join(names)}."
        )
    for name in sources:
        if name and name not in names:
            raise UsageError(
                f"the model has no input {name!r} that the layers need: they need {', '.join(names)}."
            )
    missing = [name for name in names if name not in sources and "" not in sources]
    if missing:
        raise UsageError(
            f"the model's input {missing[0]!r} is missing: give it with --input {missing[0]}=FILE."
        )
    feeds = [_feed(probed, spec, sources.get(spec.name) or sources[""], how, clock) for spec in specs]
    return Feeds(feeds, how.limit)


def _feed(probed: LoadedModel, spec: TensorSpec, source: Source, how: ExtractOptions, clock: Clock) -> Feed:
    if source.kind == "arrays":
        return ArrayFeed(spec, source, clock)
    if not takes_images(spec):
        shape = ", ".join(["N", *("any" if size is None else str(size) for size in spec.shape)])
        raise UsageError(
            f"input {spec.name!r} does not take images: give an array of shape ({shape}), "
            "as .npy, .npz or file.h5::dataset."
        )
    preprocessing = choose_preprocessing(how, spec, probed.info.layers)
    return ImageFeed(spec, source, preprocessing, how.max_pixels, clock)
