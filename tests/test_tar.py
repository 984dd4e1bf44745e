"""Images in tar files: found as in folders, read at their places, cut and damaged archives told."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from image_samples import every_format

from layerprobe.errors import NoInputError, SampleError
from layerprobe.sources.listing import image_source

IMAGES = every_format()
JPEG, PNG = IMAGES["JPEG"], IMAGES["PNG"]


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def rows(*inputs: Any, **options: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for sample in image_source([str(name) for name in inputs], **options):
        try:
            found.append((sample.key, sample.read()))
        except SampleError as error:
            found.append((sample.key, str(error)))
    return found


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_images_are_rows_in_the_order_of_the_tar_file(tmp_path: Path, form: int) -> None:
    members = {
        "000001.jpg": JPEG,
        "000001.cls": b"7",
        "000001.json": b"{}",
        "a/000000.PNG": PNG,
        "no_suffix": JPEG,
        "._000001.jpg": b"\0",
        "d/Thumbs.db": b"x",
        "broken.jpg": b"no image",
        "n" * 80 + ".jpg": PNG,
    }
    path = write_tar(tmp_path / "x.tar", members, form)
    expected = ["000001.jpg", "a/000000.PNG", "no_suffix", "broken.jpg", "n" * 80 + ".jpg"]
    assert rows(path) == [(f"{path}::{name}", members[name]) for name in expected]


def test_a_tar_file_of_another_program_is_read(tmp_path: Path) -> None:
    names = ["one.jpg", "Ärger.png", "new\nline.jpg", "with space/" + "deep/" * 40 + "x.jpg"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((JPEG, PNG)[number % 2])
    subprocess.run(["tar", "-cf", "x.tar", *names], cwd=tmp_path, check=True)
    found = rows(tmp_path / "x.tar")
    assert [key.partition("::")[2] for key, _ in found] == names
    assert [data for _, data in found] == [JPEG, PNG, JPEG, PNG]


def test_names_that_are_not_utf_8_come_through(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"\udcff.jpg": JPEG}, tarfile.GNU_FORMAT)
    assert rows(path) == [(f"{path}::\udcff.jpg", JPEG)]


def test_tar_files_are_inputs_like_others(tmp_path: Path) -> None:
    one, two = write_tar(tmp_path / "1.tar", {"a.jpg": JPEG}), write_tar(tmp_path / "2.tar", {"b.jpg": PNG})
    photo = tmp_path / "c.png"
    photo.write_bytes(PNG)
    everything = [f"{one}::a.jpg", f"{two}::b.jpg", str(photo)]
    assert [key for key, _ in rows(tmp_path / "?.tar", photo)] == everything
    assert [key for key, _ in rows(one, two, photo, limit=2)] == everything[:2]
    (tmp_path / "list").write_text(f"{photo}\n{two}\n")
    assert [key for key, _ in rows(lists=[tmp_path / "list"])] == [everything[2], everything[1]]


@pytest.mark.parametrize("last", ["b.jpg", "b.json"])
def test_of_a_tar_file_that_is_cut_short_the_last_row_says_so(tmp_path: Path, last: str) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": JPEG, last: JPEG * 50, "c.jpg": JPEG})
    path.write_bytes(path.read_bytes()[: len(JPEG) + 4000])
    assert rows(path) == [
        (f"{path}::a.jpg", JPEG),
        (f"{path}::{last}", "truncated: the tar file ends within it"),
    ]


def test_what_follows_a_broken_header_is_told_to_be_lost(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": JPEG, "b.jpg": JPEG, "c.jpg": JPEG}, tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    start = 512 + -(-len(JPEG) // 512) * 512
    data[start + 10] ^= 0xFF
    path.write_bytes(data)
    fault = "damaged: no member begins here, so that what follows is lost"
    assert rows(path) == [(f"{path}::a.jpg", JPEG), (f"{path}::byte {start}", fault)]


@pytest.mark.parametrize("data", [b"", b"text", JPEG, bytes(10), b"PK\x03\x04" + bytes(600)])
def test_what_is_no_tar_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(NoInputError, match="x.tar' is not a tar file"):
        rows(tmp_path / "x.tar")


def test_a_tar_file_without_images_or_none_at_all_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no images found"):
        rows(write_tar(tmp_path / "x.tar", {"a.txt": b"text"}))
    with pytest.raises(NoInputError, match="no such file"):
        rows(tmp_path / "y.tar")


def test_links_in_a_tar_file_are_rows_that_fail_and_devices_none(tmp_path: Path) -> None:
    kinds = {
        "a.jpg": tarfile.SYMTYPE,
        "b.jpg": tarfile.LNKTYPE,
        "c.jpg": tarfile.FIFOTYPE,
        "d": tarfile.SYMTYPE,
    }
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
        info = tarfile.TarInfo("e.jpg")
        info.size = len(JPEG)
        archive.addfile(info, io.BytesIO(JPEG))
    fault = "a link or a sparse file within the tar file, which is not read"
    found = [(key.partition("::")[2], data) for key, data in rows(tmp_path / "x.tar")]
    assert found == [("a.jpg", fault), ("b.jpg", fault), ("e.jpg", JPEG)]


def test_a_tar_file_that_shrank_since_it_was_listed_costs_its_rows(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": JPEG, "b.jpg": JPEG})
    source = image_source([str(path)])
    path.write_bytes(path.read_bytes()[: 512 + len(JPEG)])
    first, second = source
    assert first.read() == JPEG
    with pytest.raises(SampleError, match="the tar file ends within it"):
        second.read()
