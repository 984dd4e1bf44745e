"""What workers that are taken for dead had not reported, kept back until they can write no more.

Ray says that a worker cannot be reached, and it may be computing all the same; then it puts rows over those
of the worker that does them again, with other bits on another kind of processor, or as failed where it cannot
read its inputs any more. So it is killed, and what it was at waits for two things: that Ray says it is dead,
and that the node it is on has had the time to end a process that hangs.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayError

Span = TypeVar("Span")

SECONDS_TO_DIE = 6.0
"""Ray says that an actor is dead as soon as it has told it to end; what does not end, it ends after five."""


@dataclass(slots=True)
class _Kept(Generic[Span]):
    actor: Any
    span: Span
    asked: Any
    """Something that only an actor which lives answers."""
    until: float
    """Before that time it is not handed out."""


class GivenUp(Generic[Span]):
    """Spans of batches of workers that were killed; see the module."""

    def __init__(self) -> None:
        self._kept: list[_Kept[Span]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, actor: Any, span: Span) -> None:
        """Kill a worker, whether it is alive or not, and keep what it was at."""
        kill(actor)
        self._kept.append(_Kept(actor, span, actor.node.remote(), time.monotonic() + SECONDS_TO_DIE))

    def freed(self) -> list[Span]:
        """Give what can be done again now; a worker that lives all the same is killed once more."""
        now = time.monotonic()
        answered = [one for one in self._kept if one.until <= now and _has_answer(one.asked)]
        for one in answered:
            self._kept.remove(one)
        alive = [one for one in answered if _lives(one.asked)]
        for one in alive:
            self.add(one.actor, one.span)
        return [one.span for one in answered if one not in alive]


def kill(actor: Any) -> None:
    """End a worker; Ray does not start it again."""
    with suppress(RayError):  # Whether it has ended is asked.
        ray.kill(actor)


def _has_answer(asked: Any) -> bool:
    answered, _ = ray.wait([asked], timeout=0)
    return bool(answered)


def _lives(asked: Any) -> bool:
    try:
        ray.get(asked)
    except ActorUnavailableError:
        return True
    except RayError:
        return False
    return True
