"""Lists that are tables: CSV and Parquet, their other columns beside the rows, bad rows in place."""

from __future__ import annotations

import datetime
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import store_servers

import layerprobe
from layerprobe.errors import SampleError, UsageError
from layerprobe.sources.listing import image_source

Command = Callable[..., Any]


def rows(*lists: object, **options: Any) -> list[tuple[str, Any, Any]]:
    """Key, bytes or the reason why not, and fields of each row."""
    found = []
    for sample in image_source([], lists=[str(name) for name in lists], **options):
        try:
            data: object = sample.read()
        except SampleError as error:
            data = str(error)
        found.append((sample.key, data, json.loads(sample.fields) if sample.fields else None))
    return found


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg", "c, d.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_csv_names_images_and_its_other_columns_are_kept(files: Path) -> None:
    (files / "x.csv").write_text(
        '\ufefflabel,Path,note\n3,a.jpg,"one\ntwo"\n4,"c, d.jpg",\n\n5,b.jpg,x\n', "utf-8"
    )
    assert rows("x.csv") == [
        ("a.jpg", b"a.jpg", {"label": "3", "note": "one\ntwo"}),
        ("c, d.jpg", b"c, d.jpg", {"label": "4", "note": ""}),
        ("b.jpg", b"b.jpg", {"label": "5", "note": "x"}),
    ]
    assert [key for key, *_ in rows("x.csv", limit=2)] == ["a.jpg", "c, d.jpg"]


@pytest.mark.parametrize(("name", "separator"), [("x.tsv", "\t"), ("x.csv", ";"), ("X.CSV", ",")])
def test_what_separates_the_values_is_seen(files: Path, name: str, separator: str) -> None:
    (files / name).write_text(f"url{separator}n\na.jpg{separator}1\n")
    assert rows(name) == [("a.jpg", b"a.jpg", {"n": "1"})]


def test_rows_of_a_csv_that_are_none_fail_in_their_place(files: Path) -> None:
    (files / "x.csv").write_text("file,n\na.jpg,1\n,2\nc, d.jpg,3\nb.jpg\nb.jpg,5\n")
    assert [(key, data) for key, data, _ in rows("x.csv")] == [
        ("a.jpg", b"a.jpg"),
        ("x.csv[1]", "no path: 'file' is empty"),
        ("x.csv[2]", "the row has 3 values, for 2 columns"),
        ("x.csv[3]", "the row has 1 values, for 2 columns"),
        ("b.jpg", b"b.jpg"),
    ]


def test_the_column_is_chosen_or_asked_for(files: Path) -> None:
    (files / "x.csv").write_text("left,right,n\na.jpg,b.jpg,1\n")
    assert [key for key, *_ in rows("x.csv", column="right")] == ["b.jpg"]
    with pytest.raises(UsageError, match="say which with --column, of left, right, n"):
        rows("x.csv")
    with pytest.raises(UsageError, match="no column 'Right'"):
        rows("x.csv", column="Right")
    (files / "list").write_text("a.jpg\n")
    with pytest.raises(UsageError, match="--column is about tables"):
        rows("list", column="left")
    with pytest.raises(UsageError, match="--null"):
        rows("x.csv", nul=True)


def test_parquet_names_images_and_its_other_columns_are_kept(files: Path) -> None:
    table = pa.table(
        {
            "path": pa.array(["a.jpg", None, "b.jpg"]).dictionary_encode(),
            "label": [1, 2, None],
            "score": [0.5, float("nan"), 1.5],
            "when": [datetime.date(2026, 1, 2)] * 3,
            "box": [[1, 2], [], None],
            "thumb": [b"\xff", b"", None],
        }
    )
    pq.write_table(table, "x.parquet", row_group_size=2)
    assert rows("x.parquet") == [
        ("a.jpg", b"a.jpg", {"label": 1, "score": 0.5, "when": "2026-01-02", "box": [1, 2]}),
        (
            "x.parquet[1]",
            "no path: 'path' is empty",
            {"label": 2, "score": None, "when": "2026-01-02", "box": []},
        ),
        ("b.jpg", b"b.jpg", {"label": None, "score": 1.5, "when": "2026-01-02", "box": None}),
    ]


