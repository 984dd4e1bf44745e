"""`extract --retry-failed`: the failed rows of a finished output, tried again."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import OutputError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.formats.writing import open_writer
from layerprobe.options import ModelOptions
from layerprobe.run.clock import Clock
from layerprobe.run.plan import choose_output
from layerprobe.run.preparing import prepare_run
from layerprobe.run.recorded import WITHOUT_MEANING, Given, open_recorded
from layerprobe.run.resume import claim
from layerprobe.run.said import SaidOfRun
from layerprobe.run.tally import Tally
from layerprobe.stores.urls import is_url, shown

if TYPE_CHECKING:
    from layerprobe.protocols import Reader, Writer
    from layerprobe.records import Array, Batch, Provenance
    from layerprobe.run.loop import Run
    from layerprobe.run.report import RunReport
    from layerprobe.run.request import Inputs


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
    if is_url(path):
        raise UsageError(f"{shown(path)!r} is in a store, where no row can be replaced: fetch it first.")
    with open_output(path) as reader:
        given = Given(model, inputs, layers, needs or ModelOptions(), {**options, "overwrite": True})
        recorded = open_recorded(reader, given, whole=True)
        probed, sources, how = recorded.request.probed, recorded.request.sources, recorded.request.how
        file_format = choose_output(path, [])[1]
        with claim(path, file_format, how) as journal, closing(probed):
            if journal.head is not None:
                raise OutputError(f"{path!r} is what an unfinished run writes: finish that with --resume.")
            now = clock.add("list", started)
            run = prepare_run(probed, sources, how, clock)
            clock.add("load", now)
            recorded.check_same(run.signature)
            if "failed" not in reader.status:
                clock.add("total", started)
                return run.nothing_to_do(reader)
            writer = open_writer(
                path,
                file_format,
                run.stored,
                SaidOfRun(run.feeds, run.failures),
                compress=how.compress,
                batch_size=run.engine.batch_size,
            )
            try:
                _write(run, writer, reader)
            finally:
                writer.abort()
                run.failures.close()
        clock.add("total", started)
        return run.report(path)


def _write(run: Run, writer: Writer, reader: Reader) -> None:
    """Write all rows in their order, those that had failed as they come out now."""
    bad = np.array([status != "ok" for status in reader.status], bool)
    size, rows = run.engine.batch_size, len(bad)
    layers = {name: reader[name] for name in reader}
    whole = deque(start for start in range(0, rows, size) if not bad[start : start + size].any())
    run.leave_out(whole)
    run.tally = Tally.of(reader.provenance)

    def write_whole(before: int) -> None:
        while whole and whole[0] < before:
            start = whole.popleft()
            writer.write(start, {name: np.array(layers[name][start : start + size]) for name in layers})

    with closing(run.computed()) as computed:
        for batch, results in computed:
            stop = batch.start + batch.size
            good = ~bad[batch.start : stop]
            block = {name: np.array(values) for name, values in run.storing.block(batch, results).items()}
            _count(run, batch, bad[batch.start : stop])
            for name, values in block.items():
                values[good] = layers[name][batch.start : stop][good]
            # A row that was right stays so, also where its image is gone by now.
            run.failures.adopt(failure for failure in batch.failures if bad[failure.index])
            write_whole(batch.start)
            writer.write(batch.start, block)
    write_whole(rows)
    run.failures.begin()
    run.commit(writer, _joined(run, reader, int(bad.sum())))


def _count(run: Run, batch: Batch, bad: Array) -> None:
    """Add what is counted of the rows of the last block that had failed and are mended, and of no others.

    Args:
        run: Which computed the block.
        batch: Of which the block is.
        bad: (B,), whether a row had failed.
    """
    mended = [number for number, place in enumerate(batch.rows) if bad[place]]
    overflows = run.storing.overflows
    if overflows and len(mended) < len(batch.rows):
        # Of a block the values are counted together: those of the mended rows are computed alone.
        rows, inputs = [batch.rows[number] for number in mended], tuple(each[mended] for each in batch.inputs)
        alone = dataclasses.replace(batch, rows=rows, inputs=inputs)
        run.storing.block(alone, run.engine.run(inputs) if mended else {})
        overflows = run.storing.overflows
    several = sum(batch.frames[batch.rows[number]] for number in mended)
    run.tally.add(several, overflows)


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
