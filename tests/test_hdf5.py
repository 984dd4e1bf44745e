from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from output_samples import FAILURES, PATHS, PROVENANCE, ROWS, assert_holds, write_output

from layerprobe.errors import OutputFormatError, WriteError
from layerprobe.formats.hdf5 import HDF5Reader, HDF5Writer
from layerprobe.records import TensorSpec


def test_h5py_reads_everything(tmp_path: Path) -> None:
    values = write_output(HDF5Writer, tmp_path / "out.h5")
    stored = {"backbone/conv1": "backbone%2Fconv1", "": "%"}
    with h5py.File(tmp_path / "out.h5", "r") as file:
        assert set(file) == {stored.get(name, name) for name in values} | {
            "paths",
            "status",
            "error",
            "provenance",
        }
        assert file.attrs["layerprobe_format"] == 1
        for name, expected in values.items():
            dataset = file[stored.get(name, name)]
            np.testing.assert_array_equal(dataset[:], expected)
            assert dataset.dtype == expected.dtype
            assert dataset.attrs["layer"] == name
        assert [os.fsdecode(path) for path in file["paths"][:]] == PATHS
        assert h5py.check_string_dtype(file["paths"].dtype).encoding == "utf-8"
        assert file["paths"].asstr()[3] == "Ärger.jpg"
        assert file["status"].asstr()[:].tolist() == [
            "failed" if row in FAILURES else "ok" for row in range(ROWS)
        ]
        assert file["error"].asstr()[:].tolist() == [FAILURES.get(row, "") for row in range(ROWS)]
        assert json.loads(file["provenance"][()])["model"] == PROVENANCE.model


def test_layers_are_contiguous_aligned_and_do_not_know_the_time(tmp_path: Path) -> None:
    write_output(HDF5Writer, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5", "r") as file:
        for name in ("conv5_3", "backbone%2Fconv1", "count", "mask", "brain", "bytes", "%"):
            assert file[name].chunks is None
            assert file[name].id.get_offset() % 64 == 0
            assert h5py.h5g.get_objinfo(file.id, name.encode()).mtime == 0


def test_rows_stand_at_their_place_before_commit(tmp_path: Path) -> None:
    writer = HDF5Writer(str(tmp_path / "out.h5"), [TensorSpec("x", (16,), "float32")], ["a"] * 100)
    rows = np.arange(1600, dtype="f4").reshape(100, 16)
    writer.write(0, {"x": rows[:60]})
    (temporary,) = tmp_path.iterdir()
    with h5py.File(temporary, "r") as file:
        np.testing.assert_array_equal(file["x"][:60], rows[:60])
        assert file["x"].shape == (100, 16)
    writer.abort()


def test_texts_with_nul_or_half_characters_do_not_end_a_run(tmp_path: Path) -> None:
    writer = HDF5Writer(str(tmp_path / "out.h5"), [TensorSpec("a\0b\ud800", (), "float32")], ["p\ud800", "q"])
    writer.write(0, {"a\0b\ud800": np.zeros(2, "f4")})
    writer.commit({1: "bad\0byte"}, PROVENANCE)
    with HDF5Reader(str(tmp_path / "out.h5")) as reader:
        assert list(reader) == ["a\0b\ud800"]
        assert reader.error == ["", "bad\\x00byte"]
        assert reader.paths[1] == "q"


def test_many_layers_and_rows(tmp_path: Path) -> None:
    layers = [TensorSpec(f"block{number}/conv", (2,), "float32") for number in range(1000)]
    paths = [f"{row}.jpg" for row in range(11_000)]
    writer = HDF5Writer(str(tmp_path / "out.h5"), layers, paths)
    values = {
        spec.name: np.full((len(paths), 2), number, "f4") + np.arange(len(paths))[:, None].astype("f4")
        for number, spec in enumerate(layers)
    }
    writer.write(0, values)
    writer.commit({10_999: "last"}, PROVENANCE)
    with HDF5Reader(str(tmp_path / "out.h5")) as reader:
        assert reader.paths == paths
        assert reader.error[-1] == "last"
        for name in ("block0/conv", "block999/conv"):
            np.testing.assert_array_equal(reader[name], values[name])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_disk_that_is_full_from_some_write_on_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """HDF5 would crash when it closes the file; so it must never hear of it."""
    original, left = os.pwrite, 0

    def write(file: int, data: Any, place: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(code, os.strerror(code))
        return original(file, data, place)

    monkeypatch.setattr(os, "pwrite", write)
    for count in range(200):
        left = count
        try:
            write_output(HDF5Writer, tmp_path / "out.h5")
        except WriteError:
            assert os.listdir(tmp_path) == []
        else:
            break
    assert count > 20
    monkeypatch.undo()
    assert_holds(tmp_path / "out.h5", write_output(HDF5Writer, tmp_path / "other.h5"))


def test_a_chunked_dataset_is_refused_by_name(tmp_path: Path) -> None:
    values = write_output(HDF5Writer, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        del file["conv5_3"]
        file.create_dataset("conv5_3", data=values["conv5_3"], compression="gzip")
    with pytest.raises(OutputFormatError, match=r"'conv5_3' is compressed with the HDF5 filters \[1\]"):
        HDF5Reader(str(tmp_path / "out.h5"))


def test_a_group_or_a_link_where_a_layer_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"secret" * 1000)
    write_output(HDF5Writer, tmp_path / "secret.h5")
    for kind in ("group", "link", "external storage"):
        write_output(HDF5Writer, tmp_path / "out.h5")
        with h5py.File(tmp_path / "out.h5", "r+") as file:
            del file["conv5_3"]
            if kind == "group":
                file.create_group("conv5_3")
            elif kind == "link":
                file["conv5_3"] = h5py.ExternalLink("secret.h5", "conv5_3")
            else:
                storage = [(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
                file.create_dataset("conv5_3", (ROWS, 4), "f4", external=storage)
        with pytest.raises(OutputFormatError, match="was not written by layerprobe, or is damaged"):
            HDF5Reader(str(tmp_path / "out.h5"))


def test_rows_of_another_number_are_refused(tmp_path: Path) -> None:
    write_output(HDF5Writer, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        del file["count"]
        file["count"] = np.zeros(ROWS - 1, "i8")
    with pytest.raises(OutputFormatError, match=r"layer 'count' is int64 of \(6,\), with 7 rows in all"):
        HDF5Reader(str(tmp_path / "out.h5"))


def test_a_file_that_nobody_closed_is_closed_before_the_interpreter_takes_h5py_apart(tmp_path: Path) -> None:
    write_output(HDF5Writer, tmp_path / "out.h5")
    program = """
import atexit, sys
kept = []
atexit.register(lambda: print(bool(kept[0])))
import layerprobe
reader = layerprobe.open(sys.argv[1])
kept.append(reader._opened.hdf5)
assert kept[0]
"""
    words = [sys.executable, "-c", program, tmp_path / "out.h5"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("False\n", "")
