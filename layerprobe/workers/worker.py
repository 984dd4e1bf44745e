"""A worker process of a run: loads the model, computes the batches it is told to, puts them at their places.

`team.py` starts it with a connection as a descriptor, through which it is told its job and then its task, and
tells what it has done. When the other end is closed, in whatever way, it ends at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import closing
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from layerprobe.processors import bind

if TYPE_CHECKING:
    from layerprobe.run.clock import Clock
    from layerprobe.run.loop import Run
    from layerprobe.run.probed_model import ProbedModel
    from layerprobe.workers.remote import Counts, Described, Job


def main() -> None:
    """Do what comes through the descriptor `argv[1]`, on the processors `argv[2:]`."""
    # A signal to the whole group is for the run to heed; it ends its workers.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Before anything is imported that counts processors: OpenVINO and others take all that there are.
    bind(map(int, sys.argv[2:]))
    connection = Connection(int(sys.argv[1]))
    received: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), daemon=True).start()
    try:
        _work(connection, received)
    except BaseException as error:
        connection.send(_portable(error))
    sys.stdout.flush()
    # Frameworks may take seconds to tidy up what ends here anyway.
    os._exit(0)


def _receive(connection: Connection, received: SimpleQueue[Any]) -> None:
    try:
        while True:
            received.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)
    except BaseException as error:  # what was sent cannot be understood here
        received.put(error)


def _work(connection: Connection, received: SimpleQueue[Any]) -> None:
    from layerprobe.formats.places import PlacedRows
    from layerprobe.run.clock import Clock
    from layerprobe.workers.remote import Written

    job: Job = _next(received)
    clock = Clock()
    with closing(probed_model(job)) as probed:
        run = prepared_run(job, probed, clock)
        connection.send(describe(probed, run))
        task = _next(received)
        run.assign(task.starts)
        rows = PlacedRows(task.places)
        with closing(run.blocks(None, None)) as blocks:
            for batch, block in blocks:
                written = rows.write(batch.start, block)
                connection.send(Written(run.entry(batch, written), count(run, clock)))
    connection.send(None)


def _next(received: SimpleQueue[Any]) -> Any:
    message = received.get()
    if isinstance(message, BaseException):
        raise message
    return message


def probed_model(job: Job) -> ProbedModel:
    """Open the model of a job. Raises LayerprobeError."""
    from layerprobe.engines.cache import user_cache
    from layerprobe.run.probed_model import ProbedModel

    how = job.how
    cache = user_cache() if how.cache else None
    return ProbedModel(job.model, job.layers, job.needs, how.engine, how.device, cache)


def prepared_run(job: Job, probed: ProbedModel, clock: Clock) -> Run:
    """Open the inputs of a job and build what computes them. Raises LayerprobeError."""
    from layerprobe.run.preparing import prepare_run
    from layerprobe.run.request import open_sources

    return prepare_run(probed, open_sources(job.inputs, job.how.limit), job.how, clock)


def describe(probed: ProbedModel, run: Run) -> Described:
    """Say what the model is and what runs it."""
    from layerprobe.workers.remote import Described

    notes = [note for note in (probed.note, run.batch_note) if note is not None]
    return Described(
        path=probed.path,
        note="; ".join(notes) or None,
        info=probed.info,
        inputs=probed.inputs,
        provenance=probed.provenance(),
        signature=run.signature,
        model_signature=probed.signature(),
        outputs=run.engine.outputs,
        batch_size=run.engine.batch_size,
        engine=run.engine.describe(),
    )


def count(run: Run, clock: Clock) -> Counts:
    """Say what was counted so far."""
    from layerprobe.stores.attempts import repeated_here
    from layerprobe.workers.remote import Counts

    return Counts(dict(clock.seconds), run.engine.describe(), run.engine.at_once, repeated_here())


def _portable(error: BaseException) -> Exception:
    """What ends this worker, as it can be raised in another process."""
    from layerprobe.errors import LayerprobeError, ResourceError

    if isinstance(error, LayerprobeError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError("not enough memory: give fewer --processes or a smaller --batch-size.")
    told = "".join(traceback.format_exception(error))
    return RuntimeError(f"in a worker process:\n{told}")
