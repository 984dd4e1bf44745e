"""The worker processes of a run, as its own process sees them: what each does, and what when one dies.

    with Team(job, processes, clock) as team:   # the first one has loaded the model
        run = prepare_run(team.model, ...)      # which is not loaded here
        ...
        team.fill(run, writer, ...)             # the others load it too; rows come in any order

Each worker has its share of the batches, every P-th, so that slow ones are shared out too. It puts rows at
their places in the output by itself; here they are brought to disk and noted in the journal. Workers have
no shared state: one that dies is replaced, and what it had not reported is done again.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from layerprobe.engines.device import visible_gpus
from layerprobe.errors import ResourceError, StoppedError, UnavailableError, UsageError
from layerprobe.run.journal import difference
from layerprobe.workers.remote import Counts, Described, Job, RemoteModel, Task, Written

if TYPE_CHECKING:
    from layerprobe.formats.places import RowPlaces
    from layerprobe.protocols import Writer
    from layerprobe.run.feeds import Clock
    from layerprobe.run.journal import Journal
    from layerprobe.run.loop import Progress, Run, Stop

DEATHS = 3
"""So often in a row a worker may die without a batch in between."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from layerprobe.workers.worker import main; main()"


@dataclass(slots=True)
class _Worker:
    """One of them; when it dies, another process takes its place."""

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    left: list[int] = field(default_factory=list)
    """First rows of the batches that it is to do and has not reported."""
    deaths: int = 0
    """Since the last batch."""


