"""Blocks of bytes that wait beside an output: what was appended comes back, and damage is found."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerprobe.errors import OutputError, ResumeError, WriteError
from layerprobe.formats.spool import Spool

BLOCKS = [[b"one", b"", b"three" * 1000], [b""], [], [bytes(range(256))]]


def test_pieces_come_back_as_they_were_also_in_a_later_run(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "out.h5"))
    places = [spool.append(block) for block in BLOCKS[:2]]
    spool.sync()
    spool.suspend()
    spool.abort()
    assert os.listdir(tmp_path) == [".out.h5.blocks"]
    spool = Spool(str(tmp_path / "out.h5"), resume=True)
    places += [spool.append(block) for block in BLOCKS[2:]]
    assert [spool.read(place) for place in places] == BLOCKS
    assert all(places)
    assert spool.read(places[0], slice(2, 3)) == BLOCKS[0][2:]
    spool.abort()
    assert os.listdir(tmp_path) == []


def test_arrays_are_appended_without_a_copy_of_them(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "out"))
    rows = np.arange(12, dtype="f4")
    assert spool.read(spool.append([rows.view(np.uint8).data])) == [rows.tobytes()]
    spool.abort()


def test_a_new_spool_replaces_what_an_earlier_run_left(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "out"))
    spool.append([b"old" * 100])
    spool.suspend()
    spool = Spool(str(tmp_path / "out"))
    assert spool.read(spool.append([b"new"])) == [b"new"]
    assert os.path.getsize(tmp_path / ".out.blocks") < 200
    spool.abort()


def test_what_a_killed_run_wrote_last_is_in_nobodys_way(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "out"))
    first = spool.append([b"first"])
    spool.append([b"torn" * 100])
    spool.suspend()
    os.truncate(tmp_path / ".out.blocks", os.path.getsize(tmp_path / ".out.blocks") - 5)
    spool = Spool(str(tmp_path / "out"), resume=True)
    second = spool.append([b"second"])
    assert (spool.read(first), spool.read(second)) == ([b"first"], [b"second"])
    spool.abort()


def test_a_block_whose_writing_failed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(str(tmp_path / "out"))
    first = spool.append([b"first"])
    original, calls = os.pwrite, 0

    def write(file: int, data: Any, place: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(file, data, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        with pytest.raises(WriteError, match="no space is left"):
            spool.append([b"second", b"third"])
    again = spool.append([b"second", b"third"])
    assert (spool.read(first), spool.read(again)) == ([b"first"], [b"second", b"third"])
    spool.abort()


def test_every_damaged_byte_of_a_block_is_found(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "out"))
    place = spool.append([b"one", b"three" * 5])
    spool.append([b"next"])
    spool.suspend()
    content = (tmp_path / ".out.blocks").read_bytes()
    spool = Spool(str(tmp_path / "out"), resume=True)
    for at in range(place, place + 8 + 24 + 28):
        (tmp_path / ".out.blocks").write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        with pytest.raises(ResumeError, match="is damaged, rows of it are gone"):
            spool.read(place)
    (tmp_path / ".out.blocks").write_bytes(content[: place + 40])
    with pytest.raises(ResumeError, match="is damaged, rows of it are gone"):
        spool.read(place)
    spool.abort()


def test_a_link_or_somebody_elses_file_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"keep me")
    (tmp_path / ".out.blocks").symlink_to("theirs")
    with pytest.raises(OutputError, match="cannot be created"):
        Spool(str(tmp_path / "out"), resume=True)
    Spool(str(tmp_path / "out")).abort()
    assert (tmp_path / "theirs").read_bytes() == b"keep me"
