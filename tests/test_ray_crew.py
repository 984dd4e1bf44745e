"""What the driver of a cluster does with workers that are lost, late or cannot read, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from made_up_ray import MadeUpWorker, computed, crew_of, made_up_ray
from ray.exceptions import ActorUnavailableError, RayError

from layerprobe.cluster import connection, given_up, ray_crew
from layerprobe.cluster.connection import needs
from layerprobe.cluster.second_look import ONE_OF, SecondLook
from layerprobe.errors import ResourceError, SampleError, UnavailableError
from layerprobe.records import Failure, Sample
from layerprobe.run.cluster_options import ClusterOptions


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


class Listed:
    """What `SecondLook` asks of inputs; `asked` are the rows that it looked for."""

    def __init__(self, keys: Sequence[str], readable: Sequence[int]) -> None:
        self._keys, self._readable, self.asked = keys, readable, list[int]()

    def samples(self, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[Sample, ...]]:
        for row in (row for start, stop in ranges for row in range(start, stop)):
            self.asked.append(row)
            yield (Sample(row, self._keys[row], lambda row=row: self._read(row)),)

    def _read(self, row: int) -> bytes:
        if row not in self._readable:
            raise SampleError("no such file")
        return b""

    def failures(self, rows: Sequence[int], stage: Any = "read") -> list[Failure]:
        return [Failure(row, self._keys[row], stage, "no such file") for row in rows]


def files(count: int, readable: Sequence[int]) -> Any:
    return Listed([f"/data{row % 2 + 1}/{row}.png" for row in range(count)], readable)


@pytest.mark.parametrize(("failed", "readable"), [([1, 3], [0, 1, 2, 3]), ([0, 1, 2, 3], [2])])
def test_one_row_that_the_driver_can_read_and_a_node_cannot_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, failed: list[int], readable: list[int]
) -> None:
    made_up_ray(monkeypatch)
    crew, inputs = crew_of(MadeUpWorker), files(4, readable)
    written: Any = SimpleNamespace(
        entry=SimpleNamespace(failures=inputs.failures(failed)), counts=SimpleNamespace(engine={})
    )
    row = next(row for row in failed if row in readable)
    with pytest.raises(UnavailableError, match=f"node b cannot read '/data.*/{row}.png', which this machine"):
        crew.check(SimpleNamespace(feeds=inputs), ("b", 1), written)  # type: ignore[arg-type]


def test_rows_that_cannot_be_read_anywhere_stay_failed_and_others_are_not_looked_at() -> None:
    look, inputs = SecondLook(), files(4, [])
    look.check("b", inputs, inputs.failures([0, 2, 3]))
    assert inputs.asked == [0, 2, 3]
    look.check("b", inputs, inputs.failures([0, 1], "decode"))
    look.check("b", inputs, [])
    assert inputs.asked == [0, 2, 3]


@pytest.mark.parametrize("key", ["s3://bucket/{}.png", "a.tar::{}.png", "list.parquet[{}]"])
def test_of_rows_that_are_dear_to_try_a_few_of_each_node_are(key: str) -> None:
    inputs: Any = Listed([key.format(row) for row in range(100)], [])
    look = SecondLook()
    for start in range(0, 100, 10):
        look.check("a", inputs, inputs.failures(range(start, start + 10)))
    assert inputs.asked == list(range(0, 100, ONE_OF))
    readable: Any = Listed([key.format(0)], [0])
    with pytest.raises(UnavailableError, match="the node b cannot read"):
        look.check("b", readable, readable.failures([0]))


def test_which_workers_are_waited_for_is_said_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, told = made_up_ray(monkeypatch, room=2), list[str]()

    def hear(text: str) -> None:
        told.append(text)
        if len(told) > 4:
            ray.room = 8  # nodes join

    crew = crew_of(MadeUpWorker, least=8, most=8, notice=hear)
    assert (
        "waiting for workers of the cluster: ready 2 of 8, loading the model 0, without a node 6, each of "
        "which needs 1 CPU; the nodes have room for 2, when nothing else runs on them"
    ) in told
    crew.close()


def test_nodes_that_go_for_good_are_missed_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, told = made_up_ray(monkeypatch, room=1), list[str]()
    crew = crew_of(lost_at(0), most=1, notice=told.append)
    told.clear()
    ray.room = 0
    work = crew.work([0], None)  # type: ignore[arg-type]
    for _ in range(10):
        assert next(work) is None
    assert "ready 0 of 1, loading the model 0, without a node 1, each of which needs 1 CPU" in told[-1]
    ray.room = 1
    assert [what for what in work if what is not None] == [(("node", 1), 0)]


def test_a_cluster_that_cannot_grow_is_not_asked_for_more_than_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up_ray(monkeypatch, room=2, grows=False)
    with pytest.raises(
        UnavailableError, match="room for 2 workers, each with 1 CPU of one node, and not for 3"
    ):
        crew_of(MadeUpWorker, least=3, most=3)
    assert crew_of(MadeUpWorker, least=2, most=3).size == 3


def test_a_cluster_that_is_started_for_the_run_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(is_initialized=lambda: False, init=lambda *_, **__: None, shutdown=lambda: None)
    monkeypatch.setattr(connection, "ray", nothing)
    for address, grows in (("local", False), ("auto", True)):
        monkeypatch.setenv("RAY_ADDRESS", address)
        connected = connection.connect("ray")
        connected.on_close.close()
        assert connected.grows is grows


def test_where_no_node_is_large_enough_the_run_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_ray(monkeypatch, room=0)
    monkeypatch.setattr(ray_crew, "SECONDS_FOR_A_NODE", 0.0)
    with pytest.raises(UnavailableError, match="room for 0 workers"):
        crew_of(MadeUpWorker)


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [(1, 0, "1 CPU"), (0.5, 0.25, "0.5 CPU and 0.25 GPU"), (4, 2, "4 CPUs and 2 GPUs")],
)
def test_what_a_worker_needs_is_said(cpus: float, gpus: float, said: str) -> None:
    assert needs(ClusterOptions("ray", 1, None, cpus, gpus)) == said
