"""A crew of processes on this machine: what each does, and what when one dies.

Each has its share of the batches, every P-th, so that slow ones are shared out too. Where one dies another
takes its place.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from layerprobe.engines.device import visible_gpus
from layerprobe.errors import ResourceError, UsageError
from layerprobe.processors import processors
from layerprobe.workers.crew import Crew
from layerprobe.workers.remote import Described, Job, Task, Written

if TYPE_CHECKING:
    from layerprobe.formats.places import RowPlaces
    from layerprobe.run.clock import Clock

DEATHS = 3
"""So often in a row a worker may die without a batch in between."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from layerprobe.workers.worker import main; main()"


@dataclass(slots=True)
class _Worker:
    """One of them; when it dies, another process takes its place."""

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    left: Sequence[int] = ()
    """First rows of the batches that it is to do and has not reported."""
    deaths: int = 0
    """Since the last batch."""


class Team(Crew):
    """The worker processes of one run; see the module and `Crew`.

    Args:
        job: What they are to compute.
        processes: How many there may be.
        clock: Counts the seconds of each stage.

    Raises:
        LayerprobeError: The first worker cannot load the model.
        ResourceError: It dies again and again.
        UsageError: What the model needs cannot be sent to other processes.
    """

    def __init__(self, job: Job, processes: int, clock: Clock) -> None:
        super().__init__(clock)
        self._job, self._processes = job, processes
        self._cores = processors()
        self._gpus = [] if job.how.device == "cpu" else visible_gpus()
        self._workers: dict[Connection, _Worker] = {}
        try:
            self._start(0)
            # One at first: so what is wrong with the model is told once, and what is converted is kept.
            _, first = next(self._messages())
            assert isinstance(first, Described)
            self.meet(first)
            # Where that was measured, it is for all.
            self._job = replace(job, how=replace(job.how, batch_size=first.batch_size))
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """How many work at the same time, at most."""
        return self._processes

    def work(
        self, starts: Sequence[int], places: RowPlaces
    ) -> Generator[tuple[object, Written] | None, None, None]:
        """Have batches computed; see `Crew.work`."""
        (first,) = self._workers.values()
        count = min(self._processes, len(starts))
        if not count:
            return
        first.left = starts[::count]
        for number in range(1, count):
            self._start(number).left = starts[number::count]
        self._send(first, Task(places, first.left))
        for worker, message in self._messages():
            if isinstance(message, Described):
                self.meet(message)
                self._send(worker, Task(places, worker.left))
            elif isinstance(message, Written):
                worker.left = worker.left[1:]  # it does them in their order
                worker.deaths = 0
                yield worker.process.pid, message

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
        if not dead.left and self._described is not None:
            return
        self.lost, deaths = self.lost + 1, dead.deaths + 1
        if deaths >= DEATHS:
            raise ResourceError(
                f"a worker died ({_ending(dead.process.returncode)}), and so did {DEATHS - 1} before in its "
                "place: give fewer --processes or a smaller --batch-size."
            )
        worker = self._start(dead.number)
        worker.left, worker.deaths = dead.left, deaths

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


def _share(cores: Sequence[int], number: int, processes: int) -> Sequence[int]:
    """The processors of one worker: as many as the others have, or one more; neighbours."""
    share = cores[number * len(cores) // processes : (number + 1) * len(cores) // processes]
    return share or [cores[number % len(cores)]]


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"signal {-code}, {signal.Signals(-code).name}"
    return f"exit code {code}"
