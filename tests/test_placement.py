"""Where outputs may be created, and that nothing stands under their names before they are complete."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from output_samples import LAYERS, PATHS, assert_holds, fill, sample_values, write_output

from layerprobe import registry
from layerprobe.errors import OutputError
from layerprobe.formats.placement import check_target


@pytest.fixture(params=sorted(registry.WRITERS))
def file_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def writer_class(file_format: str) -> Any:
    return registry.find(registry.WRITERS, file_format, "format")


def test_nothing_stands_under_the_name_before_commit_and_nothing_else_after(
    writer_class: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    writer = writer_class(str(out), LAYERS, PATHS)
    fill(writer, sample_values())
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".out.")] == []
    writer.abort()
    writer.abort()
    assert os.listdir(tmp_path) == []
    write_output(writer_class, out)
    assert os.listdir(tmp_path) == ["out"]


def test_an_old_output_stays_until_commit_and_abort_leaves_it(writer_class: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = write_output(writer_class, out, seed=1)
    writer = writer_class(str(out), LAYERS, PATHS)
    fill(writer, sample_values(seed=2))
    assert_holds(out, old)
    writer.abort()
    assert_holds(out, old)
    new = write_output(writer_class, out, seed=2)
    assert_holds(out, new)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_what_umask_leaves(
    writer_class: Any, tmp_path: Path, umask: int, expected: int
) -> None:
    before = os.umask(umask)
    try:
        write_output(writer_class, tmp_path / "out")
    finally:
        os.umask(before)
    for path in (tmp_path / "out", *(tmp_path / "out").glob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 & ~umask if path.is_dir() else expected)


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_stays_a_link_and_its_target_is_replaced(
    writer_class: Any, tmp_path: Path, dangling: bool
) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real", tmp_path / "out"
    if not dangling:
        write_output(writer_class, target, seed=1)
    link.symlink_to("elsewhere/real")
    values = write_output(writer_class, link, seed=2)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == ["real"]
    assert_holds(target, values)


def test_what_waits_under_the_unfinished_name_is_not_followed(writer_class: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    for target in (victim, victim / "precious", tmp_path / "dangling"):
        (tmp_path / ".out.unfinished").symlink_to(target)
        values = write_output(writer_class, tmp_path / "out")
        assert_holds(tmp_path / "out", values)
        assert sorted(os.listdir(tmp_path)) == ["out", "victim"]
    assert (victim / "precious").read_text() == "precious"


def test_an_unfinished_output_that_is_no_file_of_ones_own_is_not_gone_on_with(
    writer_class: Any, tmp_path: Path
) -> None:
    writer = writer_class(str(tmp_path / "out"), LAYERS, PATHS)
    writer.suspend()
    unfinished = tmp_path / ".out.unfinished"
    unfinished.rename(tmp_path / "victim")
    before = _contents(tmp_path / "victim")
    unfinished.symlink_to("victim")
    with pytest.raises(OutputError, match="cannot be created"):
        writer_class(str(tmp_path / "out"), LAYERS, PATHS, writer.layout)
    if (tmp_path / "victim").is_file():
        unfinished.unlink()
        os.link(tmp_path / "victim", unfinished)
        with pytest.raises(OutputError, match="no file of your own"):
            writer_class(str(tmp_path / "out"), LAYERS, PATHS, writer.layout)
    assert _contents(tmp_path / "victim") == before


def _contents(path: Path) -> list[bytes]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [file.read_bytes() for file in files]


def test_names_may_be_as_long_as_the_file_system_lets_them(writer_class: Any, tmp_path: Path) -> None:
    for name in ("n" * 255, "\udcff" * 255, "é" * 127):
        write_output(writer_class, tmp_path / name)
    with pytest.raises(OutputError, match="File name too long"):
        writer_class(str(tmp_path / ("n" * 256)), LAYERS, PATHS)
    assert len(os.listdir(tmp_path)) == 3


def test_an_output_that_cannot_be_created_is_refused(
    file_format: str, writer_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    wrong = {
        "missing/out": "there is no folder",
        "file/out": "there is no folder",
        "loop": "Too many levels of symbolic links",
        "pipe": "no regular file|not a folder",
        "a\0b": "null",
    }
    for name, reason in wrong.items():
        for act in (check_target, lambda path, *_: writer_class(path, LAYERS, PATHS)):
            with pytest.raises(OutputError, match=reason) as caught:
                act(f"{tmp_path}/{name}", file_format, True)
            assert "\n" not in str(caught.value)
    for path, reason in {"": "name is missing", "/": "name is missing", "/dev/null": "not replaced"}.items():
        with pytest.raises(OutputError, match=reason):
            writer_class(path, LAYERS, PATHS)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop", "pipe"]
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="denies writing"):
        check_target(str(tmp_path / "new"), file_format, True)


@pytest.mark.parametrize("name", ["notes.txt", "x.npy", "sub/"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_anything_of_someone_else_is_never_replaced(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    npy_writer = registry.find(registry.WRITERS, "npy", "format")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_output(npy_writer, ours)
    theirs.mkdir()
    for folder, reason in (
        (ours, f"for '{name.rstrip('/')}' in it"),
        (theirs, "was not written by layerprobe"),
    ):
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_text("precious")
        before = sorted(os.listdir(folder))
        with pytest.raises(OutputError, match=reason):
            check_target(str(folder), "npy", overwrite)
        with pytest.raises(OutputError, match=reason):
            npy_writer(str(folder), LAYERS, PATHS)
        assert sorted(os.listdir(folder)) == before


def test_an_empty_folder_is_replaced_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists"):
        check_target(str(tmp_path / "out"), "npy", overwrite=False)
    values = write_output(registry.find(registry.WRITERS, "npy", "format"), tmp_path / "out")
    assert_holds(tmp_path / "out", values)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that lets nobody write")
def test_a_folder_in_which_nothing_can_be_created_is_refused(writer_class: Any) -> None:
    with pytest.raises(OutputError, match="'/proc/out' cannot be created"):
        writer_class("/proc/out", LAYERS, PATHS)


def test_a_working_directory_that_is_gone_is_reported(
    writer_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError, match="cannot be created"):
        writer_class("out", LAYERS, PATHS)


def test_what_exists_is_only_replaced_when_asked_for(
    file_format: str, writer_class: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    check_target(str(out), file_format, overwrite=False)
    write_output(writer_class, out)
    check_target(str(out), file_format, overwrite=True)
    with pytest.raises(OutputError, match="exists: give --overwrite to replace it or -o for another name"):
        check_target(str(out), file_format, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").mkdir()
    for file_format in ("npz", "hdf5"):
        with pytest.raises(OutputError, match="is a folder and is not replaced"):
            check_target(str(tmp_path / "out"), file_format, overwrite)
