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
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from layerprobe.feeds import Clock
    from layerprobe.journal import Entry, Journal
    from layerprobe.probed_model import ProbedModel
    from layerprobe.protocols import Writer
    from layerprobe.remote import Described, Job
    from layerprobe.run import Run


def main() -> None:
    """Do what comes through the descriptor `argv[1]`, on the processors `argv[2:]`."""
    # A signal to the whole group is for the run to heed; it ends its workers.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Before anything is imported that counts processors: OpenVINO and others take all that there are.
    os.sched_setaffinity(0, map(int, sys.argv[2:]))
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
    from layerprobe.engines.cache import user_cache
    from layerprobe.feeds import Clock
    from layerprobe.formats.places import PlacedRows
    from layerprobe.pipeline import open_sources, prepare_run
    from layerprobe.probed_model import ProbedModel

    job: Job = _next(received)
    how, clock = job.how, Clock()
    cache = user_cache() if how.cache else None
    with closing(ProbedModel(job.model, job.layers, job.needs, how.engine, how.device, cache)) as probed:
        run = prepare_run(probed, open_sources(job.inputs, how.limit), how, clock)
        connection.send(describe(probed, run))
        task = _next(received)
        run.do_only(task.starts)
        rows, reporter = PlacedRows(task.places), _Reporter(connection, run, clock)
        # Of a writer and a journal a run needs no more to put rows at their places than these two have.
        run.fill(cast("Writer", rows), journal=cast("Journal", reporter))
    connection.send(None)


def _next(received: SimpleQueue[Any]) -> Any:
    message = received.get()
    if isinstance(message, BaseException):
        raise message
    return message


def describe(probed: ProbedModel, run: Run) -> Described:
    """Say what the model is and what runs it."""
    from layerprobe.remote import Described

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


class _Reporter:
    """Stands where a run's journal does: what would be noted is told."""

    due = False

    def __init__(self, connection: Connection, run: Run, clock: Clock) -> None:
        self._connection, self._run, self._clock = connection, run, clock

    def add(self, entry: Entry) -> None:
        """Tell that a batch stands at its place."""
        from layerprobe.remote import Counts, Written

        counts = Counts(
            self._run.feeds.animated,
            dict(self._run.storing.overflows),
            dict(self._clock.seconds),
            self._run.engine.describe(),
            self._run.engine.at_once,
        )
        self._connection.send(Written(entry, counts))


def _portable(error: BaseException) -> Exception:
    """What ends this worker, as it can be raised in another process."""
    from layerprobe.errors import LayerprobeError, ResourceError

    if isinstance(error, LayerprobeError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError("not enough memory: give fewer --processes or a smaller --batch-size.")
    told = "".join(traceback.format_exception(error))
    return RuntimeError(f"in a worker process:\n{told}")
