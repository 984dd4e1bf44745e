"""A Ray without processes, for tests of its crew: actors are objects here, and a node has room for some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayError

from layerprobe.cluster import connection, given_up, patience, ray_crew
from layerprobe.run.clock import Clock
from layerprobe.run.cluster_options import ClusterOptions


@dataclass(eq=False)
class Reference:
    """What stands for an answer."""

    actor: Actor
    call: Callable[[], Any]
    value: Any = None
    error: RayError | None = None
    answered: bool = False


@dataclass(eq=False)
class Actor:
    """A worker, which is made when there is room for it."""

    ray: MadeUpRay
    number: int
    worker: Any
    kills: int = 0
    placed: bool = False

    def __getattr__(self, name: str) -> Any:
        def remote(*given: Any) -> Reference:
            return Reference(self, lambda: getattr(self.worker, name)(*given))

        return SimpleNamespace(remote=remote)

    @property
    def dead(self) -> bool:
        return self.kills >= self.ray.kills_needed


@dataclass
class MadeUpRay:
    """What `ray_crew` and `given_up` use of the module; `said` has in order what was done to actors."""

    room: int = 2
    """Actors for which there are processors."""
    grows: bool = True
    """Whether it is a cluster that was there."""
    kills_needed: int = 1
    """So often an actor has to be killed until it is dead."""
    actors: list[Actor] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def put(self, value: Any) -> Any:
        return value

    def remote(self, worker: Any) -> Any:
        def make(*given: Any) -> Actor:
            actor = Actor(self, len(self.actors), worker(*given))
            actor.worker.actor = actor
            self.actors.append(actor)
            return actor

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def wait(self, references: Sequence[Reference], timeout: float) -> tuple[list[Reference], object]:
        for reference in references:
            if self._answer(reference):
                return [reference], None
        return [], None

    def _answer(self, reference: Reference) -> bool:
        actor = reference.actor
        if not (reference.answered or actor.dead or self._is_placed(actor)):
            return False
        if not reference.answered:
            reference.answered = True
            try:
                if actor.dead:
                    raise ActorDiedError()
                reference.value = reference.call()
            except RayError as error:
                reference.error = error
        return True

    def _is_placed(self, actor: Actor) -> bool:
        running = sum(other.placed and not other.dead for other in self.actors)
        actor.placed = actor.placed or running < self.room
        return actor.placed

    def get(self, reference: Reference) -> Any:
        assert reference.answered
        if reference.error is not None:
            raise reference.error
        return reference.value

    def kill(self, actor: Actor) -> None:
        actor.kills += 1
        self.said.append(f"{actor.number} killed")

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(self.room)}}]


class MadeUpWorker:
    """Says which batches it computed."""

    actor: Actor
    """Set when it is made."""

    def __init__(self, folder: str) -> None:
        """It needs none."""

    def node(self) -> tuple[str, list[int]]:
        return "node", []

    def describe(self, *_: object) -> Any:
        return SimpleNamespace(
            path="model.h5", note=None, info=None, inputs=(), batch_size=1, signature={}, engine={}
        )

    def compute(self, places: object, starts: Sequence[int]) -> Any:
        self.actor.ray.said.append(f"{self.actor.number} computes {starts[0]}")
        return ("node", self.actor.number), list(starts)


def made_up_ray(patch: pytest.MonkeyPatch, **what: Any) -> MadeUpRay:
    """Have crews use a Ray that waits for nothing."""
    ray = MadeUpRay(**what)
    for module in (ray_crew, given_up, connection):
        patch.setattr(module, "ray", ray)
    patch.setattr(ray_crew, "connect", lambda _: connection.Connected(ExitStack(), grows=ray.grows))
    patch.setattr(ray_crew, "SECONDS_TO_WAIT", 0.0)
    patch.setattr(given_up, "SECONDS_TO_DIE", 0.0)
    patch.setattr(patience, "SECONDS_OF_SILENCE", 0.0)
    patch.setattr(patience, "SECONDS_BETWEEN_SENTENCES", 0.0)
    return ray


def crew_of(
    worker: type[MadeUpWorker],
    least: int = 1,
    most: int | None = None,
    notice: Callable[[str], None] | None = None,
) -> ray_crew.RayCrew:
    """A crew of such workers, which are there."""
    kind = type("Crew", (ray_crew.RayCrew,), {"worker": worker})
    crew: ray_crew.RayCrew = kind(None, ClusterOptions("ray", least, most, 1.0, 0.0), Clock(), notice)
    return crew


def computed(crew: ray_crew.RayCrew, starts: Sequence[int]) -> Iterator[int]:
    """First rows of the batches that it says are computed."""
    return (told[1] for told in crew.work(starts, None) if told is not None)
