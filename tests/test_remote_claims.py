"""Two runs that write one output in a store: the second is refused, none replaces what the other wrote."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from made_up_model import MadeUpEngine
from stopped_runs import after
from stored_outputs import waiting

import layerprobe
from layerprobe.errors import BusyError, OutputError, StoppedError, WriteError
from layerprobe.merging import merge
from layerprobe.stores.upload import StoredOutput

pytestmark = pytest.mark.usefixtures("made_up_model", "scratch")

LAYERS = [spec.name for spec in MadeUpEngine.outputs]
NAMES = ["x.h5", "x.zarr", "folder"]


@pytest.fixture(params=NAMES)
def there(request: pytest.FixtureRequest) -> Iterator[str]:
    """An output in a store, one of each way to be there."""
    memory = fsspec.filesystem("memory")
    yield f"memory://claims/{request.param}"
    if memory.exists("/claims"):
        memory.rm("/claims", recursive=True)


@pytest.fixture
def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What comes next is written on another machine, first."""

    def change(name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))

    return change


def extract(inputs: list[str], output: str | Path, **options: Any) -> Any:
    """Ten rows at once."""
    return layerprobe.extract("model.h5", inputs, LAYERS, output, batch_size=10, workers=2, **options)


def run_of(there: str) -> str:
    with layerprobe.open(there) as found:
        return str(found.provenance["run"]["id"])


