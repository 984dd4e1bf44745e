"""Tar files on servers without ranges, such as `python -m http.server`: on the disk once, never in memory."""

from __future__ import annotations

import io
import pickle
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import store_servers
from fsspec.implementations.http import HTTPFileSystem
from store_servers import Served

from layerprobe.columns import AT_ONCE
from layerprobe.sources.opening import open_source
from layerprobe.stores import copies

pytestmark = pytest.mark.usefixtures("impatient")

ROWS = 2 * AT_ONCE + 100
"""More than are packed in one step."""


def content(row: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n%d" % row


@pytest.fixture(scope="module")
def archive() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for row in range(ROWS):
            header = tarfile.TarInfo(f"{row:05}.png")
            header.size = len(content(row))
            tar.addfile(header, io.BytesIO(content(row)))
    return data.getvalue()


@pytest.fixture
def served(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    def in_memory(*_: object, **__: object) -> None:
        pytest.fail("a whole object is taken into memory")

    monkeypatch.setattr(HTTPFileSystem, "_cat_file", in_memory)
    monkeypatch.setattr(copies, "_copies", type(copies._copies)())
    with store_servers.web({"a.tar": archive, "b.tar": archive}, ranges=False) as served:
        yield served


def test_it_is_fetched_once_for_all_rows_and_threads(served: Served) -> None:
    source = open_source([f"{served.url}/a.tar"])
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda sample: sample.read(), source))
    assert found == [content(row) for row in range(ROWS)]
    # The beginning, what shows that there are no parts, and all of it.
    assert served.requests["GET"] <= 3
    again = pickle.loads(pickle.dumps(source))
    assert [sample.read() for sample in again] == found
    assert served.requests["GET"] <= 3, "it is found by who was sent here, too"


def test_few_are_kept_and_one_that_was_given_up_is_fetched_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "KEPT", 1)
    source = open_source([f"{served.url}/a.tar", f"{served.url}/b.tar"])
    samples = list(source)
    for row in (0, ROWS, 1, ROWS + 1):
        assert samples[row].read() == content(row % ROWS)
    assert len(copies._copies) == 1


def test_a_copy_that_was_cut_short_is_made_again(served: Served) -> None:
    served.faults = lambda method, path, number: "cut" if method == "GET" and number == 3 else None
    source = open_source([f"{served.url}/a.tar"])
    assert [sample.read() for sample in source] == [content(row) for row in range(ROWS)]
    assert served.faulty["cut"] == 1


def test_nothing_is_left_on_the_disk_and_no_name_is_there_while_it_is_used(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = open_source([f"{served.url}/a.tar"])
    assert next(iter(source)).read() == content(0)
    assert len(copies._copies) == 1
    assert not list(tmp_path.iterdir())
