"""Blocks that share a line of the journal: the checksums and counts of all of them, and a small journal."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_model import (
    FORMATS,
    ROWS,
    MadeUpEngine,
    MadeUpModel,
    contents,
    extract,
    use_made_up_model,
    write_inputs,
)
from PIL import Image

from layerprobe.errors import StoppedError
from layerprobe.formats.opening import open_output
from layerprobe.records import Failure, TensorSpec, WrittenBlock
from layerprobe.run import journal
from layerprobe.run.entries import Entry, Head
from layerprobe.run.joining import Joining
from layerprobe.run.journal import Journal

VALUES = np.random.default_rng(0).random((100, 3)).astype("float32")
SPEC = TensorSpec("dense", (3,), "float32")


def block(start: int, stop: int, **more: Any) -> Entry:
    crc = zlib.crc32(VALUES[start:stop].tobytes())
    return Entry(WrittenBlock(start, stop, {"dense": crc}, more.pop("place", 0)), **more)


def test_neighbours_become_one_with_the_checksum_and_counts_of_all_their_rows() -> None:
    failure = Failure(13, "a.jpg", "decode", "broken")
    entries = [
        block(20, 30, files="c", several_frames=2, overflows={"dense": 5}),
        block(0, 10, files="a", several_frames=1),
        block(10, 20, files="b", failures=(failure,), overflows={"dense": 2}),
        block(50, 60, files="d"),
    ]
    (joined, alone) = Joining([SPEC], 50_000, 10).joined(entries)
    assert joined.block == block(0, 30).block
    assert (joined.failures, joined.several_frames, joined.overflows) == ((failure,), 3, {"dense": 7})
    assert alone == entries[3]
    changed = [dataclasses.replace(entry, files="x") if entry.files == "b" else entry for entry in entries]
    assert Joining([SPEC], 50_000, 10).joined(changed)[0].files != joined.files


def test_blocks_in_a_spool_and_of_different_parts_stay_apart() -> None:
    spooled = [block(0, 10, place=64), block(10, 20, place=99)]
    assert Joining([SPEC], 50_000, 10).joined(spooled) == spooled
    # 30,000 rows have parts of 30.
    joined = Joining([SPEC], 30_000, 10).joined([block(start, start + 10) for start in range(0, 100, 10)])
    assert [(entry.block.start, entry.block.stop) for entry in joined] == [
        (0, 30),
        (30, 60),
        (60, 90),
        (90, 100),
    ]


def test_the_lines_of_a_journal_do_not_grow_with_the_batches(tmp_path: Path) -> None:
    joining, path = Joining([SPEC], 100_000, 1), str(tmp_path / ".journal")
    with Journal("out", path) as noted:
        noted.begin(Head("0a", "now", {"dense": 0}, {}))
        for start in range(10_000):
            noted.add(Entry(WrittenBlock(start, start + 1, {"dense": 7}), files="0123456789abcdef"))
            if start % 1000 == 999:
                noted.flush(joining.joined)
        assert noted.rows == 10_000
    assert (tmp_path / ".journal").read_bytes().count(b"\n") == 2 + 100  # parts of 100 rows


def test_of_rows_that_came_twice_the_last_line_counts_and_what_is_taken_back_does_not(tmp_path: Path) -> None:
    path, head = str(tmp_path / ".journal"), Head("0a", "now", {"dense": 0}, {})
    with Journal("out", path) as noted:
        noted.begin(head)
        for start, stop in ((0, 30), (30, 60), (60, 90)):
            noted.add(block(start, stop))
        noted.flush()
    with Journal("out", path) as noted:
        noted.take_back([block(60, 90)])
        assert noted.rows == 60
        noted.add(block(10, 20))  # the rows around it are not known to be there any more
        noted.flush()
    with Journal("out", path) as noted:
        assert [(entry.block.start, entry.block.stop) for entry in noted.entries] == [(10, 20), (30, 60)]
        assert noted.rows == 40


class Large(MadeUpEngine):
    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        return {**super().run(inputs), "vector": np.full((len(inputs[0]), 3), 1e6, "float32")}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(MadeUpModel, "engine_class", Large)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)
    paths = write_inputs(tmp_path / "images")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for row in (1, 2, 45):
        frames[0].save(paths[row], "GIF", save_all=True, append_images=frames[1:])
    return paths


@pytest.mark.parametrize("name", sorted(FORMATS.values()))
@pytest.mark.parametrize("rows", [10, 40])
def test_a_resumed_run_tells_of_the_whole_run(
    tmp_path: Path, inputs: list[str], name: str, rows: int
) -> None:
    whole = extract(inputs, tmp_path / f"whole-{name}", dtype="float16", stats=True)
    output, seen = tmp_path / name, []
    with pytest.raises(StoppedError):
        extract(
            *(inputs, output),
            dtype="float16",
            progress=lambda done, *_: seen.append(done),
            stop=lambda: seen[-1] >= rows,
        )
    resumed = extract(inputs, output, dtype="float16", stats=True, resume=True)
    assert resumed.notes == whole.notes
    assert any(f"{3 * (ROWS - 3)} values" in note for note in whole.notes)
    assert "3 of the images have several frames: the first was taken" in whole.notes
    assert (resumed.failed, resumed.failures) == (whole.failed, whole.failures)
    assert repr(resumed.statistics) == repr(whole.statistics)
    assert contents(output) == contents(tmp_path / f"whole-{name}")
    with open_output(output) as one, open_output(tmp_path / f"whole-{name}") as other:
        assert one.provenance["inputs"] == other.provenance["inputs"]
        assert one.provenance["inputs"]["overflows"] == {"vector": 3 * (ROWS - 3)}
        assert one.checksums == other.checksums
