"""The workers of a run on a Ray cluster, as its own process, the driver, sees them.

Ray places the workers, and moves what is said between the nodes. Here is only said which batches come next:
spans of them, two at a time for each worker, so that it never waits and never has more. In the place of a
worker that died comes another, and what it had not reported goes to the next that is free, when the dead one
can write no more. Ray's own retries are bound to the worker, and would wait for a node that may never return.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from layerprobe.cluster.connection import capacity, connect, needs
from layerprobe.cluster.given_up import GivenUp, kill
from layerprobe.cluster.patience import Patience
from layerprobe.cluster.second_look import SecondLook
from layerprobe.cluster.worker import ClusterWorker
from layerprobe.errors import LayerprobeError, ResourceError, UnavailableError
from layerprobe.workers.crew import Crew
from layerprobe.workers.remote import Job, Written

if TYPE_CHECKING:
    from layerprobe.formats.places import RowPlaces
    from layerprobe.run.clock import Clock
    from layerprobe.run.cluster_options import ClusterOptions
    from layerprobe.run.loop import Run

SPAN_BATCHES = 16
"""So many batches are said at once, fewer where there are few: a worker that dies costs two such spans."""
SPANS_AT_ONCE = 2
"""For each worker: one is computed, one waits."""
TRIES = 3
"""So often a span may be lost with its worker."""
SECONDS_FOR_A_NODE = 60.0
"""A cluster that grows by itself may have none yet that is large enough."""
SECONDS_TO_WAIT = 1.0
"""After which is looked whether the run shall stop."""


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor, wherever it is at the moment."""

    actor: Any
    node: str = ""
    slot: int = -1
    """Which of the shares of its node's processors it has."""
    ready: bool = False


@dataclass(slots=True)
class _Span:
    starts: Sequence[int]
    tries: int = 0


@dataclass(slots=True)
class _Waiting:
    """What has been asked and not been answered: object reference -> whose answer it is, and to what."""

    places: dict[Any, _Worker] = field(default_factory=dict)
    """For the node that a worker is on."""
    descriptions: dict[Any, _Worker] = field(default_factory=dict)
    spans: dict[Any, tuple[_Worker, _Span]] = field(default_factory=dict)

    @property
    def references(self) -> list[Any]:
        return [*self.places, *self.descriptions, *self.spans]


