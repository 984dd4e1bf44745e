"""What was loaded is what was hashed, whatever happens to the file meanwhile."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from model_writers import entry, sequential, write_flat, write_json, write_tree

from layerprobe.errors import ModelError
from layerprobe.modelfile import digest
from layerprobe.modelfile.archive import open_archive
from layerprobe.options import ModelOptions
from layerprobe.run.probed_model import ProbedModel

MODEL = sequential(
    entry("InputLayer", "start", batch_input_shape=[None, 3]), entry("Dense", "dense", units=2)
)
KERNEL = np.arange(6, dtype="float32").reshape(3, 2)
ROW = np.array([[1, 2, 3]], "float32")


def write_model(path: Path, kernel: np.ndarray) -> Path:
    """As `.h5` or `.keras`, by its name."""
    if path.suffix == ".keras":
        return Path(write_tree(path, MODEL, {"layers/dense": [kernel, np.zeros(2, "float32")]}))
    weights = {"dense": [("dense/kernel:0", kernel), ("dense/bias:0", np.zeros(2, "float32"))]}
    return Path(write_flat(path, MODEL, weights))


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=["model.h5", "model.keras"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_model(tmp_path / request.param, KERNEL)


def test_a_file_that_is_replaced_while_it_is_loaded_gives_its_own_values_and_hash(model: Path) -> None:
    first, other = sha256_of(model), write_model(model.with_stem("other"), -KERNEL)
    probed = ProbedModel(model, ["dense"], ModelOptions(), "graph")
    os.replace(other, model)
    probed.prepare()
    found = probed.engine(probed.inputs, batch_size=1).run([ROW])["dense"]
    np.testing.assert_array_equal(found, ROW @ KERNEL)
    assert probed.provenance()["sha256"] == first != sha256_of(model)


def test_a_file_that_is_written_to_while_it_is_loaded_is_refused(model: Path) -> None:
    probed = ProbedModel(model, ["dense"], ModelOptions(), "graph")
    probed.prepare()
    data = model.read_bytes()
    with open(model, "r+b") as file:
        file.write(data[:-1] + b"?")
    with pytest.raises(ModelError, match="was changed while it was being loaded"):
        probed.engine(probed.inputs, batch_size=1)


def test_a_file_that_is_written_to_while_it_is_hashed_is_refused(model: Path) -> None:
    probed = ProbedModel(model, ["dense"], ModelOptions(), "graph")
    probed.engine(probed.inputs, batch_size=1)
    with open(model, "ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match="was changed while it was being loaded"):
        probed.provenance()


def test_a_weights_file_that_is_written_to_is_refused(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "weights.h5", KERNEL)
    with open_archive(write_json(tmp_path / "model.json", MODEL), str(weights)) as archive:
        archive.check_unchanged()
        with open(weights, "ab") as file:
            file.write(b"more")
        with pytest.raises(ModelError, match=r"weights\.h5 was changed"):
            archive.check_unchanged()


def test_weights_that_are_replaced_keep_the_hash_of_what_was_loaded(tmp_path: Path) -> None:
    weights, other = write_model(tmp_path / "w.h5", KERNEL), write_model(tmp_path / "other.h5", -KERNEL)
    options = ModelOptions(weights=str(weights))
    probed = ProbedModel(write_json(tmp_path / "model.json", MODEL), ["dense"], options, "graph")
    first = sha256_of(weights)
    os.replace(other, weights)
    found = probed.engine(probed.inputs, batch_size=1).run([ROW])["dense"]
    np.testing.assert_array_equal(found, ROW @ KERNEL)
    assert probed.provenance()["weights"] == probed.signature()["weights"] == first


def test_a_file_of_a_folder_that_is_written_to_is_refused(tmp_path: Path) -> None:
    zipfile.ZipFile(write_model(tmp_path / "model.keras", KERNEL)).extractall(tmp_path / "folder")
    with open_archive(str(tmp_path / "folder")) as archive:
        assert archive.sha256() == digest.folder_sha256(str(tmp_path / "folder"))
        (tmp_path / "folder" / "config.json").write_text("{}")
        with pytest.raises(ModelError, match="was changed"):
            archive.sha256()


def test_another_file_of_the_same_name_is_noticed_where_the_name_is_used_again(model: Path) -> None:
    other = write_model(model.with_stem("other"), -KERNEL)
    with open_archive(str(model)) as archive:
        archive.check_unchanged(by_name=True)
        os.replace(other, model)
        archive.check_unchanged()
        with pytest.raises(ModelError, match="was replaced"):
            archive.check_unchanged(by_name=True)


def test_weights_of_which_bytes_were_lost_never_become_an_engine(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.keras", KERNEL)
    data = bytearray(model.read_bytes())
    data[data.index(KERNEL.tobytes()) + 8] ^= 1
    model.write_bytes(data)
    probed = ProbedModel(model, ["dense"], ModelOptions(), "graph")
    with pytest.raises(ModelError, match="CRC"):
        probed.engine(probed.inputs, batch_size=1)


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_hash_and_checksum_do_not_depend_on_the_pieces_read(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_PIECE", piece)
    model = write_model(tmp_path / "model.keras", KERNEL)
    with open_archive(str(model)) as archive:
        archive.hdf5()
        archive.begin_reading(hashed=True)
        archive.verify()
        assert archive.sha256() == sha256_of(model)


def test_a_reading_that_was_ended_early_gives_no_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_PIECE", 1)
    (tmp_path / "long").write_bytes(b"")
    os.truncate(tmp_path / "long", 1 << 32)
    with open(tmp_path / "long", "rb") as stream:
        reading = digest.Digest(stream.fileno(), hashed=True)
        reading.stop()
        with pytest.raises(OSError, match="end"):
            reading.sha256()
