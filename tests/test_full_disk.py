"""A file system of a few hundred KiB that is really full, and a real limit on the size of files."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_model import FORMATS, contents, extract

from layerprobe.errors import WriteError

SIZE = 512 << 10


pytestmark = pytest.mark.usefixtures("made_up_model")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("file systems can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("file_format", sorted(FORMATS))
@pytest.mark.parametrize("at", [0, 20, 50])
def test_a_disk_that_fills_up_in_mid_run_keeps_what_is_done(
    small_disk: Path, inputs: list[str], tmp_path: Path, file_format: str, at: int
) -> None:
    output, filler = small_disk / FORMATS[file_format], small_disk / "filler"

    def fill(done: int, *_: int) -> None:
        if done == at:
            with open(filler, "wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    with pytest.raises(WriteError, match="no space is left|there is not enough space"):
        extract(inputs, output, progress=lambda *counts: _ignoring_full(fill, *counts))
    assert not output.exists()
    filler.unlink()
    seen: list[int] = []
    extract(inputs, output, resume=True, progress=lambda done, *_: seen.append(done))
    extract(inputs, tmp_path / output.name)
    assert contents(output) == contents(tmp_path / output.name)
    assert os.listdir(small_disk) == [output.name]
    if at:
        assert seen[0] > 0


def _ignoring_full(fill: object, *counts: int) -> None:
    try:
        fill(*counts)  # type: ignore[operator]
    except OSError:
        return


@pytest.mark.parametrize("file_format", sorted(FORMATS.keys() - {"zarr"}))
def test_a_disk_that_is_too_small_is_an_error_before_the_first_row(
    small_disk: Path, inputs: list[str], file_format: str
) -> None:
    with pytest.raises(WriteError, match="there is not enough space"):
        extract(inputs * 40, small_disk / FORMATS[file_format], progress=lambda *_: pytest.fail("a row"))
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize("file_format", sorted(FORMATS.keys() - {"zarr"}))
def test_a_limit_on_the_size_of_files_is_an_error_before_the_first_row(
    inputs: list[str], tmp_path: Path, file_format: str
) -> None:
    output = tmp_path / FORMATS[file_format]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(WriteError, match="larger than a file may be"):
            extract(inputs, output, progress=lambda *_: pytest.fail("a row"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["images"]
