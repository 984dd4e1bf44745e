"""Signals: a run ends after the batch in hand, and can be resumed; a second signal ends it at once."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_up_model import ROWS, contents, extract, use_made_up_model, write_inputs

from layerprobe.run.journal import written_rows

HERE = Path(__file__).parent

PROGRAM = """
import sys
sys.path.insert(0, {here!r})
import pytest
from made_up_model import MadeUpModel, use_made_up_model
from layerprobe import cli
from layerprobe.cli import signals
use_made_up_model(pytest.MonkeyPatch())
MadeUpModel.pause = {pause}
signals.SECONDS_FOR_A_BATCH = {patience}
signals.SECONDS_FOR_THE_REST = {patience}
sys.argv = ["layerprobe", *sys.argv[1:]]
cli.main()
"""


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path / "images")


def words(folder: Path, pause: float, patience: float = 60) -> list[str]:
    """The command line of a run whose batches take so many seconds."""
    program = PROGRAM.format(here=str(HERE), pause=pause, patience=patience)
    layers = ["-l", "vector", "-l", "block/map", "-l", "count"]
    options = ["--batch-size", "10", "-o", str(folder / "out.h5")]
    return [sys.executable, "-c", program, "extract", "model.h5", str(folder / "images"), *layers, *options]


@contextmanager
def running(command: list[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def has_rows(folder: Path) -> bool:
    """Whether two batches are on disk: then the run has looked for signals once."""
    journal = folder / ".out.h5.journal"
    return journal.exists() and journal.read_bytes().count(b'{"rows"') > 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_ends_a_run_after_the_batch_in_hand_and_tells_how_to_go_on(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    with running(words(tmp_path, pause=1.2)) as process:
        wait_for(lambda: has_rows(tmp_path))
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code
    name = signal.Signals(number).name
    assert f"layerprobe: {name}: ends after the batch in hand; at once with another\n" in told
    done = re.search(rf"layerprobe: (\d)0 of {ROWS} rows are kept in an unfinished output\n", told)
    assert done is not None
    assert 2 <= int(done[1]) <= 4
    assert "Traceback" not in told
    command = shlex.split(told.rpartition("layerprobe: to go on: ")[2])
    assert command[:4] == ["layerprobe", "extract", "--resume", "model.h5"]
    again = [*words(tmp_path, pause=0)[:3], *command[1:]]
    assert subprocess.run(again, stderr=subprocess.DEVNULL, timeout=60).returncode == 3
    use_made_up_model(monkeypatch)
    extract(inputs, tmp_path / "reference.h5")
    assert contents(tmp_path / "out.h5") == contents(tmp_path / "reference.h5")


def test_a_second_signal_ends_it_at_once(tmp_path: Path, inputs: list[str]) -> None:
    with running(words(tmp_path, pause=2)) as process:
        wait_for(lambda: has_rows(tmp_path))
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert process.wait(timeout=1.5) == 143
    assert has_rows(tmp_path)


def test_a_model_that_computes_without_end_is_not_waited_for(tmp_path: Path, inputs: list[str]) -> None:
    with running(words(tmp_path, pause=1000, patience=0.3)) as process:
        wait_for((tmp_path / ".out.h5.unfinished").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143


def test_signals_that_the_caller_ignores_are_ignored(tmp_path: Path, inputs: list[str]) -> None:
    """As under nohup, and in the background of a shell."""
    command = f"trap '' HUP; {shlex.join(words(tmp_path, pause=0.3))} & wait $!"
    with running(["sh", "-c", f"echo $$ >&2; {command}"], start_new_session=True) as process:
        wait_for((tmp_path / ".out.h5.unfinished").exists)
        os.killpg(process.pid, signal.SIGHUP)
        child = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        os.kill(int(child), signal.SIGINT)
        assert process.wait(timeout=60) == 3
    assert (tmp_path / "out.h5").exists()


def test_a_signal_that_a_library_loses_in_a_callback_ends_the_command_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from layerprobe import cli
    from layerprobe.cli import signals

    def losing(**_: object) -> None:
        with pytest.raises(SystemExit):
            signals._handle(signal.SIGTERM, None)
        raise AttributeError("no such callback")

    monkeypatch.setattr(signals, "_received", [])
    monkeypatch.setattr(signals, "_ending", False)
    monkeypatch.setattr(cli.cli, "main", losing)
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 143


def state(pid: int) -> str:
    """One letter: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def rows_on_disk(folder: Path) -> int:
    found = written_rows(str(folder / ".out.h5.journal"))
    return 0 if found is None else sum(stop - start for start, stop in found[1])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux whether a process is stopped")
def test_a_run_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with Ctrl-Z and fg."""
    # In a group of its own, with a parent in another: the system stops no group that nobody could continue.
    with running(words(tmp_path, pause=0.3), process_group=0) as process:
        wait_for(lambda: has_rows(tmp_path))
        process.send_signal(signal.SIGTSTP)
        wait_for(lambda: state(process.pid) == "T")
        before = (tmp_path / ".out.h5.journal").read_bytes()
        time.sleep(1)
        assert (tmp_path / ".out.h5.journal").read_bytes() == before
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=60) == 3
    use_made_up_model(monkeypatch)
    extract(inputs, tmp_path / "reference.h5")
    assert contents(tmp_path / "out.h5") == contents(tmp_path / "reference.h5")


def test_of_two_runs_on_one_output_the_second_says_so_and_a_killed_one_holds_nothing(
    tmp_path: Path, inputs: list[str]
) -> None:
    command = words(tmp_path, pause=2)
    with running(command) as first:
        wait_for(lambda: has_rows(tmp_path))
        first.send_signal(signal.SIGSTOP)
        done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 75
        assert f"layerprobe: another run (pid {first.pid} on " in done.stderr
        assert done.stderr.count("\n") == 1
        assert first.poll() is None
        first.kill()
        first.wait()
        kept = rows_on_disk(tmp_path)
        again = [*words(tmp_path, pause=0), "--resume"]
        done = subprocess.run(again, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert 20 <= kept < ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.h5"]


def test_ctrl_c_while_the_program_is_imported_ends_it_in_silence() -> None:
    program = """
import builtins, os, signal
real = builtins.__import__
def interrupted(name, *rest):
    if name == "click":
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__ = interrupted
from layerprobe.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
