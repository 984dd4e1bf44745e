"""Parquet files, as pandas, DuckDB, datasets and pyarrow read them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from output_samples import (
    FAILURES,
    FIELDS,
    LAYERS,
    PATHS,
    PROVENANCE,
    ROWS,
    fill,
    sample_values,
    write_output,
)
from pyarrow import parquet as pq

from layerprobe import registry
from layerprobe.errors import OutputFormatError, UnavailableError, UnrecordableLayerError
from layerprobe.formats import parquet
from layerprobe.formats.opening import open_output
from layerprobe.formats.parquet import ParquetWriter
from layerprobe.formats.row_texts import RowTexts
from layerprobe.formats.streams import open_pipe_stream
from layerprobe.records import TensorSpec
from layerprobe.run.plan import choose_output

LEGIBLE = [path.replace("\udcff\udc80", "\ufffd\ufffd") for path in PATHS]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of three rows."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 3)


@pytest.mark.usefixtures("small_groups")
def test_pandas_reads_every_column(tmp_path: Path) -> None:
    values = write_output(ParquetWriter, tmp_path / "out.parquet")
    table = pd.read_parquet(tmp_path / "out.parquet")
    names = [*("path", "status", "error"), *(name.replace(".", "%2E") or "%" for name in values)]
    assert list(table) == names
    assert table["path"].tolist() == LEGIBLE
    assert table["status"].tolist() == ["failed" if row in FAILURES else "ok" for row in range(ROWS)]
    assert table["error"].tolist() == [FAILURES.get(row, "") for row in range(ROWS)]
    for name, expected in values.items():
        found = np.stack(table[name or "%"].to_numpy()).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.usefixtures("small_groups")
def test_duckdb_reads_and_filters(tmp_path: Path) -> None:
    values = write_output(ParquetWriter, tmp_path / "out.parquet")
    query = f"from '{tmp_path / 'out.parquet'}' where status = 'ok'"
    good = [row for row in range(ROWS) if row not in FAILURES]
    found = duckdb.sql(f'select path, conv5_3, "backbone/conv1", count {query}').fetchall()
    assert [row[0] for row in found] == [LEGIBLE[row] for row in good]
    for place, (name, shape) in enumerate([("conv5_3", (4, 3, 8)), ("backbone/conv1", (5,)), ("count", ())]):
        column = np.array([row[place + 1] for row in found]).reshape(len(good), *shape)
        np.testing.assert_array_equal(column, values[name][good])
    assert duckdb.sql(f"select sum(count) {query}").fetchall() == [(values["count"][good].sum(),)]


@pytest.mark.usefixtures("small_groups")
def test_datasets_of_hugging_face_reads_lists_of_a_known_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    values = write_output(ParquetWriter, tmp_path / "out.parquet")
    found = datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache"))
    assert found.features["conv5_3"] == datasets.List(datasets.Value("float32"), length=96)
    assert found.features["backbone/conv1"] == datasets.List(datasets.Value("float16"), length=5)
    assert found.features["count"] == datasets.Value("int64")
    assert found["path"][:] == LEGIBLE
    arrays = found.with_format("numpy")
    for name, expected in values.items():
        column = np.asarray(arrays[name or "%"][:])
        np.testing.assert_array_equal(column.reshape(expected.shape), expected)
    good = found.filter(lambda status: status == "ok", input_columns="status")
    assert len(good) == ROWS - len(FAILURES)


def test_the_file_says_shapes_and_where_its_numbers_come_from(tmp_path: Path) -> None:
    write_output(ParquetWriter, tmp_path / "out.parquet")
    file = pq.ParquetFile(tmp_path / "out.parquet")
    field = file.schema_arrow.field("conv5_3")
    assert field.type == pa.list_(pa.field("element", pa.float32(), nullable=False), 96)
    assert json.loads(field.metadata[b"shape"]) == [4, 3, 8]
    assert json.loads(file.schema_arrow.field("%").metadata[b"layer"]) == ""
    record = json.loads(file.metadata.metadata[b"layerprobe"])
    assert record["model"] == PROVENANCE.model
    assert record["layers"][0] == {"name": "conv5_3", "shape": [4, 3, 8], "dtype": "float32"}


def test_what_the_list_said_is_a_column_of_json(tmp_path: Path) -> None:
    writer = ParquetWriter(str(tmp_path / "out.parquet"), LAYERS, PATHS)
    fill(writer, sample_values())
    writer.commit(FAILURES, PROVENANCE, FIELDS)
    query = f"select fields->>'label' from '{tmp_path / 'out.parquet'}' where fields like '%cat%'"
    assert duckdb.sql(query).fetchall() == [("cat",)]


def test_a_row_group_is_read_once_for_all_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 3)
    values = write_output(ParquetWriter, tmp_path / "out.parquet")
    read: list[tuple[int, list[str]]] = []
    original = pq.ParquetFile.read_row_group

    def counting(self: Any, group: int, columns: list[str]) -> Any:
        read.append((group, columns))
        return original(self, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    with open_output(tmp_path / "out.parquet") as reader:
        for row in range(ROWS):
            np.testing.assert_array_equal(reader["conv5_3"][row], values["conv5_3"][row])
    assert read == [(group, ["conv5_3"]) for group in range(3)]


def test_columns_that_other_programs_take_for_one_are_kept_apart(tmp_path: Path) -> None:
    names = ["Path", "path", "STATUS", "conv", "Conv", "a.b", "a", "ünï"]
    writer = ParquetWriter(str(tmp_path / "out.parquet"), [TensorSpec(n, (), "int32") for n in names], ["p"])
    writer.write(0, {name: np.array([place], "i4") for place, name in enumerate(names)})
    writer.commit({}, PROVENANCE)
    found = duckdb.sql(f"select * from '{tmp_path / 'out.parquet'}'")
    assert len({column.lower() for column in found.columns}) == 3 + len(names)
    assert found.fetchall() == [("p", "ok", "", *range(len(names)))]


def test_types_that_the_format_lacks_are_refused_by_name(tmp_path: Path) -> None:
    for dtype in ("complex64", "longdouble"):
        with pytest.raises(UnrecordableLayerError, match=r"'fft'.*Parquet, which has no .*give -o NAME.npz"):
            ParquetWriter(str(tmp_path / "out"), [TensorSpec("fft", (2,), dtype)], ["a"])
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_takes_the_whole_file() -> None:
    piped = io.BytesIO()
    rows = np.arange(6, dtype="f2").reshape(3, 2)
    stream = open_pipe_stream(piped, "parquet", [TensorSpec("x", (2,), "float16")], ["a", "b", "c"])
    stream.append(RowTexts(["a", "b", "c"], {1: "why"}, ["", "", ""]), {"x": rows})
    stream.commit(PROVENANCE)
    stream.abort()
    table = pq.read_table(io.BytesIO(piped.getvalue()))
    np.testing.assert_array_equal(np.stack(table["x"].to_pylist()), rows)
    assert table["status"].to_pylist() == ["ok", "failed", "ok"]


def test_rows_wait_in_a_file_that_nobody_takes_for_the_table(tmp_path: Path) -> None:
    writer = ParquetWriter(str(tmp_path / "out.parquet"), [TensorSpec("x", (2,), "float32")], ["a", "b"])
    writer.write(0, {"x": np.zeros((2, 2), "f4")})
    writer.sync()
    (waiting,) = tmp_path.iterdir()
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(waiting)
    with pytest.raises(OutputFormatError):
        open_output(waiting)
    writer.abort()


def test_tables_of_other_programs_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"], "x": [1.0]}), tmp_path / "out.parquet")
    with pytest.raises(OutputFormatError, match="was not written by layerprobe, or is damaged"):
        open_output(tmp_path / "out.parquet")


def test_without_pyarrow_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    with pytest.raises(
        UnavailableError, match=r"pyarrow, .*run `pip install 'layerprobe\[parquet\]'`"
    ) as told:
        choose_output("out.parquet", ["a.png"])
    assert told.value.exit_code == 69
