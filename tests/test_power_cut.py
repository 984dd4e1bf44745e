"""The power goes at any moment: what has the output's name is whole, and `resume` ends the run well."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_up_model import FORMATS, OTHERS, contents, extract, use_made_up_model, write_inputs
from power_cut import Disk

from layerprobe.errors import StoppedError
from layerprobe.merging.merge import merge
from layerprobe.retrying import retry_failed
from layerprobe.run import journal
from layerprobe.verification import verify

CUTS = int(os.environ.get("LAYERPROBE_POWER_CUTS", "20"))
"""For each format and each way; by hand there may be more."""


@pytest.fixture(autouse=True)
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_inputs(tmp_path_factory.mktemp("power") / "images")[:30]


KINDS = FORMATS | OTHERS
WAYS = [(kind, "fresh") for kind in KINDS] + [
    (kind, way) for kind in FORMATS for way in ("resumed", "restarted")
]
WAYS += [(kind, "resumed") for kind in ("jsonl", "gzip", "npy of a stream")]


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return KINDS[request.param]


class Claims:
    """What runs said that is on disk: so many rows."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        flush = journal.Journal.flush

        def flushed(one: journal.Journal, *of: Any) -> None:
            flush(one, *of)
            self.rows = one.rows

        patch.setattr(journal.Journal, "flush", flushed)


@dataclass(frozen=True)
class Left:
    """What a power cut left."""

    folder: Path
    claimed: int
    """Rows that were said to be on disk."""


def left_after_cuts(
    begin: Callable[[Path], None],
    act: Callable[[Path], None],
    scratch: Path,
    patch: pytest.MonkeyPatch,
    seed: int,
) -> Iterator[Left]:
    """Give what power cuts leave; half of them come towards the end, when the output gets its name.

    Args:
        begin: Makes what is there before, in a folder.
        act: What is cut off.
        scratch: Where there is room.
        patch: To watch what `act` does.
        seed: Of chance.
    """
    chance, claims, calls = random.Random(seed), Claims(patch), 0
    cuts: dict[int, list[Path]] = {}
    claimed: dict[Path, int] = {}
    for number in range(2):
        whole = scratch / f"whole{number}"
        whole.mkdir(parents=True)
        begin(whole)
        claims.rows = 0
        disk = Disk(whole, chance)
        for cut in range(CUTS if number else 0):
            call = chance.randint(max(1, calls - 7) if cut % 2 else 1, calls)
            cuts.setdefault(call, []).append(scratch / f"cut{cut}")
        disk.cut_at(cuts, lambda target: claimed.update({target: claims.rows}))
        with disk.recording(patch):
            act(whole)
        calls = disk.calls
        disk.close()
    for target, rows in claimed.items():
        yield Left(target, rows)


def folders_after_cuts(*args: Any, **options: Any) -> Iterator[Path]:
    """Give the folders alone."""
    return (left.folder for left in left_after_cuts(*args, **options))


def kept(inputs: list[str], output: Path) -> int:
    """Resume; gives how many rows were taken from what was left."""
    seen: list[int] = []
    finish(inputs, output, progress=lambda done, *_: seen.append(done))
    return seen[0] if seen else len(inputs)  # Else there was nothing to do.


def finish(inputs: list[str], output: Path, **options: Any) -> None:
    extract(inputs, output, resume=True, workers=1, **options)


def check_done(output: Path, reference: dict[str, bytes]) -> None:
    assert contents(output) == reference
    assert verify(output).problems == ()
    assert [entry.name for entry in output.parent.iterdir()] == [output.name]


def nothing(folder: Path) -> None:
    """Nothing is there before."""


@pytest.fixture
def reference(tmp_path: Path, inputs: list[str], name: str) -> dict[str, bytes]:
    (tmp_path / "reference").mkdir()
    extract(inputs, tmp_path / "reference" / name)
    return contents(tmp_path / "reference" / name)


@pytest.mark.parametrize(("name", "way"), WAYS, indirect=["name"])
def test_after_a_power_cut_a_run_is_resumed_and_ends_as_if_nothing_had_been(
    tmp_path: Path,
    inputs: list[str],
    name: str,
    reference: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    def begin(folder: Path) -> None:
        if way != "fresh":
            with suppress(StoppedError):
                extract(inputs, folder / name, workers=1, stop=lambda: True)

    def act(folder: Path) -> None:
        extract(inputs, folder / name, workers=1, resume=way != "restarted", restart=way == "restarted")

    for left in left_after_cuts(begin, act, tmp_path / "cuts", monkeypatch, seed=1):
        if (left.folder / name).exists():
            assert contents(left.folder / name) == reference
        assert kept(inputs, left.folder / name) >= left.claimed
        check_done(left.folder / name, reference)


def test_a_power_cut_while_an_output_is_replaced_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, inputs: list[str], name: str, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(folder: Path) -> None:
        extract(inputs, folder / name, preprocess="tf", workers=1)

    def act(folder: Path) -> None:
        finish(inputs, folder / name, overwrite=True)

    begin(tmp_path)
    old = contents(tmp_path / name)
    for folder in folders_after_cuts(begin, act, tmp_path / "cuts", monkeypatch, seed=2):
        assert contents(folder / name) in (old, reference)
        finish(inputs, folder / name, overwrite=True)
        check_done(folder / name, reference)


def test_the_power_may_go_again_and_again(
    tmp_path: Path, inputs: list[str], name: str, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    for number in range(CUTS // 4):
        folder = tmp_path / f"{number}-0"
        folder.mkdir()
        for again in range(3):
            disk, target = Disk(folder, chance), tmp_path / f"{number}-{again + 1}"
            disk.cut_at({chance.randint(1, 30): [target]})
            with disk.recording(monkeypatch):
                finish(inputs, folder / name)
            disk.close()
            check_done(folder / name, reference)
            if not target.exists():
                break
            folder = target
        finish(inputs, folder / name)
        check_done(folder / name, reference)


def test_a_power_cut_while_failed_rows_are_tried_again_costs_nothing(
    tmp_path: Path, inputs: list[str], name: str, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(folder: Path) -> None:
        extract(inputs, folder / name, workers=1)

    def act(folder: Path) -> None:
        retry_failed(folder / name)

    for folder in folders_after_cuts(begin, act, tmp_path / "cuts", monkeypatch, seed=4):
        assert contents(folder / name) == reference
        act(folder)
        check_done(folder / name, reference)


def test_a_power_cut_while_parts_are_merged_leaves_no_half_of_the_whole(
    tmp_path: Path, inputs: list[str], name: str, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [str(tmp_path / f"{number}{name}") for number in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        extract(inputs, Path(part), shard=f"{number}/3", workers=1)

    def act(folder: Path) -> None:
        merge(str(folder / name), parts, overwrite=True)

    for folder in folders_after_cuts(nothing, act, tmp_path / "cuts", monkeypatch, seed=5):
        if (folder / name).exists():
            assert contents(folder / name) == reference
        act(folder)
        check_done(folder / name, reference)


def test_the_list_of_failed_rows_is_on_disk_before_the_output_has_its_name(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(folder: Path) -> None:
        extract(inputs, folder / "out.npz", errors_to=str(folder / "failed"), workers=1)

    (tmp_path / "whole").mkdir()
    act(tmp_path / "whole")
    whole = (tmp_path / "whole" / "failed").read_text()
    assert whole.count("\n") == 2
    seen = 0
    for folder in folders_after_cuts(nothing, act, tmp_path / "cuts", monkeypatch, seed=6):
        if (folder / "out.npz").exists():
            assert (folder / "failed").read_text() == whole
            seen += 1
    assert seen > 2
