"""A batch job of any length: what a row costs in memory, and what is gone through how often."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up_model import extract, use_made_up_model

from layerprobe.errors import OutputError, SampleError, StoppedError
from layerprobe.records import Sample
from layerprobe.run import journal
from layerprobe.sources.file_source import FileSource

FEW, MANY = 3000, 7500
BATCHES_A_FLUSH = 50
BYTES_A_ROW = 100
"""Of memory, beyond those of any run; pieces in which short texts are written are longer than these runs."""
OUTPUTS = ("out.h5", "out.npz", "out", "out.jsonl", "out.safetensors")


class Rows:
    """Arrays that are made when they are asked for; counts for which rows that was."""

    kind = "arrays"
    row_shape, dtype = (8, 8, 3), np.dtype("uint8")

    def __init__(self, rows: int, broken: int = 0, fields: bool = False) -> None:
        self._rows, self._broken, self._fields = rows, broken, fields
        self.asked = array("q")

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Sample]:
        return self.rows(0, self._rows)

    def rows(self, start: int, stop: int) -> Iterator[Sample]:
        for row in range(start, stop):
            ((key, fields),) = self.names(row, row + 1)
            self.asked.append(row)
            yield Sample(row, key, lambda row=row: self._read(row), None, fields)

    def names(self, start: int, stop: int) -> list[tuple[str, str]]:
        fields = '{{"label": {}}}' if self._fields else ""
        return [(f"folder/of/images/{row:07}.png", fields.format(row)) for row in range(start, stop)]

    def _read(self, row: int) -> np.ndarray:
        if self._broken and row % self._broken:
            raise SampleError(f"no image, for it has only {row} bytes")
        return np.full(self.row_shape, row % 251, self.dtype)


@pytest.fixture(autouse=True)
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_model(monkeypatch)
    # By the clock, a slow machine would write more lines for the same rows.
    asked = itertools.count(1)
    monkeypatch.setattr(journal.Journal, "due", property(lambda _: next(asked) % BATCHES_A_FLUSH == 0))


def peak(source: Rows, output: Path, **options: Any) -> int:
    """Bytes that were taken at most while a run was going on."""
    tracemalloc.start()
    extract(source, output, layers=["vector"], **options)  # type: ignore[arg-type]
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def check_flat(tmp_path: Path, name: str, of: dict[str, Any], **options: Any) -> None:
    peak(Rows(10), tmp_path / f"first-{name}", **options)  # what is imported on the way
    few = peak(Rows(FEW, **of), tmp_path / f"few-{name}", **options)
    many = peak(Rows(MANY, **of), tmp_path / f"many-{name}", **options)
    assert (many - few) / (MANY - FEW) < BYTES_A_ROW


@pytest.mark.parametrize("name", OUTPUTS)
def test_memory_does_not_grow_with_the_rows_but_for_a_few_bytes(tmp_path: Path, name: str) -> None:
    check_flat(tmp_path, name, {})


def test_nor_with_rows_that_fail_nor_with_fields_nor_with_statistics(tmp_path: Path) -> None:
    check_flat(tmp_path, "out.h5", {"broken": 20, "fields": True}, stats=True)


def test_a_resumed_run_asks_for_no_row_that_it_has(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(StoppedError):
        extract(
            *(Rows(MANY), tmp_path / "out.h5"),  # type: ignore[arg-type]
            layers=["vector"],
            progress=lambda done, *_: seen.append(done),
            stop=lambda: seen[-1] >= MANY - 100,
        )
    source = Rows(MANY)
    report = extract(source, tmp_path / "out.h5", layers=["vector"], resume=True)  # type: ignore[arg-type]
    assert report.rows == MANY
    assert source.asked.count(MANY - 1) == 1
    # Once to see whether their files were changed, and no more.
    assert source.asked.count(7) == 1


def test_a_list_is_asked_for_its_names_alone_whether_an_output_that_is_there_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "out.h5").write_bytes(b"an image, perhaps")
    source = Rows(MANY)
    extract(source, tmp_path / "out.h5", layers=["vector"], limit=20, overwrite=True)  # type: ignore[arg-type]
    assert source.asked.count(MANY - 1) == 0
    image = tmp_path / "out.npz"
    image.write_bytes(b"an image, perhaps")
    listed = FileSource([str(tmp_path / f"{row}.png") for row in range(5)] + [str(image)])
    with pytest.raises(OutputError, match=r"out\.npz' is one of the inputs"):
        extract(listed, image, overwrite=True)  # type: ignore[arg-type]
    assert image.read_bytes() == b"an image, perhaps"


def test_listing_goes_through_the_names_and_makes_no_samples(tmp_path: Path) -> None:
    from layerprobe.planning import dry_run

    source = Rows(1_000_000)
    plan = dry_run("model.h5", source, ["vector"], tmp_path / "out.h5")  # type: ignore[arg-type]
    assert (plan.rows, plan.last) == (1_000_000, "folder/of/images/0999999.png")
    assert len(source.asked) <= 2


def test_names_and_fields_of_many_parts_are_held_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerprobe.merging import merge

    rows, count = 5_000, 10

    def reader(part: range) -> Any:
        told = {"paths": [f"/a/folder/{row:07}.jpg" for row in part], "fields": [{"n": row} for row in part]}
        return contextlib.nullcontext(SimpleNamespace(**told, status=["ok"] * rows, error=[""] * rows))

    monkeypatch.setattr(merge, "reopen", lambda part: reader(part.rows))
    parts: Any = [SimpleNamespace(rows=range(i * rows, (i + 1) * rows)) for i in range(count)]
    tracemalloc.start()
    try:
        texts = merge._texts(parts)
        assert tracemalloc.get_traced_memory()[0] < 20 * rows * count
    finally:
        tracemalloc.stop()
    assert texts.rows == rows * count
    told = texts.texts(range(12_000, 12_002))
    assert (told.keys[1], told.fields[1]) == ("/a/folder/0012001.jpg", '{"n": 12001}')
