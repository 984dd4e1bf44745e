"""`extract --retry-failed`: the failed rows of a finished output, tried again."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe import registry
from layerprobe.engines.cache import user_cache
from layerprobe.errors import OutputError, OutputFormatError, ResumeError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.records import ExtractOptions, ModelOptions
from layerprobe.run.feeds import Clock
from layerprobe.run.journal import difference
from layerprobe.run.plan import choose_output
from layerprobe.run.preparing import prepare_run
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.request import open_sources, read_options
from layerprobe.run.resume import claim
from layerprobe.sources.file_source import FileSource
from layerprobe.sources.files import Readable
from layerprobe.sources.jsonlines import Listed
from layerprobe.sources.tar import is_tar, members_of
from layerprobe.sources.tar_stream import is_compressed_tar

if TYPE_CHECKING:
    from layerprobe.protocols import Reader, Source, Writer
    from layerprobe.records import Provenance
    from layerprobe.run.loop import Run
    from layerprobe.run.report import RunReport
    from layerprobe.run.request import Inputs

WITHOUT_MEANING = ("resume", "restart", "on_error", "max_errors", "stats")
OF_ONE_RUN = (*WITHOUT_MEANING, "overwrite", "lock", "errors_to")
"""Options that say nothing of what the rows hold, and are not taken from the earlier run."""


def retry_failed(
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    inputs: Inputs | Mapping[str, Inputs] | None = None,
    layers: Sequence[str] = (),
    *,
    needs: ModelOptions | None = None,
    **options: Any,
) -> RunReport:
    """Compute the failed rows of a finished output again; the other rows stay bit for bit as they are.

    The output is written anew beside the old one and then takes its name: at any moment there is the one or
    the other.

    Args:
        output: What `extract` wrote.
        model: Path of the model; None: the one in the provenance.
        inputs: All inputs of the run, as for `extract`; None: the paths in the output, where they are images.
        layers: All layers of the run, in order; empty: those in the provenance.
        needs: What the model's file needs beside itself.
        options: Of `extract`, where they are not to be those in the provenance.

    Returns:
        What the output holds now.

    Raises:
        ResumeError: Model, layers, options or inputs are not those of the run.
        AllInputsFailedError: There is still not one row; the output is as it was.
        LayerprobeError: As `extract`; whatever is raised, the output is as it was.
    """
    path, clock, started = os.fspath(output), Clock(), time.perf_counter()
    for name in WITHOUT_MEANING:
        if name in options:
            raise UsageError(f"to try failed rows again takes no {name}: leave that out.")
    with open_output(path) as reader:
        try:
            earlier = reader.provenance["run"]["signature"]
            how = _options(reader, options)
            model = model or reader.provenance["model"]["path"]
            layers = layers or [layer["name"] for layer in reader.provenance["layers"]]
        except (LookupError, TypeError) as error:
            raise OutputFormatError(f"{path!r} does not say how it was made: run extract again.") from error
        if how.training or not model:
            raise UsageError(f"{path!r} is of training, or of a model in no file: run extract again.")
        sources = {"": _recorded(reader)} if inputs is None else open_sources(inputs, how.limit)
        cache = user_cache() if how.cache else None
        probed = ProbedModel(model, layers, needs or ModelOptions(), how.engine, how.device, cache)
        file_format = choose_output(path, [])[1]
        if file_format not in registry.WRITERS:
            raise UsageError(f"rows of a .{file_format} file have no places to try again: run extract again.")
        with claim(path, file_format, how) as journal, closing(probed):
            if journal.head is not None:
                raise OutputError(f"{path!r} is what an unfinished run writes: finish that with --resume.")
            now = clock.add("list", started)
            run = prepare_run(probed, sources, how, clock)
            clock.add("load", now)
            if (found := difference(earlier, run.signature)) is not None:
                what, before, after = found
                raise ResumeError(
                    f"{path!r} is of another run, for its {what} was {before}, now it is {after}: "
                    "give the same model, layers, inputs and options."
                )
            if "failed" not in reader.status:
                clock.add("total", started)
                return run.nothing_to_do(reader)
            writer = registry.find(registry.WRITERS, file_format, "format")(path, run.stored, run.keys)
            try:
                _write(run, writer, reader)
            finally:
                writer.abort()
                run.failures.close()
        clock.add("total", started)
        return run.report(path)


def _options(reader: Reader, given: Mapping[str, Any]) -> ExtractOptions:
    known = {field.name for field in dataclasses.fields(ExtractOptions)} - set(OF_ONE_RUN)
    recorded = {name: value for name, value in reader.provenance["options"].items() if name in known}
    if isinstance(recorded.get("size"), list):
        recorded["size"] = tuple(recorded["size"])
    recorded["batch_size"] = reader.provenance["run"]["signature"]["batch_size"]
    return read_options({**recorded, **given, "overwrite": True})


def _recorded(reader: Reader) -> Source:
    """The images that the output names."""
    if reader.provenance["preprocessing"] is None or reader.provenance["options"].get("shard") is not None:
        raise UsageError(f"{reader.path!r} is of arrays, or a part of a list: give all its inputs again.")
    members: dict[str, dict[str, Readable]] = {}
    files: list[str | Readable] = []
    for key in reader.paths:
        archive, inside, _ = key.partition("::")
        if inside and (archive == "-" or is_compressed_tar(archive)):
            raise UsageError(f"{reader.path!r} is of a tar stream, which has no places: run extract again.")
        if inside and is_tar(archive):
            if archive not in members:
                members[archive] = {member.key: member for member in members_of(archive)}
            files.append(members[archive].get(key, key))
        else:
            files.append(key)
    fields = reader.fields
    if fields is None:
        return FileSource(files)
    texts = [json.dumps(said) if said else "" for said in fields]
    return FileSource([Listed(file, text) for file, text in zip(files, texts, strict=True)])


def _write(run: Run, writer: Writer, reader: Reader) -> None:
    """Write all rows, those that had failed as they come out now."""
    bad = np.array([status != "ok" for status in reader.status], bool)
    size, rows = run.engine.batch_size, len(bad)
    whole = [start for start in range(0, rows, size) if not bad[start : start + size].any()]
    for start in whole:
        writer.write(start, {name: np.array(reader[name][start : start + size]) for name in reader})
    run.leave_out(whole)
    with closing(run.computed()) as computed:
        for batch, results in computed:
            stop = batch.start + batch.size
            good = ~bad[batch.start : stop]
            block = {name: np.array(values) for name, values in run.storing.block(batch, results).items()}
            for name, values in block.items():
                values[good] = reader[name][batch.start : stop][good]
            writer.write(batch.start, block)
            # A row that was right stays so, also where its image is gone by now.
            run.failures.adopt(failure for failure in batch.failures if bad[failure.index])
    run.failures.begin()
    run.commit(writer, _joined(run, reader, int(bad.sum())))


def _joined(run: Run, reader: Reader, tried: int) -> Provenance:
    """The provenance of the earlier run, and what was done now."""
    now, before = run.provenance(), reader.provenance
    retried = {"started": now.started, "rows": tried, "failed": len(run.failures), "versions": now.versions}
    told = {"retried": [*before["run"].get("retried", []), retried]}
    return dataclasses.replace(
        now,
        options=before["options"],
        engine=before["engine"],
        versions=before["versions"],
        started=before["started"],
        run={**before["run"], **told},
    )
