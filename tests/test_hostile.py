"""Files that try to run code, read other files or exhaust the machine are refused, and nothing is run."""

from __future__ import annotations

import json
import marshal
import subprocess
import sys
import types
import warnings
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hostile import Hostile, hostile_files
from hostile_configs import payload

HERE = Path(__file__).parent
GIB = 2**30

LOOK = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from layerprobe.errors import LayerprobeError
from layerprobe.modelfile.report import check

def look(path):
    report = check(path)
    said = [f"{f.place} {f.message}" for f in report.findings if f.level == "refused"]
    if report.info is None:
        return "file", " ".join(said)
    said += [layer.problem for layer in report.info.layers if layer.problem]
    return ("layer" if said else "harmless"), " ".join(said)

for path in json.loads(sys.stdin.read()):
    start = time.perf_counter()
    try:
        outcome, said = look(path)
    except LayerprobeError as error:
        outcome, said = "file", str(error)
    seconds = time.perf_counter() - start
    print(json.dumps({"path": path, "outcome": outcome, "said": said, "seconds": seconds}))
modules = {"tensorflow", "keras", "evilmod"} & set(sys.modules)
# Not getrusage: its figure begins with the memory of the process that started this one.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"path": "", "modules": sorted(modules), "peak": peak}))
"""

LOAD = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
from layerprobe.errors import LayerprobeError
from layerprobe.loading.build import load_model

for path, keep in json.loads(sys.stdin.read()):
    start = time.perf_counter()
    try:
        said = "loaded " + " ".join(layer.name for layer in load_model(path, keep=keep).layers)
    except LayerprobeError as error:
        said = str(error)
    seconds = time.perf_counter() - start
    print(json.dumps({"path": path, "said": said, "seconds": seconds}))
# Not getrusage: its figure begins with the memory of the process that started this one.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"path": "", "peak": peak, "modules": sorted({"evilmod"} & set(sys.modules))}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Hostile]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of the duplicate name that is wanted.
        return hostile_files(folder, folder / "marker")


def run(script: str, folder: Path, given: Any) -> dict[str, dict[str, Any]]:
    """Run a script in a process of its own; what it printed, by path."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(folder)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=HERE.parent,
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {line["path"]: line for line in lines}


@pytest.fixture(scope="module")
def looked(folder: Path, files: list[Hostile]) -> dict[str, dict[str, Any]]:
    return run(LOOK, folder, [str(file.path) for file in files])


def test_the_payload_would_touch_the_marker_if_it_were_run(tmp_path: Path) -> None:
    code = marshal.loads(b64decode(payload(tmp_path / "marker")))
    types.FunctionType(code, {})(1)
    assert (tmp_path / "marker").exists()


def test_there_is_a_file_for_every_known_construct_in_every_format(files: list[Hostile]) -> None:
    assert len(files) >= 45
    assert len({file.path for file in files}) == len(files)
    assert {file.path.suffix for file in files} >= {".h5", ".keras", ".json", ""}


def test_every_hostile_file_is_refused_for_the_right_reason(
    files: list[Hostile], looked: dict[str, dict[str, Any]]
) -> None:
    wrong = [
        (file, looked[str(file.path)])
        for file in files
        if looked[str(file.path)]["outcome"] != file.outcome
        or file.says not in looked[str(file.path)]["said"]
    ]
    assert not wrong


def test_looking_is_quick_takes_little_memory_and_imports_nothing(
    files: list[Hostile], looked: dict[str, dict[str, Any]]
) -> None:
    slow = {file.path: looked[str(file.path)]["seconds"] for file in files}
    assert max(slow.values()) < 5, slow
    assert looked[""]["peak"] < GIB
    assert looked[""]["modules"] == []


def test_nothing_was_run_and_nothing_else_touched(
    folder: Path, files: list[Hostile], looked: dict[str, dict[str, Any]]
) -> None:
    assert len(looked) == len(files) + 1
    assert not (folder / "marker").exists()
    assert (folder / "outside.txt").read_text() == "secret\n"


@pytest.mark.slow
def test_loading_refuses_what_is_refused_and_loads_what_lies_before_it(
    folder: Path, files: list[Hostile]
) -> None:
    whole = run(LOAD, folder, [(str(file.path), None) for file in files])
    for file in files:
        loaded = whole[str(file.path)]["said"].startswith("loaded")
        assert not (loaded and file.outcome != "harmless"), file
        assert whole[str(file.path)]["seconds"] < 5
    complete = [file for file in files if file.path.suffix in (".h5", ".keras")]
    for file in complete:
        if file.outcome == "harmless" and file.path.stem != "zip_crc":
            assert whole[str(file.path)]["said"].startswith("loaded"), whole[str(file.path)]
    before = [file for file in complete if file.outcome == "layer" and file.path.stem != "input_huge"]
    prefix = run(LOAD, folder, [(str(file.path), ["first"]) for file in before])
    for file in before:
        assert prefix[str(file.path)]["said"] == "loaded first", prefix[str(file.path)]
    assert max(whole[""]["peak"], prefix[""]["peak"]) < 1.5 * GIB
    assert whole[""]["modules"] == prefix[""]["modules"] == []
    assert not (folder / "marker").exists()
