from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from output_samples import PATHS, PROVENANCE, ROWS, assert_holds, write_output

from layerprobe.errors import OutputFormatError, WriteError
from layerprobe.formats import pending
from layerprobe.formats.npy import NpyReader, NpyWriter
from layerprobe.records import TensorSpec


def test_numpy_maps_every_file(tmp_path: Path) -> None:
    values = write_output(NpyWriter, tmp_path / "out")
    stored = {"backbone/conv1": "backbone%2Fconv1", "": "%"}
    names = {f"{stored.get(name, name)}.npy" for name in (*values, "paths", "status", "error")}
    assert set(os.listdir(tmp_path / "out")) == names | {"provenance.json"}
    for name, expected in values.items():
        if expected.size:
            mapped = np.load(tmp_path / "out" / f"{stored.get(name, name)}.npy", mmap_mode="r")
            np.testing.assert_array_equal(mapped, expected)
    assert np.load(tmp_path / "out" / "paths.npy").tolist() == PATHS
    record = json.loads((tmp_path / "out" / "provenance.json").read_bytes())
    assert record["arrays"]["backbone/conv1"] == "backbone%2Fconv1"
    assert record["started"] == PROVENANCE.started


def test_files_are_what_numpy_save_writes(tmp_path: Path) -> None:
    values = write_output(NpyWriter, tmp_path / "out")
    np.save(tmp_path / "expected.npy", values["conv5_3"])
    assert (tmp_path / "out" / "conv5_3.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_more_layers_than_files_may_be_open(tmp_path: Path) -> None:
    layers = [TensorSpec(f"conv{number}", (2,), "float32") for number in range(300)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        writer = NpyWriter(str(tmp_path / "out"), layers, ["a", "b"])
        writer.write(0, {spec.name: np.full((2, 2), place, "f4") for place, spec in enumerate(layers)})
        writer.commit({}, PROVENANCE)
        with NpyReader(str(tmp_path / "out")) as reader:
            assert [int(reader[name][1, 1]) for name in reader] == list(range(300))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_reader_never_takes_a_folder_that_replaced_its_own(tmp_path: Path) -> None:
    write_output(NpyWriter, tmp_path / "out", seed=1)
    with NpyReader(str(tmp_path / "out")) as reader:
        write_output(NpyWriter, tmp_path / "out", seed=2)
        with pytest.raises(OutputFormatError, match="No such file"):
            reader["count"]


def test_an_old_folder_is_put_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_output(NpyWriter, tmp_path / "out", seed=1)
    monkeypatch.setattr(pending, "exchange", lambda *_: False)
    rename, calls = os.rename, []

    def second_fails(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(WriteError, match="Input/output error"):
        write_output(NpyWriter, tmp_path / "out", seed=2)
    assert os.listdir(tmp_path) == ["out"]
    assert_holds(tmp_path / "out", old)


def test_a_missing_file_or_one_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_output(NpyWriter, tmp_path / "good")
    for change in ("missing", "shape", "order", "objects"):
        out = shutil.copytree(tmp_path / "good", tmp_path / change)
        (out / "backbone%2Fconv1.npy").unlink()
        if change == "shape":
            np.save(out / "backbone%2Fconv1.npy", np.zeros((ROWS + 1, 5), "f2"))
        elif change == "order":
            np.save(out / "backbone%2Fconv1.npy", np.asfortranarray(np.zeros((ROWS, 5), "f2")))
        elif change == "objects":
            np.save(out / "backbone%2Fconv1.npy", np.array([{}] * ROWS))
        with pytest.raises(OutputFormatError, match="was not written by layerprobe, or is damaged"):
            NpyReader(str(out))


def test_a_record_cannot_name_files_outside_the_folder(tmp_path: Path) -> None:
    write_output(NpyWriter, tmp_path / "out")
    np.save(tmp_path / "secret.npy", np.zeros(ROWS))
    record = tmp_path / "out" / "provenance.json"
    for name in ("../secret", str(tmp_path / "secret")):
        changed = json.loads(record.read_bytes())
        changed["arrays"]["count"] = name
        record.write_text(json.dumps(changed))
        with pytest.raises(OutputFormatError, match="is not in the folder"):
            NpyReader(str(tmp_path / "out"))
