"""Worker processes: whatever becomes of them, the output is what one process writes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_model import FORMATS, contents

import layerprobe
from layerprobe.engines.device import visible_gpus
from layerprobe.errors import (
    FailedRowsError,
    ResourceError,
    StoppedError,
    UnavailableError,
    UnknownLayerError,
    UsageError,
)
from layerprobe.formats.opening import open_output
from layerprobe.run import journal
from layerprobe.workers import team

ROWS = 40
BROKEN = 17
LAYERS = ["conv5_3", "predictions"]
OPTIONS: dict[str, Any] = {"batch_size": 3, "preprocess": "raw"}


@pytest.fixture(scope="module")
def images(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    found = sorted(path for path in (samples / "images").iterdir() if path.suffix in (".png", ".jpg"))
    for row in range(ROWS):
        shutil.copy(found[row % len(found)], folder / f"{row:03}{found[row % len(found)].suffix}")
    (folder / f"{BROKEN:03}.png").unlink(missing_ok=True)
    (folder / f"{BROKEN:03}.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def reference(samples: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    output = tmp_path_factory.mktemp("reference") / "one.h5"
    layerprobe.extract(samples / "vgg_shapes.h5", str(images), LAYERS, output, **OPTIONS)
    return contents(output)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert children(os.getpid()) == []


def children(parent: int) -> list[int]:
    """Running processes that another one started."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            state, ppid = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[:2]
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if int(ppid) == parent and state != "Z" and b"layerprobe.workers.worker" in command:
            found.append(int(name))
    return found


def killing(after: int, times: int = 1) -> Callable[[int, int, int], None]:
    """Kills a worker once so many rows are done, again after each further batch."""
    left = iter(range(times))

    def progress(done: int, *_: int) -> None:
        running = children(os.getpid()) if done >= after else []
        if running and next(left, None) is not None:
            os.kill(running[0], signal.SIGKILL)

    return progress


def extract(samples: Path, images: Path, output: Path, **options: Any) -> Any:
    options = {**OPTIONS, "processes": 2} | options
    layers = options.pop("layers", LAYERS)
    return layerprobe.extract(samples / "vgg_shapes.h5", str(images), layers, output, **options)


@pytest.mark.parametrize(("name", "processes"), list(zip(FORMATS.values(), itertools.cycle([2, 3, 5]))))
def test_the_output_is_bit_for_bit_what_one_process_writes(
    samples: Path, images: Path, reference: dict[str, bytes], tmp_path: Path, name: str, processes: int
) -> None:
    seen: list[tuple[int, ...]] = []
    output = tmp_path / name
    report = extract(
        samples, images, output, processes=processes, progress=lambda *numbers: seen.append(numbers)
    )
    assert contents(output) == reference
    assert [failure.index for failure in report.failures] == [BROKEN]
    assert seen[0] == (0, ROWS, 0)
    assert seen[-1] == (ROWS, ROWS, 1)
    assert len(seen) == 15
    assert {"read", "decode", "compute", "write", "load", "total"} <= report.seconds.keys()
    assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]
    with open_output(output) as reader:
        assert reader.provenance["engine"]["name"] == "graph"
        assert reader.provenance["inputs"]["failed"] == 1


