"""Whatever fails, and wherever a run is killed: nothing wrong is left, and `resume` ends it well.

Of all calls to the system each test takes every fifth, from another one on; FAULTS=all takes every call.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
from faults import BROKEN, FULL, Fault, dying, failing, until_none_fires
from made_up_model import FORMATS, OTHERS, MadeUpModel, contents, extract, use_made_up_model, write_inputs

from layerprobe.errors import LayerprobeError
from layerprobe.formats import pending
from layerprobe.formats.opening import open_output
from layerprobe.formats.schema import FOLDER_NAMES, stored_names
from layerprobe.formats.spool import Spool
from layerprobe.run import journal

CASES = [
    *((name, "fresh") for name in sorted(FORMATS)),
    ("npy", "replacing"),
    ("zarr", "replacing"),
    ("jsonl", "fresh"),
    ("gzip of a stream", "fresh"),
]
"""A file takes the place of another in one step, and a folder in another one."""


@pytest.fixture(autouse=True)
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)
    # No power is cut here: what is written need not reach the disk.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path / "images")[:25]


class Place:
    """An output and what it shall be; after each fault it begins anew."""

    def __init__(self, folder: Path, inputs: list[str], file_format: str, replacing: bool) -> None:
        # Two batches have every kind of call that many have.
        self.inputs, self.replacing = inputs if file_format in FORMATS else inputs[:12], replacing
        self.output = folder / (FORMATS | OTHERS)[file_format]
        # A run that writes Zarr takes ten times as long.
        self._step = 1 if os.environ.get("FAULTS") == "all" else 13 if file_format == "zarr" else 5
        extract(self.inputs, self.output)
        self.reference = contents(self.output)
        self.old: dict[str, bytes] | None = None
        self.begin()

    def begin(self) -> None:
        self.clear()
        if self.replacing:
            extract(self.inputs, self.output, preprocess="tf")
            self.old = contents(self.output)

    def clear(self) -> None:
        for name in os.listdir(self.output.parent):
            if self.output.name in name:
                pending.discard(str(self.output.parent / name))

    def faults(self, act: Callable[[], object], first: int, lasting: bool = False) -> Iterator[Fault]:
        """Give a fault at this call of a run, at a later one, ..."""
        return until_none_fires(act, lasting, min(first, self._step), self._step)

    def run(self, **options: Any) -> None:
        extract(self.inputs, self.output, overwrite=self.replacing, workers=1, **options)

    def is_done(self) -> bool:
        """Check that there is the new output, or what was there before; tell whether it is the new one."""
        if not self.output.exists():
            assert self.old is None
            return False
        found = contents(self.output)
        assert found in (self.reference, self.old)
        return found == self.reference

    def finish(self) -> None:
        """Resume, and check what comes of it."""
        self.run(resume=True)
        assert contents(self.output) == self.reference
        assert [name for name in os.listdir(self.output.parent) if name.startswith(".")] == []


@pytest.fixture(params=CASES, ids=" ".join)
def place(request: pytest.FixtureRequest, tmp_path: Path, inputs: list[str]) -> Place:
    (tmp_path / "here").mkdir()
    return Place(tmp_path / "here", inputs, request.param[0], request.param[1] == "replacing")


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_run_in_which_any_call_fails_says_so_and_is_resumed(
    place: Place, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    """SQLite's method: the n-th call fails, for n = 1, 2, ... until none is left to fail."""
    for fault in place.faults(failing(FULL if lasting else BROKEN), 1 + lasting, lasting):
        told = False
        with monkeypatch.context() as patch:
            fault.install(patch)
            try:
                place.run()
            except LayerprobeError as error:
                told = True
                assert "\n" not in str(error)  # noqa: PT017  (whether it must be raised depends on the call)
        assert told <= fault.fired
        assert place.is_done() or told
        if not place.is_done() or told:
            place.finish()
        place.begin()


def test_a_resumed_run_in_which_any_call_fails_is_resumed_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault in place.faults(failing(BROKEN), 3):
        with pytest.raises(LayerprobeError):
            place.run(stop=lambda: True)
        with monkeypatch.context() as patch:
            fault.install(patch)
            try:
                place.run(resume=True)
            except LayerprobeError:
                assert fault.fired
        place.finish()
        place.begin()


@pytest.mark.parametrize("interrupted", [False, True], ids=["run", "resumed run"])
def test_a_run_that_is_killed_at_any_call_is_resumed(
    place: Place, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    for fault in place.faults(dying, 4 + interrupted):
        if interrupted:
            with pytest.raises(LayerprobeError):
                place.run(stop=lambda: True)
        child = os.fork()
        if not child:
            fault.install(monkeypatch)
            place.run(resume=interrupted)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        fault.fired = os.WIFSIGNALED(status)
        check_journal(place.output)
        place.is_done()
        place.finish()
        place.begin()


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_killed_at_random_times_ends_as_an_uninterrupted_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(MadeUpModel, "pause", 0.01)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0.01)
    chance = random.Random(seed)
    for _ in range(100):
        child = os.fork()
        if not child:
            place.run(resume=True)
            os._exit(0)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status == 0:
            break
        check_journal(place.output)
        place.is_done()
    place.finish()


def check_journal(output: Path) -> None:
    """Check that every row that the journal has is on disk, bit for bit."""
    path = output.parent / f".{output.name}.journal"
    unfinished = output.parent / f".{output.name}.unfinished"
    if not path.exists():
        return
    if output.name not in FORMATS.values():
        check_journal_of_others(output, path)
        return
    if not unfinished.exists():
        return
    if output.suffix == ".zarr":
        return  # Some are compressed already: what is resumed tells.
    lines = path.read_bytes().split(b"\n")[:-1]
    heads = [json.loads(line) for line in lines if line.startswith(b'{"layerprobe')]
    if unfinished.is_dir() and output.exists():
        with open_output(str(output)) as found:
            if found.provenance["run"]["id"] in [head["run"] for head in heads]:
                return  # It has changed places with the old output, which is being removed.
    for head in heads:
        shapes = zip(head["layout"].items(), head["signature"]["shapes"], strict=True)
        blocks = [json.loads(line) for line in lines if line.startswith(b'{"rows"')]
        for number, ((layer, place), shape) in enumerate(shapes):
            sizes = [int(size) for size in shape.partition("(")[2].strip(",)").split(",") if size]
            file = unfinished
            if unfinished.is_dir():
                file = unfinished / f"{stored_names([layer], FOLDER_NAMES)[layer]}.npy"
            content = file.read_bytes()
            for block in blocks:
                start, stop = (place + row * prod(sizes) * 4 for row in block["rows"])
                assert zlib.crc32(content[start:stop]) == block["crc32"][number]


def check_journal_of_others(output: Path, path: Path) -> None:
    """The same for rows that have no places: they wait in a spool, or come one after the other in a file."""
    lines = path.read_bytes().split(b"\n")[:-1]
    blocks = [json.loads(line) for line in lines if line.startswith(b'{"rows"')]
    spool = output.parent / f".{output.name}.blocks"
    if spool.exists():
        opened = Spool(str(output), resume=True)
        for block in blocks:
            assert opened.read(block["at"])  # which compares checksums
        opened.suspend()
    unfinished = output.parent / f".{output.name}.unfinished"
    if unfinished.exists() and output.suffix == ".jsonl":
        content = unfinished.read_bytes()
        for block in blocks:
            rows = [json.loads(line) for line in content[: block["at"]].splitlines()]
            assert len(rows) == block["rows"][1]
