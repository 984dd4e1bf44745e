from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from image_samples import every_format

from layerprobe.errors import AccessError, NoInputError, SampleError, UsageError
from layerprobe.sources.listing import image_source
from layerprobe.sources.lists import MAX_ENTRY

JPEG = every_format()["JPEG"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a few images, so that paths can be short."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.png", "in/1.jpg", "in/2.jpg", "in/deep/3.jpg", "other/4.jpg", "text.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"text" if name.endswith("txt") else JPEG)
    Path("empty").mkdir()
    return tmp_path


def keys(inputs: Sequence[Any], stdin: bytes | None = None, **options: Any) -> list[str]:
    stream = None if stdin is None else io.BytesIO(stdin)
    return [sample.key for sample in image_source(inputs, stdin=stream, **options)]


@pytest.mark.usefixtures("here")
def test_files_and_folders_keep_the_order_in_which_they_were_given() -> None:
    assert keys(["b.png", "in", "a.jpg"]) == ["b.png", "in/1.jpg", "in/2.jpg", "in/deep/3.jpg", "a.jpg"]


@pytest.mark.usefixtures("here")
def test_what_is_given_twice_is_two_rows() -> None:
    assert keys(["a.jpg", "a.jpg", "in/1.jpg", "in"])[:3] == ["a.jpg", "a.jpg", "in/1.jpg"]
    assert keys(["in/1.jpg", "in"]).count("in/1.jpg") == 2


def test_paths_may_be_bytes_and_path_objects(here: Path) -> None:
    assert keys([b"a.jpg", Path("b.png"), here / "a.jpg"]) == ["a.jpg", "b.png", str(here / "a.jpg")]


@pytest.mark.usefixtures("here")
def test_a_file_that_is_named_is_a_row_whatever_it_is() -> None:
    os.mkfifo("pipe")
    Path("link").symlink_to("gone")
    source = list(image_source(["text.txt", "pipe", "link", "empty", "a.jpg"]))
    assert [sample.key for sample in source] == ["text.txt", "pipe", "link", "empty", "a.jpg"]
    assert source[0].read() == b"text"
    for sample, reason in zip(
        source[1:4], ["not a regular file", "no such file", "is a directory"], strict=True
    ):
        with pytest.raises(SampleError, match=f"^{reason}$"):
            sample.read()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "name", ["gone.jpg", "a.jpg/x", "in/gone/x.jpg", "gone*.jpg", "**/*.tiff", "x" * 300]
)
def test_a_name_that_does_not_exist_is_an_error_before_anything_is_computed(name: str) -> None:
    words = f"no file matches '{re.escape(name)}'" if "*" in name else f"no such file: '{name}'"
    for limit in (None, 1):
        with pytest.raises(NoInputError, match=words):
            image_source(["a.jpg", name], limit=limit)


@pytest.mark.usefixtures("here")
def test_a_missing_file_in_a_list_is_a_row_that_fails() -> None:
    Path("list").write_text("a.jpg\ngone.jpg\nin\n*.jpg\n")
    source = list(image_source([], lists=["list"]))
    assert [sample.key for sample in source] == ["a.jpg", "gone.jpg", "in", "*.jpg"]
    for sample, reason in zip(source[1:], ["no such file", "is a directory", "no such file"], strict=True):
        with pytest.raises(SampleError, match=reason):
            sample.read()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("?.*", ["a.jpg", "b.png"]),
        ("[ab].*", ["a.jpg", "b.png"]),
        ("in/*", ["in/1.jpg", "in/2.jpg", "in/deep/3.jpg"]),
        ("**/*.jpg", ["a.jpg", "in/1.jpg", "in/2.jpg", "in/deep/3.jpg", "other/4.jpg"]),
        ("in/**", ["in/1.jpg", "in/2.jpg", "in/deep/3.jpg"]),
        ("o*", ["other/4.jpg"]),
        ("*.txt", ["text.txt"]),
    ],
)
def test_patterns_give_what_matches_in_the_order_of_bytes(pattern: str, expected: list[str]) -> None:
    assert keys([pattern]) == expected


@pytest.mark.usefixtures("here")
def test_a_pattern_that_is_a_files_very_name_is_that_file() -> None:
    Path("[a].jpg").write_bytes(JPEG)
    Path("*.png").write_bytes(JPEG)
    assert keys(["[a].jpg", "*.png"]) == ["[a].jpg", "*.png"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("text", "nul", "expected"),
    [
        (b"a.jpg\nb.png\n", False, ["a.jpg", "b.png"]),
        (b"a.jpg\nb.png", False, ["a.jpg", "b.png"]),
        (b"\n\na.jpg\n\n", False, ["a.jpg"]),
        (b"a.jpg\r\nb.png\r\n", False, ["a.jpg", "b.png"]),
        (b"\xef\xbb\xbfa.jpg\n\xef\xbb\xbfb\n", False, ["a.jpg", "\ufeffb"]),
        (b" a.jpg \n#b\n-\n", False, [" a.jpg ", "#b", "-"]),
        (b"a.jpg\0b\nc\0", True, ["a.jpg", "b\nc"]),
        (b"a\r\0\0b", True, ["a\r", "b"]),
    ],
)
def test_lists_hold_one_path_after_another(text: bytes, nul: bool, expected: list[str]) -> None:
    Path("list").write_bytes(text)
    assert keys([], lists=["list"], nul=nul) == expected
    assert keys(["-"], stdin=text, nul=nul) == expected