def test_images_within_parquet_are_rows_as_hugging_face_has_them(files: Path) -> None:
    images = [
        {"bytes": b"one", "path": "1.png"},
        None,
        {"bytes": None, "path": "3.png"},
        {"bytes": b"4", "path": None},
    ]
    pq.write_table(pa.table({"path": list("abcd"), "image": images, "label": [1, 2, 3, 4]}), "x.parquet")
    assert rows("x.parquet") == [
        ("x.parquet::1.png", b"one", {"path": "a", "label": 1}),
        ("x.parquet[1]", "no image: 'image' is empty", {"path": "b", "label": 2}),
        ("x.parquet::3.png", "no image: 'image' is empty", {"path": "c", "label": 3}),
        ("x.parquet[3]", b"4", {"path": "d", "label": 4}),
    ]
    (files / "a").write_bytes(b"by path")
    assert rows("x.parquet", column="path")[0] == ("a", b"by path", {"label": 1})


def test_rows_of_parquet_may_be_asked_for_in_any_order(files: Path) -> None:
    values = [f"{row}".encode() * 50 for row in range(2000)]
    pq.write_table(pa.table({"image": values}), "x.parquet", row_group_size=300)
    source = image_source([], lists=["x.parquet"])
    samples = list(source)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda sample: sample.read(), samples)) == values
        order = random.Random(3).sample(range(2000), 200)
        assert list(pool.map(lambda row: samples[row].read(), order)) == [values[row] for row in order]
    assert [sample.read() for sample in pickle.loads(pickle.dumps(source))][:3] == values[:3]


def test_a_large_parquet_file_is_not_read_into_memory(files: Path) -> None:
    block = np.random.default_rng(0).bytes(1_000_000)
    with pq.ParquetWriter("x.parquet", pa.schema([("image", pa.binary())]), compression="none") as writer:
        for part in range(4):
            writer.write_table(pa.table({"image": [bytes([part]) + block for _ in range(50)]}))
    code = (
        "import resource\nfrom layerprobe.sources.listing import image_source\n"
        "samples = list(image_source([], lists=['x.parquet']))\n"
        "samples[0].read()\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert [sample.read()[0] for sample in samples] == [part for part in range(4) for _ in range(50)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000, "KiB, of a file of 200 MB"


def test_a_table_in_a_store_is_read_in_parts_and_names_what_is_beside_it(files: Path) -> None:
    pq.write_table(pa.table({"file_name": ["p/a.jpg", "p/b.jpg"]}), "x.parquet")
    pq.write_table(pa.table({"image": [b"first", b"second"]}), "y.parquet")
    table = (files / "x.parquet").read_bytes()
    there = {"d/x.parquet": table, "d/p/a.jpg": b"A", "d/p/b.jpg": b"B", "d/z.csv": b"url\np/b.jpg\n"}
    there["d/y.parquet"] = (files / "y.parquet").read_bytes()
    with store_servers.web(there) as served:
        assert [data for _, data, _ in rows(f"{served.url}/d/{{x,y}}.parquet")] == [
            b"A",
            b"B",
            b"first",
            b"second",
        ]
        assert rows(f"{served.url}/d/z.csv") == [(f"{served.url}/d/p/b.jpg", b"B", None)]


def test_what_is_no_table_is_said_in_a_sentence(files: Path, command: Command, samples: Path) -> None:
    (files / "x.parquet").write_bytes(b"PAR1 and nothing more")
    (files / "x.csv").write_text('path\n"never closed\n')
    (files / "empty.csv").touch()
    for name in ("x.parquet", "x.csv", "empty.csv"):
        ended = command("extract", samples / "vgg_shapes.h5", "-l", "predictions", "--from-file", name)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
        assert ended.err.startswith("layerprobe: list ")


def test_the_rows_of_a_table_become_the_rows_of_the_output(
    files: Path, command: Command, samples: Path
) -> None:
    names = ["star_09.png", "ring_05.png"]
    data = [(samples / "images" / name).read_bytes() for name in names]
    pq.write_table(pa.table({"image": [data[0], b"broken", data[1]], "label": ["s", "x", "r"]}), "x.parquet")
    (files / "x.csv").write_text(
        f"path,label\n{samples}/images/{names[0]},s\n,x\n{samples}/images/{names[1]},r\n"
    )
    found = []
    for table in ("x.parquet", "x.csv"):
        command(
            "extract",
            samples / "vgg_shapes.h5",
            "-l",
            "predictions",
            "--from-file",
            table,
            "-o",
            f"{table}.h5",
        )
        with layerprobe.open(f"{table}.h5") as reader:
            assert reader.status == ["ok", "failed", "ok"]
            assert reader.fields == [{"label": "s"}, {"label": "x"}, {"label": "r"}]
            found.append(np.array(reader["predictions"]))
    np.testing.assert_array_equal(found[0], found[1])