class Team:
    """The workers of one run; see the module.

    Args:
        job: What they are to compute.
        processes: How many there may be.
        clock: Counts the seconds of each stage; those of workers as if one had done what each did.

    Raises:
        LayerprobeError: The first worker cannot load the model.
        ResourceError: It dies again and again.
        UsageError: What the model needs cannot be sent to other processes.
    """

    def __init__(self, job: Job, processes: int, clock: Clock) -> None:
        self._job, self._processes, self._clock = job, processes, clock
        self._cores = sorted(os.sched_getaffinity(0))
        self._gpus = [] if job.how.device == "cpu" else visible_gpus()
        self._workers: dict[Connection, _Worker] = {}
        self._counts: dict[int, Counts] = {}
        """By process, for one that died has counted too."""
        try:
            self._start(0)
            # One at first: so what is wrong with the model is told once, and what is converted is kept.
            _, first = next(self._messages())
            assert isinstance(first, Described)
            self._described = first
            # Where that was measured, it is for all.
            self._job = replace(job, how=replace(job.how, batch_size=first.batch_size))
        except BaseException:
            self.close()
            raise
        self.model = RemoteModel(first)
        """The model, as far as this process has to know it."""

    def fill(
        self,
        run: Run,
        writer: Writer,
        progress: Progress | None = None,
        journal: Journal | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Have the workers compute every row that is not there yet, as `Run.fill` does in this process."""
        run.failures.begin()
        total, left = len(run.feeds), run.left
        done = total - sum(min(run.engine.batch_size, total - start) for start in left)
        if progress is not None:
            progress(done, total, len(run.failures))
        try:
            for entry in self._entries(left, writer.places):
                run.failures.add(entry.failures)
                run.take(entry.block, writer)
                if journal is not None:
                    journal.add(entry)
                    if journal.due:
                        run.checkpoint(writer, journal)
                done += entry.block.stop - entry.block.start
                if progress is not None:
                    progress(done, total, len(run.failures))
                if stop is not None and done < total and stop():
                    raise StoppedError(f"stopped after {done} of {total} rows.")
        finally:
            self.close()
            self._sum_up(run)

    def _entries(self, starts: Sequence[int], places: RowPlaces) -> Iterator[Any]:
        """Share out batches; give what was written, as it is reported."""
        (first,) = self._workers.values()
        count = min(self._processes, len(starts))
        first.left = list(starts[::count]) if count else []
        if not first.left:
            return
        for number in range(1, count):
            self._start(number).left = list(starts[number::count])
        self._send(first, Task(places, first.left))
        for worker, message in self._messages():
            if isinstance(message, Described):
                self._check_alike(message)
                self._send(worker, Task(places, worker.left))
            elif isinstance(message, Written):
                self._check_engine(message.counts.engine)
                self._counts[worker.process.pid] = message.counts
                worker.left.remove(message.entry.block.start)
                worker.deaths = 0
                yield message.entry

    def _messages(self) -> Iterator[tuple[_Worker, object]]:
        """What workers tell, until every one has done its share; those that die are replaced."""
        while self._workers:
            for connection in wait(list(self._workers)):
                assert isinstance(connection, Connection)
                worker = self._workers[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    self._end(worker)
                else:
                    yield worker, message

    def _start(self, number: int) -> _Worker:
        """Start a process and tell it its job."""
        ours, theirs = socket.socketpair()
        cores = _share(self._cores, number, self._processes)
        with theirs:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _PROGRAM.format(path=sys.path)),
                    *(str(theirs.fileno()), *map(str, cores)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=self._environment(number),
            )
        worker = _Worker(number, process, Connection(ours.detach()))
        self._workers[worker.connection] = worker
        self._send(worker, self._job)
        return worker

    def _environment(self, number: int) -> dict[str, str]:
        """Of the process; of several GPUs it sees one."""
        if not self._gpus:
            return dict(os.environ)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": self._gpus[number % len(self._gpus)]}

    def _send(self, worker: _Worker, message: Job | Task) -> None:
        try:
            worker.connection.send(message)
        except OSError:
            return  # It died: that shows where its messages are awaited.
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(
                f"what the model needs cannot be sent to other processes ({error}): leave --processes out."
            ) from error

    def _replace(self, dead: _Worker) -> None:
        """Have another process do what one that died has not reported."""
        self._end(dead)
        if not dead.left and hasattr(self, "_described"):
            return
        deaths = dead.deaths + 1
        if deaths >= DEATHS:
            raise ResourceError(
                f"a worker died ({_ending(dead.process.returncode)}), and so did {DEATHS - 1} before in its "
                "place: give fewer --processes or a smaller --batch-size."
            )
        worker = self._start(dead.number)
        worker.left, worker.deaths = dead.left, deaths

    def _check_alike(self, found: Described) -> None:
        """See to it that every worker computes the same."""
        different = difference(self._described.signature, found.signature)
        if different is not None:
            what, one, other = different
            raise UnavailableError(
                f"worker processes would not compute alike, for the {what} is {one} in one and {other} in "
                "another: say which --engine and --device."
            )

    def _check_engine(self, engine: Any) -> None:
        """See to it that the engine of a worker is the one that was described, also after its first batch."""
        if engine != self._described.engine:
            raise UnavailableError(
                f"the {self._described.engine['name']} engine turned out not to compute this model as Keras "
                f"does: give --engine {engine['name']}."
            )

    def _sum_up(self, run: Run) -> None:
        """Count what the workers counted."""
        for counts in self._counts.values():
            run.feeds.animated_elsewhere += counts.animated
            for layer, count in counts.overflows.items():
                run.storing.overflows[layer] = run.storing.overflows.get(layer, 0) + count
            self.model.built.batch_size = min(self.model.built.batch_size, counts.at_once)
            for stage, seconds in counts.seconds.items():
                share = seconds / min(self._processes, len(self._counts))
                self._clock.seconds[stage] = self._clock.seconds.get(stage, 0.0) + share

    def _end(self, worker: _Worker) -> None:
        """End a process, if it has not ended; what it wrote is sound at any moment."""
        self._workers.pop(worker.connection, None)
        worker.connection.close()
        with suppress(ProcessLookupError):
            worker.process.kill()
        worker.process.wait()

    def close(self) -> None:
        """End all of them."""
        for worker in list(self._workers.values()):
            self._end(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _share(cores: Sequence[int], number: int, processes: int) -> Sequence[int]:
    """The processors of one worker: as many as the others have, or one more; neighbours."""
    share = cores[number * len(cores) // processes : (number + 1) * len(cores) // processes]
    return share or [cores[number % len(cores)]]


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"signal {-code}, {signal.Signals(-code).name}"
    return f"exit code {code}"
