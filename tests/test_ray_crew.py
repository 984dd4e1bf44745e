"""What the driver of a cluster does with workers that are lost, late or cannot read, without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from made_up_ray import MadeUpWorker, computed, crew_of, made_up_ray
from ray.exceptions import ActorUnavailableError, RayError

from layerprobe.cluster import given_up
from layerprobe.errors import ResourceError


def lost_at(start: int) -> type[MadeUpWorker]:
    """Workers of which the first is out of reach when it has computed a batch."""

    class Lost(MadeUpWorker):
        def compute(self, places: object, starts: Sequence[int]) -> Any:
            told = super().compute(places, starts)
            if self.actor.number == 0 and start in starts:
                raise ActorUnavailableError("the connection is broken", None)
            return told

    return Lost


@pytest.mark.parametrize("kills", [1, 3])
def test_what_a_worker_out_of_reach_was_at_is_done_again_when_it_is_dead_and_not_before(
    monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    ray = made_up_ray(monkeypatch, kills_needed=kills)
    crew = crew_of(lost_at(4), most=2)
    assert sorted(computed(crew, range(8))) == list(range(8))
    assert crew.lost == 1
    first = ray.said.index("0 computes 4")
    again = next(place for place, what in enumerate(ray.said) if what in ("1 computes 4", "2 computes 4"))
    assert ray.said[first:again].count("0 killed") >= kills
    assert "0 computes 5" not in ray.said[first:], "it had two spans"


def test_it_is_done_again_only_when_what_hangs_has_been_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, now = made_up_ray(monkeypatch), [0.0]
    monkeypatch.setattr(given_up, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(given_up, "SECONDS_TO_DIE", 6.0)
    kept: given_up.GivenUp[str] = given_up.GivenUp()
    kept.add(ray.remote(MadeUpWorker).options().remote(""), "span")
    assert (kept.freed(), len(kept)) == ([], 1)
    now[0] = 6.0
    assert (kept.freed(), len(kept)) == (["span"], 0)


def test_a_worker_that_dies_again_and_again_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(MadeUpWorker):
        def describe(self, *given: object) -> Any:
            if self.actor.number:
                raise RayError("killed for want of memory")
            return super().describe(*given)

    ray = made_up_ray(monkeypatch)
    with pytest.raises(ResourceError, match="die again and again"):
        crew_of(Dying, least=2, most=2)
    assert all(actor.kills for actor in ray.actors), "one would go on"
