"""The cache: what is kept is found whole, or not at all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerprobe.engines.cache import Cache, user_cache

PARTS = {"xml": b"<net/>", "bin": bytes(range(256)) * 100}
ABOUT = {"model": "m.h5", "layers": ["é", "b"]}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


def only_file(cache: Cache) -> Path:
    (path,) = Path(cache.folder).iterdir()
    return path


def found(cache: Cache, key: str = "key") -> tuple[dict, dict] | None:
    entry = cache.find(key)
    return None if entry is None else (dict(entry.about), {k: bytes(v) for k, v in entry.parts.items()})


def test_what_is_kept_is_found_again(cache: Cache) -> None:
    assert found(cache) is None
    cache.keep("key", ABOUT, PARTS)
    assert found(cache) == (ABOUT, PARTS)
    assert found(cache, "other") is None


def test_an_entry_without_parts_or_with_empty_ones_is_whole(cache: Cache) -> None:
    cache.keep("key", {}, {})
    cache.keep("empty", {}, {"bin": b"", "xml": b"x"})
    assert found(cache) == ({}, {})
    assert found(cache, "empty") == ({}, {"bin": b"", "xml": b"x"})


def test_an_entry_takes_the_place_of_the_one_before(cache: Cache) -> None:
    cache.keep("key", ABOUT, PARTS)
    kept = cache.find("key")
    cache.keep("key", {}, {"bin": b"new"})
    assert found(cache) == ({}, {"bin": b"new"})
    assert kept is not None
    assert bytes(kept.parts["bin"]) == PARTS["bin"], "what was read stays as it was"


def test_folder_and_files_are_the_users_alone(cache: Cache) -> None:
    before = os.umask(0)
    try:
        cache.keep("key", ABOUT, PARTS)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(cache.folder).st_mode) == 0o700
    assert stat.S_IMODE(only_file(cache).stat().st_mode) == 0o600


@pytest.mark.parametrize("place", [0, 20, 90, 200, 4095, 4100, 5000, -1])
def test_a_changed_byte_anywhere_makes_it_no_entry_and_removes_it(cache: Cache, place: int) -> None:
    cache.keep("key", ABOUT, PARTS)
    path = only_file(cache)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert found(cache) is None
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 10, 100, 4096, 5000, -1])
def test_a_file_that_was_cut_is_no_entry(cache: Cache, size: int) -> None:
    cache.keep("key", ABOUT, PARTS)
    path = only_file(cache)
    path.write_bytes(path.read_bytes()[:size])
    assert found(cache) is None
    cache.keep("key", ABOUT, PARTS)
    assert found(cache) == (ABOUT, PARTS)


def test_a_file_that_others_could_have_written_is_not_read(cache: Cache) -> None:
    cache.keep("key", ABOUT, PARTS)
    only_file(cache).chmod(0o620)
    assert found(cache) is None
    assert cache.entries() == []


def test_a_file_of_another_user_is_not_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.keep("key", ABOUT, PARTS)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert found(cache) is None
    with pytest.raises(OSError, match="another user's"):
        cache.keep("key", ABOUT, PARTS)


def test_a_folder_that_others_may_write_to_is_not_used(cache: Cache) -> None:
    os.makedirs(cache.folder)
    os.chmod(cache.folder, 0o777)
    with pytest.raises(OSError, match="others may write"):
        cache.keep("key", ABOUT, PARTS)
    assert os.listdir(cache.folder) == []


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_regular_file_is_no_entry(cache: Cache, tmp_path: Path, kind: str) -> None:
    cache.keep("other", ABOUT, PARTS)
    path = Path(cache.folder) / "key.entry"
    if kind == "link":
        path.symlink_to(only_file(cache))
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert found(cache) is None


def test_those_longest_unused_make_room(cache: Cache) -> None:
    cache = Cache(cache.folder, limit=3 * 30_000)
    for number in range(3):
        cache.keep(f"key{number}", {}, PARTS)
        path = Path(cache.folder) / f"key{number}.entry"
        os.utime(path, (time.time() - 100 + number, time.time() - 100 + number))
    assert found(cache, "key0") is not None, "now the one used last"
    cache.keep("key3", {}, PARTS)
    assert {key for key in ("key0", "key1", "key2", "key3") if found(cache, key)} == {"key0", "key2", "key3"}


def test_what_alone_is_too_large_is_not_kept_and_drops_nothing(cache: Cache) -> None:
    cache = Cache(cache.folder, limit=60_000)
    cache.keep("small", {}, PARTS)
    with pytest.raises(OSError, match="more than the cache may hold"):
        cache.keep("large", {}, {"bin": bytes(60_001)})
    assert [entry.key for entry in cache.entries()] == ["small"]


def test_a_write_that_fails_leaves_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.keep("key", ABOUT, PARTS)
    assert os.listdir(cache.folder) == []


def test_what_a_killed_process_left_is_swept(cache: Cache) -> None:
    cache.keep("key", ABOUT, PARTS)
    left = Path(cache.folder) / "key.entry.0123.part"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 90_000, time.time() - 90_000))
    fresh = Path(cache.folder) / "tmp.part"
    fresh.mkdir()
    cache.keep("key", ABOUT, PARTS)
    assert sorted(os.listdir(cache.folder)) == ["key.entry", "tmp.part"]
    assert cache.clear() == 2
    assert os.listdir(cache.folder) == []


def test_the_listing_says_what_there_is_last_used_first(cache: Cache) -> None:
    cache.keep("old", {"n": 1}, PARTS)
    os.utime(only_file(cache), (1000, 1000))
    cache.keep("new", {"n": 2}, {})
    (Path(cache.folder) / "strange.entry").write_bytes(b"something else")
    assert [(entry.key, entry.about["n"]) for entry in cache.entries()] == [("new", 2), ("old", 1)]
    assert cache.entries()[1].used == 1000
    assert cache.entries()[1].size == os.path.getsize(Path(cache.folder) / "old.entry")


def test_processes_at_once_do_not_disturb_each_other(cache: Cache) -> None:
    code = (
        "import sys; from layerprobe.engines.cache import Cache\n"
        "cache = Cache(sys.argv[1], limit=200_000); me = sys.argv[2]\n"
        "for i in range(60):\n"
        "    cache.keep(f'key{i % 4}', {'who': me}, {'bin': me.encode() * 30_000})\n"
        "    entry = cache.find(f'key{i % 4}')\n"
        "    if entry is not None:\n"
        "        assert bytes(entry.parts['bin']) == entry.about['who'].encode() * 30_000\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, cache.folder, name], stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert not [name for name in os.listdir(cache.folder) if name.endswith(".part")]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LAYERPROBE_CACHE": "/x/y", "XDG_CACHE_HOME": "/z"}, "/x/y"),
        ({"XDG_CACHE_HOME": "/z", "HOME": "/h"}, "/z/layerprobe"),
        ({"XDG_CACHE_HOME": "z", "HOME": "/h"}, "/h/.cache/layerprobe"),
        ({"HOME": "/h"}, "/h/.cache/layerprobe"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the places are those of Linux")
def test_the_place_is_the_users_or_the_systems(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LAYERPROBE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cache = user_cache()
    assert cache is not None
    assert cache.folder == expected


def test_an_empty_place_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERPROBE_CACHE", "")
    assert user_cache() is None


def test_without_a_home_nothing_is_found_or_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LAYERPROBE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    cache = user_cache()
    assert cache is not None
    assert (cache.find("key"), cache.entries(), cache.clear()) == (None, [], 0)
    with pytest.raises(OSError, match="set LAYERPROBE_CACHE"):
        cache.keep("key", ABOUT, PARTS)
    assert os.listdir(tmp_path) == []


def test_the_command_shows_and_clears_it(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path / "cache"))
    assert command("cache").err.startswith("layerprobe: 0 conversions, 0.0 MiB, in ")
    cache = Cache(str(tmp_path / "cache"))
    about = {"model": "/m\x1b.h5", "layers": list("abcdefg"), "kept": "2026-01-01", "refused": None}
    cache.keep("one", {**about, "agreement": "largest relative difference 2.0e-07"}, PARTS)
    cache.keep("itself", {"inputs": []}, {})
    shown = command("cache")
    assert (
        shown.out == "/m\\x1b.h5\n  layers   a, b, c, d, e and 2 more\n"
        "  size     0.0 MiB, used less than a minute ago\n"
        "  verdict  agrees with Keras: largest relative difference 2.0e-07\n"
    )
    listed = json.loads(command("cache", "--json").out)
    assert listed["folder"] == str(tmp_path / "cache")
    assert [(entry["key"], entry["layers"]) for entry in listed["entries"]] == [("one", list("abcdefg"))]
    assert command("cache", "--clear").err.startswith("layerprobe: 2 files removed from ")
    assert os.listdir(tmp_path / "cache") == []


def test_the_command_says_when_there_is_none(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERPROBE_CACHE", "")
    ended = command("cache")
    assert (ended.code, ended.out) == (2, "")
    assert "there is no cache" in ended.err
