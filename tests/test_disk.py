"""What is left when the disk fails, is full, or the process is killed: the old output or the new, whole."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_samples import LAYERS, PATHS, assert_holds, sample_values, stored_values, write_output

from layerprobe import registry
from layerprobe.errors import LayerprobeError, WriteError
from layerprobe.formats import pending
from layerprobe.formats.opening import open_output
from layerprobe.records import TensorSpec

NAMING = ("open", "mkdir", "fsync", "fdatasync", "ftruncate", "replace", "rename")
"""What changes which files there are, and the calls around it."""
OPERATIONS = (*NAMING, "pwrite", "pread", "posix_fallocate", "statvfs")
"""What a writer asks of the system, and what can therefore fail."""


@pytest.fixture(params=sorted(registry.WRITERS))
def file_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def writer_class(file_format: str) -> Any:
    return registry.find(registry.WRITERS, file_format, "format")


@pytest.fixture(params=sorted(registry.WRITERS.keys() - set(registry.WITHOUT_RESERVE)))
def reserving_class(request: pytest.FixtureRequest) -> Any:
    """Of a format that takes the space of all rows at the start."""
    return registry.find(registry.WRITERS, request.param, "format")


WAYS = {"npy": ("fresh", "replacing", "replacing in two steps")}
CASES = [(name, way) for name in sorted(registry.WRITERS) for way in WAYS.get(name, ("fresh", "replacing"))]


@pytest.fixture(params=CASES, ids=" ".join)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, bool]:
    """A writer, and whether an old output stands at its place; what is written need not reach the disk."""
    file_format, way = request.param
    if way == "replacing in two steps":
        monkeypatch.setattr(pending, "exchange", lambda *_: False)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    return registry.find(registry.WRITERS, file_format, "format"), way != "fresh"


def test_bytes_are_on_disk_before_the_name_is_and_then_the_name(
    writer_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    originals = {name: getattr(os, name) for name in ("fsync", "fdatasync", "pwrite", "replace", "rename")}

    def recording(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            where = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else ""
            steps.append(f"{name.replace('fdata', 'f')} {where}".strip())
            return originals[name](*args)

        return call

    for name in originals:
        monkeypatch.setattr(os, name, recording(name))
    write_output(writer_class, tmp_path / "out")
    renamed = next(place for place, step in enumerate(steps) if step in ("replace", "rename"))
    assert steps[renamed + 1 :] == [f"fsync {tmp_path}"]
    written = {step.removeprefix("pwrite ") for step in steps if step.startswith("pwrite")}
    # Where the output is composed of rows that waited in another file, that one only has to last until it is.
    written = {file for file in written if file.endswith(".composed")} or written
    for file in written:
        last = max(place for place, step in enumerate(steps) if step == f"pwrite {file}")
        assert f"fsync {file}" in steps[last:renamed]
    folders = {os.path.dirname(file) for file in written} - {str(tmp_path)}
    assert all(f"fsync {folder}" in steps[:renamed] for folder in folders)


def test_whatever_call_fails_the_old_output_is_intact_or_the_new_one_complete(
    case: tuple[Any, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's method: the n-th call fails, for n = 1, 2, ... until none is left to fail."""
    writer_class, replacing = case
    old = write_output(writer_class, tmp_path / "old", seed=1) if replacing else None
    for count in until_none_fires(3 if getattr(writer_class, "file_format", "") == "zarr" else 1):
        out = tmp_path / "here" / "out"
        out.parent.mkdir()
        if replacing:
            copy(tmp_path / "old", out)
        reported = False
        with monkeypatch.context() as patch:
            intercept(patch, OPERATIONS, count, lambda: fail(errno.EIO))
            try:
                write_output(writer_class, out, seed=2)
            except LayerprobeError as error:
                reported = True
                assert "\n" not in str(error)  # noqa: PT017  (whether it must be raised depends on the call)
        assert reported == count.fired
        assert is_new(out, old) or reported
        assert os.listdir(out.parent) in ([], ["out"])
        shutil.rmtree(out.parent)


