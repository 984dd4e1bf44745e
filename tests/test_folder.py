from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from image_samples import every_format

from layerprobe.errors import ResourceError, SampleError
from layerprobe.sources import files
from layerprobe.sources.file_source import FileSource
from layerprobe.sources.files import read_file
from layerprobe.sources.folder import images_in

FILES = every_format()
JPEG = FILES["JPEG"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may enter, and where deep and odd things may be made."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    subprocess.run(["chmod", "-R", "u+rwX", path], check=True)
    subprocess.run(["rm", "-r", path], check=True)  # shutil.rmtree cannot go as deep


@contextmanager
def permissions_that_count() -> Iterator[None]:
    """Act as nobody, if the tests are run by root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def put(folder: Path, *names: str, content: bytes = JPEG) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def found(folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in images_in(str(folder))]


def test_images_are_found_at_any_depth_in_the_order_of_their_names_bytes(folder: Path) -> None:
    put(folder, "b.jpg", "a/2.jpg", "a/10.jpg", "a/deep/er/x.jpg", "B.jpg", "ä.jpg", "a-1.jpg", "c/1.jpg")
    assert found(folder) == [
        "B.jpg", "a/10.jpg", "a/2.jpg", "a/deep/er/x.jpg", "a-1.jpg", "b.jpg", "c/1.jpg", "ä.jpg",
    ]  # fmt: skip


def test_paths_begin_with_the_folder_as_it_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "in/x.jpg")
    monkeypatch.chdir(folder)
    assert list(images_in("in")) == ["in/x.jpg"]
    assert list(images_in("in/")) == ["in/x.jpg"]
    assert list(images_in("./in/../in")) == ["./in/../in/x.jpg"]


@pytest.mark.parametrize("name", FILES)
def test_an_image_is_known_by_its_content_whatever_it_is_called(folder: Path, name: str) -> None:
    put(folder, "noname", "notes.txt", content=FILES[name])
    assert found(folder) == ["noname", "notes.txt"]


def test_a_file_called_like_an_image_is_a_row_even_if_it_is_none(folder: Path) -> None:
    names = ["a.JPG", "b.JpEg", "c.png", "d.gif", "e.bmp", "f.tif", "g.TIFF", "h.webp", "i.avif", "j.heic"]
    put(folder, *names, content=b"")
    assert found(folder) == names


def test_what_is_no_image_by_name_or_content_is_left_out(folder: Path) -> None:
    put(folder, "readme.md", "labels.csv", "BMW", content=b"BM is how this text begins, and it goes on")
    put(folder, "empty", content=b"")
    assert found(folder) == []


def test_hidden_files_and_what_systems_leave_behind_are_left_out(folder: Path) -> None:
    put(folder, "._x.jpg", ".DS_Store", "Thumbs.db", "thumbs.DB", ".hidden.png", ".git/x.jpg", "a/.b/x.jpg")
    put(folder, "x.jpg")
    assert found(folder) == ["x.jpg"]


def test_names_that_are_not_unicode_round_trip_byte_for_byte(folder: Path) -> None:
    names = [b"caf\xe9.jpg", b"\n.jpg", b"\t\x1b[31m.jpg", b"-rf.jpg", b"@=\"'.jpg", b"x" * 251 + b".jpg"]
    names += ["\u00e9.jpg".encode(), "e\u0301.jpg".encode()]  # the same to the eye
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(JPEG)
    paths = list(images_in(str(folder)))
    assert [os.fsencode(os.path.basename(path)) for path in paths] == sorted(names)
    assert {read_file(path) for path in paths} == {JPEG}


def test_a_folder_called_like_an_image_is_entered_or_a_row_that_fails(folder: Path) -> None:
    put(folder, "full.jpg/x.png", "hollow.jpg/deep.png/readme", content=b"")
    (folder / "empty.jpg").mkdir()
    assert found(folder) == ["empty.jpg", "full.jpg/x.png", "hollow.jpg/deep.png"]
    with pytest.raises(SampleError, match="^is a directory$"):
        read_file(str(folder / "empty.jpg"))


def test_links_are_followed_but_never_round_in_circles(folder: Path) -> None:
    put(folder, "a/x.jpg", "elsewhere/y.jpg")
    (folder / "a/back").symlink_to(folder)
    (folder / "a/self").symlink_to(".")
    (folder / "a/there").symlink_to(folder / "elsewhere")
    (folder / "link.jpg").symlink_to("a/x.jpg")
    (folder / "nowhere.jpg").symlink_to("gone")
    (folder / "round.jpg").symlink_to("round.jpg")
    (folder / "nowhere").symlink_to("gone")
    assert found(folder) == [
        "a/there/y.jpg", "a/x.jpg", "elsewhere/y.jpg", "link.jpg", "nowhere.jpg", "round.jpg",
    ]  # fmt: skip
    assert read_file(str(folder / "link.jpg")) == JPEG
    with pytest.raises(SampleError, match="^no such file$"):
        read_file(str(folder / "nowhere.jpg"))
    with pytest.raises(SampleError, match="too many levels of symbolic links"):
        read_file(str(folder / "round.jpg"))


def test_pipes_sockets_and_devices_are_rows_that_fail_and_are_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.jpg"))
        writer = threading.Thread(target=lambda: open(folder / "pipe.jpg", "wb").close(), daemon=True)
        writer.start()  # stays blocked until somebody opens the pipe
        assert found(folder) == ["pipe.jpg", "socket.jpg", "zero.jpg"]
        for name in ("pipe.jpg", "socket.jpg", "zero.jpg"):
            with pytest.raises(SampleError, match="^not a regular file$"):
                read_file(str(folder / name))
        time.sleep(0.05)
        assert writer.is_alive()
    descriptor = os.open(folder / "pipe.jpg", os.O_RDONLY | os.O_NONBLOCK)
    writer.join(10)
    os.close(descriptor)


def test_a_name_that_becomes_a_pipe_before_it_is_opened_does_not_hang(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "regular.jpg")
    os.mkfifo(folder / "pipe.jpg")
    regular = os.stat(folder / "regular.jpg")
    monkeypatch.setattr(files.os, "stat", lambda path: regular)
    with pytest.raises(SampleError, match="not a regular file"):
        read_file(str(folder / "pipe.jpg"))


def test_what_may_not_be_read_is_a_row_that_fails(folder: Path) -> None:
    put(folder, "locked/x.jpg", "locked.jpg", "z.jpg")
    (folder / "locked").chmod(0)
    (folder / "locked.jpg").chmod(0)
    with permissions_that_count():
        assert found(folder) == ["locked", "locked.jpg", "z.jpg"]
        for name in ("locked", "locked.jpg"):
            with pytest.raises(SampleError, match="^permission denied$"):
                read_file(str(folder / name))
        with pytest.raises(PermissionError):
            next(images_in(str(folder / "locked")))


def test_folders_may_be_nested_deeper_than_the_interpreters_stack(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("x.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    assert [path.count("/d") for path in found(folder)] == [1199]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone.jpg", "^no such file$"),
        ("x.jpg/y.jpg", "^not a directory$"),
        ("n" * 300, "^file name too long$"),
        ("nul\0.jpg", "^not a path"),
        ("", "^no such file$"),
    ],
)
def test_a_path_that_leads_nowhere_has_a_short_reason(folder: Path, path: str, reason: str) -> None:
    put(folder, "x.jpg")
    with pytest.raises(SampleError, match=reason):
        read_file(path and str(folder / path))


def test_a_file_over_the_limit_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "x.jpg", content=bytes(101))
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    with pytest.raises(SampleError, match="101 bytes are more than the limit of 100"):
        read_file(str(folder / "x.jpg"))
    with (folder / "sparse.jpg").open("wb") as file:
        file.truncate(2 * 2**30)
    with pytest.raises(SampleError, match="limit"):
        read_file(str(folder / "sparse.jpg"))


def test_the_processs_own_limits_are_not_the_files_fault(folder: Path) -> None:
    put(folder, "x.jpg")
    script = (
        "import os, resource, sys\n"
        "from layerprobe.errors import ResourceError\n"
        "from layerprobe.sources.files import read_file\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: read_file(sys.argv[1])\n"
        "except ResourceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder / "x.jpg"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "cannot open another file: too many open files (see `ulimit -n`).\n"
    assert ResourceError.exit_code == 71


def test_a_hundred_thousand_paths_take_a_few_bytes_each() -> None:
    tracemalloc.start()
    source = FileSource(f"images/{number:06}.jpg" for number in range(100_000))
    assert sum(len(sample.key) for sample in source) == 100_000 * 17
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_file_that_disappears_after_listing_fails_when_it_is_read(folder: Path) -> None:
    put(folder, "x.jpg", "y.jpg")
    samples = list(FileSource(list(images_in(str(folder)))))
    (folder / "x.jpg").unlink()
    with pytest.raises(SampleError, match="no such file"):
        samples[0].read()
    assert samples[1].read() == JPEG
