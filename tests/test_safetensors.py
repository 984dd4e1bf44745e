"""safetensors files, as the package that defines them reads them."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from output_samples import FAILURES, PATHS, PROVENANCE, ROWS, write_output

from layerprobe.errors import OutputFormatError, UnrecordableLayerError
from layerprobe.formats.opening import open_output
from layerprobe.formats.row_texts import RowTexts
from layerprobe.formats.safetensors import SafetensorsWriter
from layerprobe.formats.streams import open_pipe_stream
from layerprobe.records import TensorSpec


def test_the_package_reads_every_array(tmp_path: Path) -> None:
    values = write_output(SafetensorsWriter, tmp_path / "out.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    assert set(found) == {*(name or "%" for name in values), "paths", "status", "error", "provenance"}
    for name, expected in values.items():
        np.testing.assert_array_equal(found[name or "%"], expected)
        assert found[name or "%"].dtype == expected.dtype
    assert found["status"].tolist() == [row not in FAILURES for row in range(ROWS)]
    assert json.loads(found["paths"].tobytes()) == PATHS
    assert json.loads(found["error"].tobytes()) == [FAILURES.get(row, "") for row in range(ROWS)]
    assert json.loads(found["provenance"].tobytes())["model"] == PROVENANCE.model


def test_it_slices_one_array_without_reading_the_others(tmp_path: Path) -> None:
    values = write_output(SafetensorsWriter, tmp_path / "out.safetensors")
    with safetensors.safe_open(tmp_path / "out.safetensors", "np") as file:
        assert file.metadata() == {"format": "np", "layerprobe_format": "1"}
        np.testing.assert_array_equal(file.get_slice("conv5_3")[2:4], values["conv5_3"][2:4])


def test_an_unfinished_file_is_taken_for_no_file_at_all(tmp_path: Path) -> None:
    writer = SafetensorsWriter(str(tmp_path / "out"), [TensorSpec("x", (16,), "float32")], ["a"] * 100)
    rows = np.arange(1600, dtype="f4").reshape(100, 16)
    writer.write(0, {"x": rows})
    writer.sync()
    (temporary,) = tmp_path.iterdir()
    content = temporary.read_bytes()
    assert content.find(rows.tobytes()) % 64 == 0
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load_file(temporary)
    with pytest.raises(OutputFormatError, match="no output of layerprobe"):
        open_output(temporary)
    writer.commit({}, PROVENANCE)
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "out")["x"], rows)


def test_types_that_the_format_lacks_are_refused_by_name(tmp_path: Path) -> None:
    for dtype in ("complex128", "longdouble"):
        with pytest.raises(UnrecordableLayerError, match=r"'fft'.*has no .*give -o NAME.npz"):
            SafetensorsWriter(str(tmp_path / "out"), [TensorSpec("fft", (2,), dtype)], ["a"])
    assert list(tmp_path.iterdir()) == []
    spec = TensorSpec("fft", (2,), "complex64")
    writer = SafetensorsWriter(str(tmp_path / "out"), [spec], ["a"])
    writer.write(0, {"fft": np.array([[1 + 2j, -3j]], "c8")})
    writer.commit({}, PROVENANCE)
    assert safetensors.numpy.load_file(tmp_path / "out")["fft"].tolist() == [[1 + 2j, -3j]]


def test_a_layer_may_have_the_name_that_the_format_keeps_for_itself(tmp_path: Path) -> None:
    names = ["__metadata__", "paths", "a/b", "日本語"]
    writer = SafetensorsWriter(str(tmp_path / "out"), [TensorSpec(name, (), "int8") for name in names], ["p"])
    writer.write(0, {name: np.array([place], "i1") for place, name in enumerate(names)})
    writer.commit({}, PROVENANCE)
    found = safetensors.numpy.load_file(tmp_path / "out")
    assert {"%5F_metadata__", "%70aths", "a/b", "日本語"} < set(found)
    with open_output(tmp_path / "out") as reader:
        assert [reader[name].tolist() for name in names] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    "header", [b"{}", b'{"x":1}', b'{"__metadata__":{"format":"np"}}', b'{"__metadata__":']
)
def test_files_of_others_are_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "out").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(OutputFormatError, match="layerprobe"):
        open_output(tmp_path / "out")


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "out", {"format": "np"})
    with pytest.raises(OutputFormatError, match="was not written by layerprobe, or is damaged"):
        open_output(tmp_path / "out")


def test_a_pipe_takes_the_whole_file(tmp_path: Path) -> None:
    piped = io.BytesIO()
    spec = TensorSpec("x", (2,), "float32")
    rows = np.arange(6, dtype="f4").reshape(3, 2)
    stream = open_pipe_stream(piped, "safetensors", [spec], ["a", "b", "c"])
    stream.append(RowTexts(["a", "b", "c"], {1: "why"}, ["", "", ""]), {"x": rows})
    assert piped.getvalue() == b""
    stream.commit(PROVENANCE)
    stream.abort()
    found = safetensors.numpy.load(piped.getvalue())
    np.testing.assert_array_equal(found["x"], rows)
    assert found["status"].tolist() == [True, False, True]