@pytest.mark.usefixtures("here")
def test_names_round_trip_byte_for_byte_through_a_list() -> None:
    names = [b"caf\xe9.jpg", b"\n\x1b[2J\t.jpg", b"-x.jpg", b"@.jpg", b"=1+1.jpg", b"'\".jpg", b"\xff\xfe"]
    for name in names:
        with open(name, "wb") as file:
            file.write(name)
    source = list(image_source(["-"], stdin=io.BytesIO(b"\0".join(names)), nul=True))
    assert [os.fsencode(sample.key) for sample in source] == names
    assert [sample.read() for sample in source] == names


@pytest.mark.usefixtures("here")
def test_the_list_of_standard_input_stands_where_the_dash_does() -> None:
    Path("list").write_text("in/1.jpg\n")
    assert keys(["b.png", "-", "a.jpg"], stdin=b"other/4.jpg\n", lists=["list"]) == [
        "b.png", "other/4.jpg", "a.jpg", "in/1.jpg",
    ]  # fmt: skip


@pytest.mark.usefixtures("here")
def test_the_dash_needs_standard_input_once() -> None:
    for inputs, stdin in ((["-"], None), (["-", "-"], b"a.jpg")):
        with pytest.raises(UsageError, match="standard input"):
            keys(inputs, stdin=stdin)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 99])
def test_a_limit_takes_the_first_rows(limit: int) -> None:
    Path("list").write_text("x\ny\n")
    everything = ["a.jpg", "in/1.jpg", "in/2.jpg", "in/deep/3.jpg", "p", "q", "x", "y"]
    assert keys(["a.jpg", "in", "-"], stdin=b"p\nq", lists=["list"], limit=limit) == everything[:limit]


@pytest.mark.usefixtures("here")
def test_a_limit_reads_no_more_of_an_endless_list_than_it_needs() -> None:
    class Endless(io.RawIOBase):
        asked = 0

        def read(self, size: int = -1) -> bytes:
            self.asked += 1
            return b"a.jpg\n" * 1000

    stream = Endless()
    assert len(image_source(["-"], stdin=stream, limit=2500)) == 2500
    assert stream.asked == 3


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("inputs", "stdin", "named"),
    [
        (["empty"], None, "'empty'"),
        (["empty", "empty"], None, "'empty'"),
        (["-"], b"\n", "'-'"),
        ([], None, "no"),
    ],
)
def test_not_one_image_is_an_error_that_names_the_place(
    inputs: list[str], stdin: bytes | None, named: str
) -> None:
    with pytest.raises(NoInputError, match="no images found in") as raised:
        keys(inputs, stdin=stdin)
    assert named in str(raised.value)


@pytest.mark.usefixtures("here")
def test_an_empty_folder_among_images_is_a_row_that_fails() -> None:
    assert keys(["empty", "a.jpg"]) == ["empty", "a.jpg"]
    assert keys(["a.jpg", "empty"], limit=1) == ["a.jpg"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("text", [b"a.jpg\0b.png\0", b"x" * (MAX_ENTRY + 1) * 2, JPEG * 100])
def test_what_is_no_list_is_refused(text: bytes) -> None:
    Path("list").write_bytes(text)
    with pytest.raises(UsageError, match="list 'list'"):
        keys([], lists=["list"])


@pytest.mark.usefixtures("here")
def test_a_list_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(NoInputError, match="list 'gone' cannot be read: no such file"):
        keys(["a.jpg"], lists=["gone"])
    with pytest.raises(NoInputError, match="list 'in' cannot be read: is a directory"):
        keys(["a.jpg"], lists=["in"])


@pytest.mark.usefixtures("here")
def test_a_list_may_come_through_a_pipe() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=("a.jpg\nb.png\n",), daemon=True)
    writer.start()
    assert keys([], lists=["pipe"]) == ["a.jpg", "b.png"]
    writer.join(10)


def test_a_folder_that_may_not_be_listed_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("layerprobe.sources.folder.os.scandir", refuse)
    with pytest.raises(AccessError, match="folder 'in' cannot be listed: permission denied"):
        image_source(["in"])


@pytest.mark.usefixtures("here")
def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(UsageError, match="NUL"):
        image_source(["a\0.jpg"])


def test_a_glob_does_not_run_round_in_a_loop_of_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.png").write_bytes(b"x")
    (tmp_path / "inner" / "loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    keys = [sample.key for sample in image_source(["**/*.png"])]
    assert keys == ["inner/a.png"]
