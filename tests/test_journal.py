"""The journal: what is on disk survives any kill, and two runs never hold it at once."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerprobe.errors import BusyError, OutputError, WriteError
from layerprobe.records import Failure, WrittenBlock
from layerprobe.run import journal as journal_module
from layerprobe.run.identity import difference
from layerprobe.run.journal import Entry, Head, Journal

HEAD = Head(
    "0a1b", "2026-11-22T23:59:59+00:00", {"conv5_3": 2048, "": 99}, {"model": "00" * 32, "layers": ["x"]}
)
ENTRIES = [
    Entry(WrittenBlock(0, 32, {"conv5_3": 2**32 - 1, "": 0}, place=64), files="abc"),
    Entry(
        WrittenBlock(32, 40, {"conv5_3": 1, "": 2}),
        (Failure(33, "bytes \udcff\n.jpg", "decode", "größer als erlaubt"),),
    ),
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / ".out.h5.journal")


def opened(path: str, **options: Any) -> Journal:
    return Journal("out.h5", path, **options)


def written(path: str) -> bytes:
    """A journal with both entries; gives its bytes."""
    with opened(path) as journal:
        journal.begin(HEAD)
        for entry in ENTRIES:
            journal.add(entry)
            journal.flush()
    return Path(path).read_bytes()


def test_what_was_flushed_comes_back_as_it_was(path: str) -> None:
    written(path)
    with opened(path) as journal:
        assert journal.head == HEAD
        assert journal.entries == ENTRIES
        assert journal.rows == 40


def test_what_was_not_flushed_is_not_there(path: str) -> None:
    with opened(path) as journal:
        journal.begin(HEAD)
        journal.add(ENTRIES[0])
        journal.flush()
        journal.add(ENTRIES[1])
        assert journal.rows == 32
    with opened(path) as journal:
        assert journal.entries == ENTRIES[:1]


def test_names_are_on_disk_before_a_line_speaks_of_what_they_mean(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave the line, and an older output under the name."""
    steps: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(journal_module, name)

        def step(*given: Any) -> Any:
            steps.append(name)
            return real(*given)

        return step

    for name in ("sync_folder", "write_all", "sync"):
        monkeypatch.setattr(journal_module, name, noting(name))
    with opened(path) as journal:
        steps.clear()
        journal.begin(HEAD)
        for entry in ENTRIES[:2]:
            journal.add(entry)
            journal.flush()
    assert steps == ["sync_folder", "write_all", "sync", "write_all", "sync"]


def test_a_journal_without_rows_leaves_no_file(path: str) -> None:
    opened(path).close()
    with opened(path) as journal:
        journal.begin(HEAD)
        journal.flush()
        journal.add(ENTRIES[0])
    assert not os.path.exists(path)
    written(path)
    with opened(path) as journal:
        journal.remove()
    assert not os.path.exists(path)


def test_wherever_it_is_torn_the_whole_lines_count_and_it_goes_on_behind_them(path: str) -> None:
    """A kill, or a power cut that leaves zeros, at every byte."""
    whole = written(path)
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    for length in range(len(whole) + 1):
        for tail in (b"", bytes(50), b"}]\n"):
            torn = whole[:length] + (tail if length < len(whole) else b"")
            Path(path).write_bytes(torn)
            lines = sum(end <= length for end in ends)
            with opened(path) as journal:
                # The first line is the process, the second the head.
                assert journal.entries == ENTRIES[: max(0, lines - 2)]
                assert (journal.head == HEAD) == (lines >= 2)
                if journal.head is None:
                    continue
                rest = ENTRIES[len(journal.entries) :]
                for entry in rest:
                    journal.add(entry)
                journal.flush()
            with opened(path) as journal:
                assert journal.entries == ENTRIES
                journal.remove()


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"3", b'{"rows": [0, 1]}', b"[" * 100_000, b'{"rows": [0, 1], "crc32": [1]}']
)
def test_a_line_that_cannot_be_understood_ends_the_journal(path: str, line: bytes) -> None:
    first, second, third, _ = written(path).splitlines(keepends=True)
    Path(path).write_bytes(first + second + line + b"\n" + third)
    with opened(path) as journal:
        assert journal.head == HEAD
        assert journal.entries == []