@pytest.mark.parametrize("name", FORMATS.values())
def test_a_worker_that_is_killed_is_replaced_and_its_rows_are_done_again(
    samples: Path, images: Path, reference: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    report = extract(samples, images, tmp_path / name, progress=killing(after=6, times=2))
    assert contents(tmp_path / name) == reference
    assert report.failed == 1


def test_workers_that_die_again_and_again_end_the_run_which_can_be_resumed(
    samples: Path,
    images: Path,
    reference: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)
    start = team.Team._start
    working = []

    def started(self: team.Team, number: int) -> Any:
        worker = start(self, number)
        if working:
            worker.process.kill()
        return worker

    def progress(done: int, *_: int) -> None:
        if done >= 9 and not working:
            working.append(True)
            for child in children(os.getpid()):
                os.kill(child, signal.SIGKILL)

    monkeypatch.setattr(team.Team, "_start", started)
    with pytest.raises(
        ResourceError, match=r"a worker died \(signal 9, SIGKILL\).*fewer --processes"
    ) as caught:
        extract(samples, images, tmp_path / "out.h5", progress=progress)
    assert "rows are kept in an unfinished output" in caught.value.__notes__[0]
    monkeypatch.undo()
    extract(samples, images, tmp_path / "out.h5", resume=True, processes=3)
    assert contents(tmp_path / "out.h5") == reference


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_stopped_run_goes_on_with_any_number_of_processes(
    samples: Path, images: Path, reference: dict[str, bytes], tmp_path: Path, first: int, then: int
) -> None:
    output = tmp_path / "out.npz"
    stops = iter([False, False, False])
    with pytest.raises(StoppedError, match="stopped after 12 of 40 rows") as caught:
        extract(samples, images, output, processes=first, stop=lambda: next(stops, True))
    assert caught.value.__notes__ == ["12 of 40 rows are kept in an unfinished output"]
    seen: list[int] = []
    extract(samples, images, output, processes=then, resume=True, progress=lambda done, *_: seen.append(done))
    assert seen[0] == 12
    assert contents(output) == reference
    report = extract(samples, images, output, processes=2, resume=True)
    assert report.notes == ("it was finished already: there was nothing to do",)


def command_line(samples: Path, images: Path, output: Path, *more: str) -> list[str]:
    layers = [text for layer in LAYERS for text in ("-l", layer)]
    fixed = ["--batch-size", "3", "--preprocess", "raw", "--processes", "2", "-o", str(output)]
    program = [sys.executable, "-m", "layerprobe", "extract", str(samples / "vgg_shapes.h5")]
    return [*program, str(images), *layers, *fixed, *more]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("to_all", [False, True], ids=["to the run", "to all of its processes"])
def test_a_run_that_is_ended_leaves_no_process_and_can_be_resumed(
    samples: Path,
    images: Path,
    reference: dict[str, bytes],
    tmp_path: Path,
    number: int,
    to_all: bool,
) -> None:
    output, slow = tmp_path / "out.h5", tmp_path / "slow"
    slow.mkdir()
    for path in images.iterdir():
        (slow / path.name).symlink_to(path)
    process = subprocess.Popen(
        command_line(samples, slow, output), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (left := children(process.pid)) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.7)
    left = children(process.pid) or left
    if to_all:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode in (-number, 128 + number, 3), said
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while (running := [pid for pid in left if Path(f"/proc/{pid}/cmdline").exists()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert not running
    done = subprocess.run(command_line(samples, slow, output, "--resume"), capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    found = contents(output)
    assert {name: found[name] for name in (*LAYERS, "status", "error")} == {
        name: reference[name] for name in (*LAYERS, "status", "error")
    }


def test_the_first_failed_row_ends_a_run_that_says_so(samples: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedRowsError, match="stopped at the first failed row: row 17"):
        extract(samples, images, tmp_path / "out.h5", on_error="fail")


def test_shards_and_processes_go_together(
    samples: Path, images: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    parts = [tmp_path / f"{number}.npz" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        extract(samples, images, part, shard=f"{number}/2")
    layerprobe.merge(tmp_path / "out.h5", parts)
    assert contents(tmp_path / "out.h5") == reference


def test_arrays_are_read_by_every_worker(samples: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(0, 255, (20, 112, 112, 3)).astype("float32")
    np.save(tmp_path / "rows.npy", rows)
    outputs = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for processes, output in enumerate(outputs, 1):
        extract(samples, tmp_path / "rows.npy", output, processes=processes)
    assert contents(outputs[0]) == contents(outputs[1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"training": True, "engine": "keras"}, UsageError, "training needs one process"),
        ({"device": "gpu:1", "engine": "keras"}, UsageError, "every process takes a GPU of its own"),
        ({"processes": 0}, UsageError, "processes must be 1 or more"),
        ({"layers": ["nothing"]}, UnknownLayerError, "nothing"),
        ({"custom_objects": {"f": lambda x: x}}, UsageError, "cannot be sent to other processes"),
    ],
    ids=["training", "device", "none", "layer", "lambda"],
)
def test_what_cannot_be_shared_out_is_refused(
    samples: Path, images: Path, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        extract(samples, images, tmp_path / "out.h5", **change)
    assert os.listdir(tmp_path) == []


def test_what_a_worker_refuses_is_said_once(samples: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes images of 112x112"):
        extract(samples, images, tmp_path / "out.h5", size=64)
    assert os.listdir(tmp_path) == []


def test_no_more_processes_are_started_than_there_are_batches(
    samples: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, numbers = team.Team._start, []

    def started(self: team.Team, number: int) -> Any:
        numbers.append(number)
        return start(self, number)

    monkeypatch.setattr(team.Team, "_start", started)
    extract(samples, images, tmp_path / "out.npz", processes=9, limit=6)
    assert numbers == [0, 1]


@pytest.mark.slow
def test_workers_read_the_users_own_code_by_themselves(
    samples: Path, images: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    arguments = ["extract", samples / "subclassed_shapes.keras", images, "-l", "output", "--limit", 9]
    arguments += ["--custom", samples / "subclassed_shapes.py", "--batch-size", 3]
    for processes in (1, 2):
        done = command(*arguments, "--processes", processes, "-o", tmp_path / f"{processes}.npz")
        assert done.code == 0, done.err
    assert contents(tmp_path / "1.npz") == contents(tmp_path / "2.npz")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["99", "1"], "would not compute alike, for the engine device is CPU in one and moon in another"),
        (["3", "99"], "the graph engine turned out not to compute this model as Keras does"),
    ],
    ids=["one from the beginning", "one after its first batch"],
)
def test_workers_that_do_not_compute_alike_end_the_run(
    samples: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    message: str,
) -> None:
    environment = dict(os.environ)
    monkeypatch.setattr(
        team.Team, "_environment", lambda self, number: environment | {"OTHER_ENGINE_FROM": asked[number]}
    )
    monkeypatch.setattr(team, "_PROGRAM", team._PROGRAM.replace("from", "import other_engine; from"))
    with pytest.raises(UnavailableError, match=message):
        extract(samples, images, tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("0,1", ["0", "1"]), ("", []), ("-1", []), ("2,-1,3", ["2"]), ("GPU-ab, GPU-cd", ["GPU-ab", "GPU-cd"])],
)
def test_every_worker_is_given_one_of_the_gpus_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, chosen: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == expected