class RayCrew(Crew):
    """The workers of one run; see the module and `Crew`.

    Args:
        job: What they are to compute.
        cluster: Where, and how many.
        clock: Counts the seconds of each stage.
        notice: Given what is to be known while workers are waited for.

    Raises:
        UnavailableError: There is no such cluster, or it can never have room for so many workers.
        LayerprobeError: The first worker cannot load the model.
        ResourceError: It dies again and again.
    """

    worker = ClusterWorker
    """What Ray makes actors of."""

    def __init__(
        self,
        job: Job,
        cluster: ClusterOptions,
        clock: Clock,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(clock)
        self._options = cluster
        self._workers: list[_Worker] = []
        self._waiting = _Waiting()
        self._given_up: GivenUp[_Span] = GivenUp()
        self._second_look = SecondLook()
        self._losses = 0
        """Of workers, since the last span."""
        self._began = time.monotonic()
        self._connection, found, grows = connect(cluster.address)
        try:
            self._patience = Patience(cluster, notice)
            if not grows:
                self._check_room(cluster.least)
            self._most = cluster.most or max(1, capacity(cluster))
            self._job = ray.put(job)
            # One at first: so what is wrong with the model is told once, and what is converted is kept.
            self._add()
            self._await_workers(1)
            if found is not None:
                on = f"computed on the Ray cluster at {found}, which this machine belongs to"
                self.model.note = "; ".join(filter(None, (self.model.note, on)))
            for _ in range(cluster.least - 1):
                self._add()
            self._await_workers(cluster.least)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """How many work at the same time, at most."""
        return self._most

    def work(
        self, starts: Sequence[int], places: RowPlaces
    ) -> Generator[tuple[object, Written] | None, None, None]:
        """Have batches computed; see `Crew.work`."""
        todo = deque(_spans(starts, self._most))
        told = ray.put(places)
        for _ in range(min(self._most, len(todo)) - len(self._workers)):
            self._add()
        while todo or self._waiting.spans or self._given_up:
            todo.extendleft(self._given_up.freed())
            self._share_out(todo, told)
            self._patience.tell(self._workers, 1)
            answered = self._answered()
            if answered in self._waiting.spans:
                yield from self._take(answered)
            else:
                self._hear(answered)
                yield None

    def check(self, run: Run, process: object, written: Written) -> None:
        """See to it also that rows which a node cannot read cannot be read here either."""
        super().check(run, process, written)
        node, _ = cast(tuple[str, int], process)
        self._second_look.check(node, run.feeds, written.entry.failures)

    def _answered(self) -> Any:
        """What Ray has an answer to; None: to nothing yet."""
        references = self._waiting.references
        if not references:  # All have done what they were told, and what is left is still kept back.
            time.sleep(SECONDS_TO_WAIT)
            return None
        try:
            answered, _ = ray.wait(references, timeout=SECONDS_TO_WAIT)
        except RayError as error:
            raise UnavailableError(f"the Ray cluster is gone ({_told(error)}).") from error
        return answered[0] if answered else None

    def _await_workers(self, count: int) -> None:
        """Wait until so many are ready; raises UnavailableError when no node is large enough for one."""
        while sum(worker.ready for worker in self._workers) < count:
            self._hear(self._answered())
            self._patience.tell(self._workers, self._options.least)
            if time.monotonic() - self._began > SECONDS_FOR_A_NODE:
                self._check_room(1)

    def _check_room(self, workers: int) -> None:
        """Raise UnavailableError where the nodes have no room for so many, though nothing else ran there."""
        there = capacity(self._options)
        if there < workers:
            raise UnavailableError(
                f"the cluster has room for {there} workers, each with {needs(self._options)} of one node, "
                f"and not for {workers}: give fewer --workers, --cpus-per-worker or --gpus-per-worker."
            )

    def _add(self) -> None:
        """Have Ray start a worker, now or when there is room for it."""
        made = ray.remote(self.worker).options(num_cpus=self._options.cpus, num_gpus=self._options.gpus)
        worker = _Worker(made.remote(os.getcwd()))
        self._workers.append(worker)
        self._waiting.places[worker.actor.node.remote()] = worker

    def _replace(self, worker: _Worker, error: RayError) -> None:
        """Have another in the place of one that died, or that cannot be reached."""
        if worker in self._workers:  # Else it was, when its other span was lost.
            self._count_loss(error)
            self._workers.remove(worker)
            kill(worker.actor)
            self._add()

    def _hear(self, answered: Any) -> None:
        """Take what a worker says of itself; None: nothing was said."""
        if answered is None:
            return
        if answered in self._waiting.places:
            worker = self._waiting.places.pop(answered)
            try:
                worker.node, processors = _value(answered)
            except RayError as error:
                self._replace(worker, error)
                return
            share = self._share_of(worker, processors)
            # Where the batch size was measured, it is for all.
            batch_size = None if self._described is None else self._described.batch_size
            self._waiting.descriptions[worker.actor.describe.remote(self._job, share, batch_size)] = worker
            return
        worker = self._waiting.descriptions.pop(answered)
        try:
            self.meet(_value(answered))
            worker.ready = True
        except RayError as error:
            self._replace(worker, error)

    def _share_of(self, worker: _Worker, processors: Sequence[int]) -> Sequence[int]:
        """The processors for a worker on its node, others than its neighbours'; () for too few."""
        count = max(1, int(self._options.cpus))
        taken = {other.slot for other in self._workers if other.node == worker.node and other is not worker}
        worker.slot = next(slot for slot in itertools.count() if slot not in taken)
        share = processors[worker.slot * count : (worker.slot + 1) * count]
        return share if len(share) == count else ()

    def _share_out(self, todo: deque[_Span], places: Any) -> None:
        """Give spans to those that have fewer than they may."""
        busy = Counter(id(worker) for worker, _ in self._waiting.spans.values())
        for worker in self._workers:
            if not worker.ready:
                continue
            for _ in range(SPANS_AT_ONCE - busy[id(worker)]):
                if not todo:
                    return
                span = todo.popleft()
                self._waiting.spans[worker.actor.compute.remote(places, list(span.starts))] = (worker, span)

    def _take(self, answered: Any) -> Iterator[tuple[object, Written]]:
        """Give what was written of a span, or have it done again."""
        worker, span = self._waiting.spans.pop(answered)
        try:
            process, written = _value(answered)
        except RayError as error:
            span.tries += 1
            if span.tries == TRIES:
                raise ResourceError(
                    f"{TRIES} workers died over the batches from row {span.starts[0]} on ({_told(error)}): "
                    "give a smaller --batch-size, or more memory to each worker."
                ) from error
            self._replace(worker, error)
            self._given_up.add(worker.actor, span)
            return
        self._losses = 0
        for one in written:
            yield process, one

    def _count_loss(self, error: RayError) -> None:
        self.lost += 1
        self._losses += 1
        if self._losses > TRIES * self._most:
            raise ResourceError(
                f"workers die again and again without a batch in between ({_told(error)}): "
                "give a smaller --batch-size, or more memory to each worker."
            ) from error

    def close(self) -> None:
        """End all workers, and the connection if it was made here."""
        for worker in self._workers:
            with suppress(Exception):  # The cluster may be gone.
                ray.kill(worker.actor)
        self._workers.clear()
        self._connection.close()


def _spans(starts: Sequence[int], workers: int) -> Iterator[_Span]:
    """Batches that follow each other; short spans where there are few, so that all workers end together."""
    length = max(1, min(SPAN_BATCHES, len(starts) // (4 * workers)))
    for place in range(0, len(starts), length):
        yield _Span(starts[place : place + length])


def _value(reference: Any) -> Any:
    """What a worker answered; raises what it raised.

    Raises:
        RayError: It died, or its answer with its node.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, LayerprobeError):
            raise error.cause from None
        if isinstance(error.cause, MemoryError):
            raise ResourceError("a worker has not enough memory: give a smaller --batch-size.") from error
        raise RuntimeError(f"in a worker of the cluster:\n{error}") from None


def _told(error: RayError) -> str:
    """What Ray says of a death, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