def broken_after(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """Uploads end after so many files, as when the process is killed."""
    left, real = iter([True] * files), StoredOutput._put

    def put(self: StoredOutput, *given: Any) -> None:
        if not next(left, False):
            raise KeyboardInterrupt
        real(self, *given)

    monkeypatch.setattr(StoredOutput, "_put", put)


def begin_to_upload(inputs: list[str], there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is interrupted before the first file of its output is in the store."""
    with monkeypatch.context() as patch:
        broken_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            extract(inputs, there)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"restart": True}, {"overwrite": True}], ids=str)
def test_while_one_run_uploads_the_output_is_its_own(
    inputs: list[str], there: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, refused = StoredOutput._put, []

    def put(self: StoredOutput, *given: Any) -> None:
        if not refused:
            with pytest.raises(BusyError, match="another run"):
                extract(inputs, there, **options)
            refused.append(True)
        real(self, *given)

    monkeypatch.setattr(StoredOutput, "_put", put)
    extract(inputs, there)
    assert refused
    run_of(there)
    assert not waiting(tmp_path)


def test_a_run_that_is_killed_while_it_uploads_holds_nothing_and_is_gone_on_with(
    inputs: list[str], there: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin_to_upload(inputs, there, monkeypatch)
    assert not [name for name in waiting(tmp_path) if name.endswith(".journal")]
    report = extract(inputs, there, resume=True)
    assert report.output == there
    assert not list((tmp_path / "scratch").glob("*/*")), "nor is its folder left"


def test_restart_discards_what_waits_to_be_uploaded(
    inputs: list[str], there: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin_to_upload(inputs, there, monkeypatch)
    with pytest.raises(StoppedError):
        extract(inputs, there, restart=True, stop=after(2))
    (place,) = (tmp_path / "scratch").glob("*/*")
    assert all(path.name.startswith(".") for path in place.iterdir())
    extract(inputs, there, resume=True)
    assert run_of(there)


def test_a_run_that_goes_on_does_not_replace_what_another_one_put_there(
    inputs: list[str], there: str, other_machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedError):
        extract(inputs, there, stop=after(2))
    other_machine("second")
    extract(inputs, there)
    theirs = run_of(there)
    other_machine("scratch")
    with monkeypatch.context() as patch:
        patch.setattr("layerprobe.run.loop.Run.fill", lambda *_: pytest.fail("it was computed"))
        with pytest.raises(OutputError, match="exists and was put there by another run: give --overwrite"):
            extract(inputs, there, resume=True)
    assert run_of(there) == theirs
    extract(inputs, there, resume=True, overwrite=True)
    assert run_of(there) != theirs


@pytest.mark.parametrize("options", [{}, {"restart": True}, {"resume": True}], ids=str)
def test_of_two_runs_at_once_on_two_machines_the_first_to_be_there_stays(
    inputs: list[str],
    there: str,
    other_machine: Callable[[str], None],
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    def meanwhile() -> bool:
        other_machine("second")
        extract(inputs, there)
        other_machine("scratch")
        return False

    calls = iter([meanwhile])
    with pytest.raises(OutputError, match="put there by another run") as caught:
        extract(inputs, there, stop=lambda: next(calls, bool)(), **options)
    assert "waits there to be uploaded" in caught.value.__notes__[0]
    theirs = run_of(there)
    assert waiting(tmp_path), "nothing that was computed is lost"
    with pytest.raises(OutputError, match="put there by another run"):
        extract(inputs, there, resume=True)
    assert run_of(there) == theirs
    assert extract(inputs, there, resume=True, overwrite=True).output == there
    assert (run_of(there) != theirs, waiting(tmp_path)) == (True, [])


@pytest.mark.parametrize("missing", [0, 1])
def test_an_upload_that_was_interrupted_is_gone_on_with_whatever_came_of_it(
    inputs: list[str],
    there: str,
    missing: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Killed before the last file, or after all of them and before anything was tidied up."""
    extract(inputs, there)
    memory, key = fsspec.filesystem("memory"), there.removeprefix("memory:/")
    files = len(memory.find(key)) if memory.isdir(key) else 1
    memory.rm("/claims", recursive=True)
    with monkeypatch.context() as patch:
        broken_after(patch, files - missing)
        patch.setattr("layerprobe.stores.upload._remove", lambda *_: None)
        patch.setattr(os, "unlink", not_here(os.unlink))
        patch.setattr(shutil, "rmtree", not_here(shutil.rmtree))
        with pytest.raises(KeyboardInterrupt):
            extract(inputs, there)
    assert waiting(tmp_path)
    assert extract(inputs, there, resume=True).output == there
    assert run_of(there)
    assert not waiting(tmp_path)


def not_here(remover: Callable[[str], None]) -> Callable[[str], None]:
    """Removes all but what was uploaded; there it is interrupted."""

    def remove(path: str) -> None:
        if os.path.basename(path) in NAMES:
            raise KeyboardInterrupt
        remover(path)

    return remove


def test_the_beginning_of_an_object_is_of_the_upload_that_was_interrupted(
    inputs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some stores show what has come so far."""
    there, memory = "memory://torn.h5", fsspec.filesystem("memory")
    begin_to_upload(inputs, there, monkeypatch)
    (path,) = (tmp_path / "scratch").rglob("torn.h5")
    memory.pipe_file("/torn.h5", path.read_bytes()[:1000] + b"other")
    with pytest.raises(OutputError, match="another run"):
        extract(inputs, there, resume=True)
    memory.pipe_file("/torn.h5", path.read_bytes()[:1000])
    extract(inputs, there, resume=True)
    assert run_of(there)
    memory.rm("/torn.h5")


def test_a_dry_run_says_that_another_run_was_there_first(
    inputs: list[str], there: str, other_machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerprobe.options import ExtractOptions
    from layerprobe.run.destination import Destination

    with pytest.raises(StoppedError):
        extract(inputs, there, stop=after(2))
    how = ExtractOptions(resume=True)
    assert Destination(there).problem(how, unfinished=True) is None
    other_machine("second")
    extract(inputs, there)
    other_machine("scratch")
    problem = Destination(there).problem(how, unfinished=True)
    assert "put there by another run" in str(problem)


def test_a_merge_does_not_replace_what_came_to_be_there_meanwhile(inputs: list[str], tmp_path: Path) -> None:
    there, memory = "memory://merged.h5", fsspec.filesystem("memory")
    for shard in (1, 2):
        extract(inputs, tmp_path / f"{shard}.h5", shard=f"{shard}/2")
    parts = [str(tmp_path / f"{shard}.h5") for shard in (1, 2)]

    def meanwhile(*_: int) -> None:
        memory.pipe_file("/merged.h5", b"theirs")

    with pytest.raises(OutputError, match="another run"):
        merge.merge(there, parts, progress=meanwhile)
    assert memory.cat_file("/merged.h5") == b"theirs"
    assert merge.merge(there, parts, overwrite=True).output == there
    memory.rm("/merged.h5")


def test_an_output_that_is_gone_before_it_is_uploaded_is_a_sentence(
    inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(StoredOutput, "_put", gone)
    with pytest.raises(WriteError, match="cannot be read to write"):
        extract(inputs, "memory://gone.h5")