def test_lines_are_plain_json(path: str) -> None:
    holder, head, block, failed = map(json.loads, written(path).splitlines())
    assert holder["pid"] == os.getpid()
    assert head["layerprobe_journal"] == 2
    assert head["signature"]["layers"] == ["x"]
    assert block == {"rows": [0, 32], "crc32": [2**32 - 1, 0], "at": 64, "files": "abc"}
    assert failed["failed"] == [[33, "bytes \udcff\n.jpg", "decode", "größer als erlaubt"]]


def test_beginning_again_forgets_the_rows_before_anything_else(path: str) -> None:
    written(path)
    with opened(path) as journal:
        journal.clear()
        assert (journal.head, journal.entries, journal.rows) == (None, [], 0)
        assert b"rows" not in Path(path).read_bytes()
        journal.begin(HEAD)
        journal.add(ENTRIES[1])
        journal.flush()
    with opened(path) as journal:
        assert journal.entries == ENTRIES[1:]


def test_a_second_run_is_told_who_has_the_output(path: str) -> None:
    with opened(path):
        with pytest.raises(BusyError, match=rf"another run \(pid {os.getpid()} on .*\) is writing 'out.h5'"):
            opened(path)
        opened(path, lock=False)._descriptor = -1
    opened(path).close()


def test_a_process_that_was_killed_holds_nothing(path: str) -> None:
    script = f"""
from layerprobe.run.journal import Journal
import os, signal
journal = Journal("out.h5", {path!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -9
    assert os.path.exists(path)
    opened(path).close()
    assert not os.path.exists(path)


def test_a_journal_that_its_holder_removed_is_not_taken_for_the_lock(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened while the other run ends: the lock is then on a file that has no name any more."""
    first = opened(path)
    lock = fcntl.flock

    def ends_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.close()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", ends_first)
    with opened(path), pytest.raises(BusyError):
        opened(path)


def test_a_file_system_without_locks_is_named_with_the_way_around_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(OutputError, match="cannot be locked \\(No locks available\\): give --no-lock"):
        opened(path)
    opened(path, lock=False).close()


def test_a_link_or_a_pipe_under_the_name_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.symlink("victim", path)
    with pytest.raises(OutputError, match="its journal cannot be opened"):
        opened(path)
    os.unlink(path)
    os.link(tmp_path / "victim", path)
    with pytest.raises(OutputError, match="no file of your own"):
        opened(path)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(OutputError, match="no file of your own"):
        opened(path)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_full_disk_is_an_error_and_the_line_can_be_written_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    with opened(path) as journal:
        journal.begin(HEAD)
        journal.add(ENTRIES[0])
        journal.flush()
        journal.add(ENTRIES[1])

        def half(descriptor: int, data: bytes, place: int) -> int:
            monkeypatch.setattr(os, "pwrite", full)
            return write(descriptor, bytes(data)[:20], place)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(WriteError, match="no space is left"):
            journal.flush()
        assert journal.rows == 32
        monkeypatch.setattr(os, "pwrite", write)
        journal.flush()
    with opened(path) as journal:
        assert journal.entries == ENTRIES


def test_lines_wait_until_it_is_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path) as journal:
        journal.begin(HEAD)
        assert not journal.due
        monkeypatch.setattr(journal_module, "SECONDS_BETWEEN_FLUSHES", 0)
        assert journal.due


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"layers": ["x", "y"]}, ("layers", "conv5_3, output", "x, y")),
        ({"preprocessing": {"preset": "tf", "size": [1, 2]}}, ("preprocessing preset", "raw", "tf")),
        ({"preprocessing": None}, None),
        ({"batch_size": 16}, ("batch size", "32", "16")),
        ({"model": "b" * 64}, ("model", f"{'a' * 40}...", f"{'b' * 40}...")),
        ({}, None),
    ],
    ids=str,
)
def test_differences_are_named(now: dict[str, Any], words: tuple[str, str, str] | None) -> None:
    earlier = {
        "model": "a" * 64,
        "layers": ["conv5_3", "output"],
        "preprocessing": {"preset": "raw", "size": [1, 2]},
        "batch_size": 32,
    }
    said = difference(earlier, {**earlier, **now})
    if now == {"preprocessing": None}:
        assert said is not None
        assert said[0] == "preprocessing"
        assert said[1].startswith("{'preset'")
    else:
        assert said == words