def test_a_kill_at_any_moment_leaves_a_complete_output_or_none(
    case: tuple[Any, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer_class, replacing = case
    old = write_output(writer_class, tmp_path / "old", seed=1) if replacing else None
    for count in until_none_fires(3 if getattr(writer_class, "file_format", "") == "zarr" else 1):
        out = tmp_path / "here" / "out"
        out.parent.mkdir()
        if replacing:
            copy(tmp_path / "old", out)
        child = os.fork()
        if not child:
            intercept(monkeypatch, NAMING, count, lambda: os.kill(os.getpid(), signal.SIGKILL))
            write_output(writer_class, out, seed=2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        count.fired = os.WIFSIGNALED(status)
        if replacing and not out.exists():
            # Killed between the two steps, where one is not to be had: the old one is beside it.
            (out,) = out.parent.glob("out.old-*")
        assert is_new(out, old) or count.fired
        shutil.rmtree(out.parent)


def test_short_writes_are_continued(
    writer_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: whole(file, bytes(data)[:50], place))
    values = write_output(writer_class, tmp_path / "out")
    monkeypatch.undo()
    assert_holds(tmp_path / "out", values)


def test_a_system_that_takes_no_bytes_is_an_error_not_a_hang(
    writer_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(WriteError, match="Input/output error"):
        write_output(writer_class, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_systems_without_the_calls_of_posix_are_served(
    writer_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pwrite", "pread", "posix_fallocate", "O_NOFOLLOW", "supports_dir_fd"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(os, "supports_dir_fd", set(), raising=False)
    monkeypatch.setattr(pending, "exchange", lambda *_: False)
    write_output(writer_class, tmp_path / "out", seed=1)
    values = write_output(writer_class, tmp_path / "out", seed=2)
    assert_holds(tmp_path / "out", values)


def test_file_systems_without_allocation_are_served(
    writer_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: fail(errno.EOPNOTSUPP))
    values = write_output(writer_class, tmp_path / "out")
    assert_holds(tmp_path / "out", values)


def test_a_disk_that_is_too_full_is_an_error_before_the_first_row(
    reserving_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(1 << 40, 0, 3 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        WriteError, match=r"not enough space for '.*out': it needs 38\.\d MiB and 3 MiB are free"
    ):
        reserving_class(str(tmp_path / "out"), [TensorSpec("x", (100, 100), "float32")], ["p"] * 1000)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_a_quota_that_is_too_small_is_an_error_before_the_first_row(
    reserving_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: fail(getattr(errno, code)))
    reasons = {"EFBIG": "larger than a file may be", "EDQUOT": "the quota is used up"}
    reason = reasons.get(code, "no space is left")
    with pytest.raises(WriteError, match=reason):
        reserving_class(str(tmp_path / "out"), LAYERS, PATHS)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("moment", [0, 1, 2], ids=["before", "while writing", "at commit"])
def test_a_limit_on_file_sizes_is_an_error_not_a_crash(file_format: str, tmp_path: Path, moment: int) -> None:
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from output_samples import FAILURES, LAYERS, PATHS, PROVENANCE, fill, sample_values
from layerprobe import registry
from layerprobe.errors import WriteError
writer_class = registry.find(registry.WRITERS, {file_format!r}, "format")
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
writer = None
try:
    {moment} == 0 and limit()
    writer = writer_class({str(tmp_path / "out")!r}, LAYERS, PATHS)
    {moment} == 1 and limit()
    fill(writer, sample_values())
    {moment} == 2 and limit()
    writer.commit(FAILURES, PROVENANCE)
except WriteError as error:
    print(error)
    if writer is not None:
        writer.abort()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "larger than a file may be here" in done.stdout
    assert os.listdir(tmp_path) == []


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


class Count:
    def __init__(self, nth: int) -> None:
        self.nth, self.calls, self.fired = nth, 0, False


def until_none_fires(step: int) -> Iterator[Count]:
    """Counts for a fault at the first call, one `step` later, ...; ends after the run in which none fell."""
    for nth in range(1, 1000, step):
        count = Count(nth)
        yield count
        if not count.fired:
            assert nth > 4
            return
    raise AssertionError("a writer makes no end of calls")


def intercept(
    patch: pytest.MonkeyPatch, operations: Sequence[str], count: Count, fault: Callable[[], object]
) -> None:
    """Have the `count.nth` of all calls of these operations do `fault` instead."""

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # Calls with `dir_fd` are rmtree's, for what is left behind.
            if "dir_fd" not in kwargs:
                count.calls += 1
                if count.calls == count.nth:
                    count.fired = True
                    fault()
            return original(*args, **kwargs)

        return call

    for name in operations:
        patch.setattr(os, name, wrapped(getattr(os, name)))


def fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


def is_new(out: Path, old: dict[str, Any] | None) -> bool:
    """Check that there is the old output or the new one; tell whether it is the new one."""
    if old is None and not out.exists():
        return False
    with open_output(out) as reader:
        assert reader.paths == PATHS
        new = old is None or not np.array_equal(reader["count"], old["count"])
    assert_holds(out, stored_values(sample_values(seed=2)) if new or old is None else old)
    return new
