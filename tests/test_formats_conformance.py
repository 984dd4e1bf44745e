"""What every format must do: it runs over the tables of the registry."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_samples import (
    FAILURES,
    FIELDS,
    LAYERS,
    PATHS,
    PROVENANCE,
    ROWS,
    WAYS,
    fill,
    sample_values,
    write_output,
)

from layerprobe import registry
from layerprobe.errors import (
    UnknownLayerError,
)
from layerprobe.formats import rows
from layerprobe.formats.opening import open_output
from layerprobe.formats.places import PlacedRows
from layerprobe.records import TensorSpec

FORMATS = sorted(registry.WRITERS | registry.STREAMS)
MAPPED = sorted(registry.WRITERS.keys() - {"parquet", "zarr"})


@pytest.fixture(params=sorted(WAYS))
def writer_class(request: pytest.FixtureRequest) -> Any:
    return WAYS[request.param]


@pytest.fixture(params=sorted(registry.WRITERS))
def placing(request: pytest.FixtureRequest) -> Any:
    """A writer whose rows have places."""
    return WAYS[request.param]


def test_every_format_that_is_written_is_read_and_has_a_suffix() -> None:
    assert set(FORMATS) == set(registry.READERS) == set(registry.SUFFIXES.values())


def test_what_the_list_said_comes_back_and_nothing_where_it_said_nothing(
    writer_class: Any, tmp_path: Path
) -> None:
    for name, fields in [("with", FIELDS), ("without", None)]:
        writer = writer_class(str(tmp_path / name), LAYERS, PATHS)
        fill(writer, sample_values())
        writer.commit(FAILURES, PROVENANCE, fields)
    with open_output(tmp_path / "with") as reader:
        assert reader.fields == [json.loads(text or "{}") for text in FIELDS]
        assert reader.paths == PATHS
    with open_output(tmp_path / "without") as reader:
        assert reader.fields is None


def test_values_come_back_bit_for_bit_in_the_order_asked_for(writer_class: Any, tmp_path: Path) -> None:
    values = write_output(writer_class, tmp_path / "out")
    with open_output(tmp_path / "out") as reader:
        assert list(reader) == [spec.name for spec in LAYERS]
        assert len(reader) == len(LAYERS)
        for name, expected in values.items():
            got = reader[name]
            assert (got.shape, got.dtype, len(got)) == (expected.shape, expected.dtype, ROWS)
            np.testing.assert_array_equal(np.asarray(got), expected)


def test_texts_and_provenance_come_back_as_they_were(writer_class: Any, tmp_path: Path) -> None:
    write_output(writer_class, tmp_path / "out")
    reader = open_output(tmp_path / "out")
    assert reader.paths == PATHS
    assert [os.fsencode(path) for path in reader.paths] == [os.fsencode(path) for path in PATHS]
    assert reader.status == ["ok", "ok", "failed", "ok", "ok", "failed", "ok"]
    assert reader.error == [FAILURES.get(row, "") for row in range(ROWS)]
    assert reader.provenance == asdict(PROVENANCE)
    assert reader.path == str(tmp_path / "out")
    reader.close()


@pytest.mark.parametrize(
    "index", [slice(2, 5), 3, -1, slice(None, None, 2), slice(6, 2, -2), [4, 1, 1], slice(0, 0)], ids=str
)
def test_slices_equal_those_of_an_array_in_memory(writer_class: Any, tmp_path: Path, index: Any) -> None:
    values = write_output(writer_class, tmp_path / "out")
    with open_output(tmp_path / "out") as reader:
        for name, expected in values.items():
            np.testing.assert_array_equal(reader[name][index], expected[index])
        np.testing.assert_array_equal(reader["conv5_3"][1:3, ..., 2], values["conv5_3"][1:3, ..., 2])


def test_arrays_cannot_be_changed(writer_class: Any, tmp_path: Path) -> None:
    values = write_output(writer_class, tmp_path / "out")
    with open_output(tmp_path / "out") as reader:
        for name in reader:
            rows = reader[name]
            if not isinstance(rows, np.ndarray):  # read as it is sliced
                rows = rows[:3]
            if rows.flags.writeable:
                rows[...] = 1
            np.testing.assert_array_equal(reader[name], values[name])


@pytest.mark.parametrize("name", MAPPED)
def test_arrays_are_mapped_and_aligned(name: str, tmp_path: Path) -> None:
    write_output(WAYS[name], tmp_path / "out")
    with open_output(tmp_path / "out") as reader:
        for name in reader:
            assert reader[name].flags.aligned
            assert not reader[name].flags.owndata


@pytest.mark.parametrize("block", [1, 2, ROWS])
def test_the_bytes_do_not_depend_on_the_size_of_the_blocks(
    writer_class: Any, tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Checksums are of parts that are made of whole blocks: here of all of them together.
    monkeypatch.setattr(rows, "CHECKED_PARTS", 1)
    write_output(writer_class, tmp_path / "one")
    write_output(writer_class, tmp_path / "two", block=block)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_rows_have_places_whoever_writes_them_in_whatever_order_and_where_a_run_was_killed(
    placing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHECKED_PARTS", 1)
    write_output(placing, tmp_path / "whole", block=2)
    values = sample_values()

    def block(start: int, other: int = 0) -> dict[str, Any]:
        return {name: array[start + other :][:2] for name, array in values.items()}

    writer = placing(str(tmp_path / "out"), LAYERS, PATHS)
    known = [writer.write(4, block(4)), PlacedRows(writer.places).write(0, block(0))]
    writer.adopt(known[1])
    # Somebody died over these, and told nobody.
    PlacedRows(writer.places).write(2, block(2, other=1))
    writer.sync()
    writer.suspend()

    again = placing(str(tmp_path / "out"), LAYERS, PATHS, writer.layout)
    for noted in known:
        again.adopt(noted)
    again.write(6, block(6))
    again.adopt(PlacedRows(again.places).write(2, block(2)))
    again.commit(FAILURES, PROVENANCE)
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]


def test_one_row_and_no_failures(writer_class: Any, tmp_path: Path) -> None:
    writer = writer_class(str(tmp_path / "out"), LAYERS, ["only.png"])
    values = sample_values(rows=1)
    fill(writer, values)
    writer.commit({}, PROVENANCE)
    with open_output(tmp_path / "out") as reader:
        assert (reader.paths, reader.status, reader.error) == (["only.png"], ["ok"], [""])
        np.testing.assert_array_equal(reader["count"], values["count"])


def test_blocks_need_not_be_contiguous(writer_class: Any, tmp_path: Path) -> None:
    writer = writer_class(str(tmp_path / "out"), [TensorSpec("x", (4, 3), "float32")], ["a", "b"])
    values = np.arange(24, dtype="f4").reshape(2, 3, 4).transpose(0, 2, 1)
    writer.write(0, {"x": values})
    writer.commit({}, PROVENANCE)
    with open_output(tmp_path / "out") as reader:
        np.testing.assert_array_equal(reader["x"], values)


HARD_NAMES = [
    *("encoder", "encoder/conv1", "encoder/conv1/x", "a/b", "a%2Fb", "a//b", "/a", "a/", "in:x", "pre:x@1:0"),
    *("..", ".", "../../escape", "/absolute", "a/../b", "C:\\x", "a\\b", "", "%", "%%", "%2F", "~", "-rf"),
    *("x", "x.npy", "x.npy.npy", ".npy", "file", "allow_pickle", "paths", "status", "error", "provenance"),
    *(
        "Paths",
        "provenance.json",
        "e\u0301",
        "\u00e9",
        "nul\0",
        "nul\0byte",
        "line\nbreak",
        "\x1b[31m",
        "\x7f",
    ),
    *(
        "Conv",
        "conv",
        "CONV",
        "aux",
        "con.x",
        "COM1",
        "x?*<>|\"'",
        " ",
        "x ",
        "x.",
        "\ud800",
        "\udcff",
        "日本語",
    ),
    *("n" * 2000, "n" * 1999 + "m", "n" * 255, "é" * 2000, "a/" * 1000 + "b"),
]


def test_any_layer_name_is_kept_apart_from_the_others(writer_class: Any, tmp_path: Path) -> None:
    layers = [TensorSpec(name, (2,), "int32") for name in HARD_NAMES]
    writer = writer_class(str(tmp_path / "out"), layers, ["a", "b"])
    values = {name: np.array([[place, 1], [-place, 2]], "i4") for place, name in enumerate(HARD_NAMES)}
    writer.write(0, values)
    writer.commit({}, PROVENANCE)
    assert os.listdir(tmp_path) == ["out"]
    with open_output(tmp_path / "out") as reader:
        assert list(reader) == HARD_NAMES
        for name, expected in values.items():
            np.testing.assert_array_equal(reader[name], expected)


def test_an_unknown_layer_is_answered_with_the_closest(writer_class: Any, tmp_path: Path) -> None:
    write_output(writer_class, tmp_path / "out")
    with open_output(tmp_path / "out") as reader:
        with pytest.raises(UnknownLayerError, match="no layer 'conv53'.*'conv5_3'"):
            reader["conv53"]
        with pytest.raises(UnknownLayerError, match="no layer 'paths'"):
            reader["paths"]
        assert "conv5_3" in reader
        assert "paths" not in reader


def test_a_closed_reader_says_so_and_arrays_taken_before_stay(writer_class: Any, tmp_path: Path) -> None:
    values = write_output(writer_class, tmp_path / "out")
    with open_output(tmp_path / "out") as reader:
        taken = reader["conv5_3"]
    reader.close()
    np.testing.assert_array_equal(taken, values["conv5_3"])
    with pytest.raises(ValueError, match="closed"):
        reader["conv5_3"]
    with pytest.raises(ValueError, match="closed"):
        _ = reader.paths


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in _files(path)}


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
