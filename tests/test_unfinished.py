"""Outputs left unfinished and gone on with: they end as an uninterrupted run's, byte for byte."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from output_samples import FAILURES, LAYERS, PATHS, PROVENANCE, sample_values, write_output

from layerprobe import registry
from layerprobe.errors import LayerprobeError, ResumeError
from layerprobe.records import TensorSpec, WrittenBlock

BLOCKS = [(0, 3), (3, 6), (6, 7)]


@pytest.fixture(params=sorted(registry.WRITERS))
def writer_class(request: pytest.FixtureRequest) -> Any:
    return registry.find(registry.WRITERS, request.param, "format")


@pytest.fixture
def reference(writer_class: Any, tmp_path: Path) -> dict[str, bytes]:
    """The bytes of an uninterrupted run."""
    (tmp_path / "reference").mkdir()
    write_output(writer_class, tmp_path / "reference" / "out", seed=1)
    return contents(tmp_path / "reference" / "out")


@pytest.mark.parametrize("first", [[], [0], [1], [2, 0], [0, 1, 2]], ids=str)
def test_an_unfinished_output_ends_as_an_uninterrupted_one(
    writer_class: Any, tmp_path: Path, reference: dict[str, bytes], first: list[int]
) -> None:
    out = tmp_path / "out"
    writer = writer_class(str(out), LAYERS, PATHS)
    written = [write(writer, number) for number in first]
    writer.sync()
    writer.suspend()
    writer.abort()
    assert sorted(os.listdir(tmp_path)) == [".out.unfinished", "reference"]
    finish(writer_class, out, writer.layout, written)
    assert contents(out) == reference
    assert sorted(os.listdir(tmp_path)) == ["out", "reference"]


def test_rows_that_were_written_but_not_adopted_are_written_again(
    writer_class: Any, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    writer = writer_class(str(out), LAYERS, PATHS)
    kept = write(writer, 0)
    wrong = sample_values(seed=99)
    writer.write(3, {name: array[3:6] for name, array in wrong.items()})
    writer.suspend()
    finish(writer_class, out, writer.layout, [kept])
    assert contents(out) == reference


def test_a_commit_that_fails_anywhere_can_be_done_again(
    writer_class: Any, tmp_path: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's method: the n-th call of `commit` fails, for n = 1, 2, ... until none is left to fail."""
    out = tmp_path / "out"
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for nth in range(1, 500):
        writer = writer_class(str(out), LAYERS, PATHS)
        written = [write(writer, number) for number in range(len(BLOCKS))]
        with monkeypatch.context() as patch:
            fired = fail_at(patch, nth)
            try:
                writer.commit(FAILURES, PROVENANCE)
            except LayerprobeError:
                assert fired()
        writer.suspend()
        if not fired():
            break
        if not out.exists():
            finish(writer_class, out, writer.layout, written)
        assert contents(out) == reference, nth
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    assert nth > 10
    assert contents(out) == reference


def test_an_output_of_other_layers_is_not_gone_on_with(writer_class: Any, tmp_path: Path) -> None:
    writer = writer_class(str(tmp_path / "out"), LAYERS, PATHS)
    write(writer, 0)
    writer.suspend()
    before = contents(tmp_path / ".out.unfinished")
    others = [TensorSpec("conv5_3", (4, 3, 2**20), "float32"), *LAYERS[1:]]
    layout = dict(reversed(writer.layout.items())) | {"conv5_3": writer.layout["conv5_3"] + 4096}
    for layers, wrong in ((LAYERS, layout), (LAYERS[1:], writer.layout), (others, writer.layout)):
        with pytest.raises(ResumeError, match="was laid out differently|is damaged") as caught:
            writer_class(str(tmp_path / "out"), layers, PATHS, wrong)
        assert "--restart" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert contents(tmp_path / ".out.unfinished").keys() == before.keys()


def test_an_output_that_was_cut_short_is_not_gone_on_with(writer_class: Any, tmp_path: Path) -> None:
    if writer_class.__name__ == "ZarrWriter":
        pytest.skip("its files come with their rows: until then there is nothing to cut")
    writer = writer_class(str(tmp_path / "out"), LAYERS, PATHS)
    writer.suspend()
    unfinished = tmp_path / ".out.unfinished"
    cut = unfinished if unfinished.is_file() else unfinished / "conv5_3.npy"
    os.truncate(cut, 100)
    with pytest.raises(ResumeError, match="is damaged, [0-9]+ bytes of it are gone"):
        writer_class(str(tmp_path / "out"), LAYERS, PATHS, writer.layout)


def write(writer: Any, number: int) -> WrittenBlock:
    """Write one of `BLOCKS`."""
    start, stop = BLOCKS[number]
    block = writer.write(start, {name: array[start:stop] for name, array in sample_values(seed=1).items()})
    assert isinstance(block, WrittenBlock)
    return block


def finish(writer_class: Any, out: Path, layout: dict[str, int], written: list[WrittenBlock]) -> None:
    """Go on with an unfinished output, and commit it."""
    writer = writer_class(str(out), LAYERS, PATHS, layout)
    assert writer.layout == layout
    for block in written:
        writer.adopt(block)
    for number, (start, _) in enumerate(BLOCKS):
        if start not in [block.start for block in written]:
            write(writer, number)
    writer.commit(FAILURES, PROVENANCE)


def fail_at(patch: pytest.MonkeyPatch, nth: int) -> Callable[[], bool]:
    """Have the n-th call to the system fail from now on; what is given tells whether it has."""
    calls = 0

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += "dir_fd" not in kwargs
            if calls == nth and "dir_fd" not in kwargs:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **kwargs)

        return call

    for name in ("open", "pwrite", "pread", "ftruncate", "fdatasync", "fsync", "replace", "rename"):
        patch.setattr(os, name, failing(getattr(os, name)))
    return lambda: calls >= nth


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of those in a folder by name."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {"" if file == path else str(file.relative_to(path)): file.read_bytes() for file in files}
