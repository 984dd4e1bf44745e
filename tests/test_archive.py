from __future__ import annotations

import hashlib
import io
import json
import os
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from model_writers import entry, sequential, write_flat, write_json, write_tree

from layerprobe.errors import LayerprobeError, ModelError, NoInputError
from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.digest import folder_sha256

MODEL = sequential(
    entry("InputLayer", "start", batch_input_shape=[None, 3]), entry("Dense", "dense", units=2)
)
KERNEL = np.arange(6, dtype="float32").reshape(3, 2)
WEIGHTS = {"dense": [("dense/kernel:0", KERNEL), ("dense/bias:0", np.zeros(2, "float32"))]}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return Path(write_flat(tmp_path / "model.h5", MODEL, WEIGHTS))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return Path(write_tree(tmp_path / "model.keras", MODEL, {"layers/dense": [KERNEL, np.zeros(2)]}))


def failure(path: Path, weights: Path | None = None) -> LayerprobeError:
    with pytest.raises(LayerprobeError) as caught:
        open_archive(str(path), None if weights is None else str(weights))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message or str(weights) in message
    return caught.value


def test_an_hdf5_file_is_known_by_its_bytes_whatever_it_is_called(flat: Path) -> None:
    for name in ("a.keras", "b.model", "c", "d.json"):
        renamed = flat.rename(flat.with_name(name))
        with open_archive(str(renamed)) as archive:
            assert archive.file_format == "hdf5"
            assert archive.config() == MODEL
            assert (archive.keras_version, archive.backend) == ("2.2.4", "tensorflow")
        renamed.rename(flat)


def test_a_keras_zip_is_known_by_its_bytes_whatever_it_is_called(tree: Path) -> None:
    renamed = tree.rename(tree.with_name("model.h5"))
    with open_archive(str(renamed)) as archive:
        assert archive.file_format == "keras"
        assert archive.config() == MODEL
        file = archive.hdf5()
        assert file is not None
        np.testing.assert_array_equal(file["layers/dense/vars/0"][()], KERNEL)


def test_a_small_zip_with_hdf5_at_an_aligned_place_is_still_a_zip(tree: Path) -> None:
    with zipfile.ZipFile(tree, "w") as archive:
        archive.writestr("config.json", json.dumps(MODEL))
        archive.writestr("padding", b"x" * (512 - archive.fp.tell() - len("padding") - 30 - 46))  # type: ignore[union-attr]
        position = archive.fp.tell()  # type: ignore[union-attr]
        name = "model.weights.h5".ljust(16)
        archive.writestr("pad2", b"x" * (1024 - position - 34 - 30 - len(name)))
        buffer = io.BytesIO()
        h5py.File(buffer, "w").close()
        archive.writestr("model.weights.h5", buffer.getvalue())
    assert tree.read_bytes()[1024:1032] == b"\x89HDF\r\n\x1a\n"
    with open_archive(str(tree)) as archive:
        assert archive.file_format == "keras"


def test_compressed_weights_in_a_zip_are_read_too(tree: Path) -> None:
    members = {name: zipfile.ZipFile(tree).read(name) for name in zipfile.ZipFile(tree).namelist()}
    with zipfile.ZipFile(tree, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with open_archive(str(tree)) as archive:
        file = archive.hdf5()
        assert file is not None
        np.testing.assert_array_equal(file["layers/dense/vars/0"][()], KERNEL)


def test_json_within_a_json_string_is_a_model_too(tmp_path: Path) -> None:
    path = write_json(tmp_path / "model.json", json.dumps({**MODEL, "keras_version": "2.0.5"}))
    with open_archive(path) as archive:
        assert archive.file_format == "json"
        assert archive.config()["config"] == MODEL["config"]
        assert archive.keras_version == "2.0.5"
        assert archive.hdf5() is None


def test_weights_may_come_from_another_file(tmp_path: Path) -> None:
    model = write_json(tmp_path / "model.json", MODEL)
    weights = write_flat(tmp_path / "weights.h5", None, WEIGHTS)
    with open_archive(model, weights) as archive:
        file = archive.hdf5()
        assert file is not None
        np.testing.assert_array_equal(file["dense/dense/kernel:0"][()], KERNEL)
        assert archive.weights_place == weights


def test_a_missing_file_is_no_input(tmp_path: Path) -> None:
    assert isinstance(failure(tmp_path / "none.h5"), NoInputError)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "neither a SavedModel nor" in str(failure(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML"),
        (b"\n  <html>", "HTML"),
        (b"backend: tensorflow\nclass_name: Sequential\n", "unknown format"),
        (b"\x80\x04\x95", "unknown format"),
        (b'{"modelTopology": {}}', "TensorFlow.js"),
        (b'{"a": 1}', "no class_name"),
        (b'{"class_name": "Sequential", "config": ', "not JSON"),
        (b"{\xff\xfe}", "not UTF-8"),
        (b'{"class_name": "A", "config": {}, "config": {}}', "'config' occurs twice"),
        (b'{"class_name": "A", "config": NaN}', "NaN"),
        (b'{"class_name": "A", "config": -Infinity}', "-Infinity"),
        (b'{"class_name": "A", "config": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested"),
        (b'{"class_name": "A", "config": ' + b"[" * 300 + b"]" * 300 + b"}", "nested"),
    ],
)
def test_what_is_no_model_is_named_for_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    error = failure(path)
    assert isinstance(error, ModelError)
    assert said in str(error)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_called_truncated(flat: Path, tree: Path, part: float) -> None:
    for path in (flat, tree):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
        assert "truncated" in str(failure(path))


def test_weights_without_a_model_are_called_so(tmp_path: Path) -> None:
    path = Path(write_flat(tmp_path / "w.h5", None, WEIGHTS))
    assert "weights only, no architecture" in str(failure(path))


def test_an_hdf5_file_of_something_else_is_no_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = np.zeros(3)
    assert "no Keras model" in str(failure(tmp_path / "data.h5"))


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_a_zip_that_lacks_a_member_names_it(tree: Path, member: str) -> None:
    members = {name: zipfile.ZipFile(tree).read(name) for name in zipfile.ZipFile(tree).namelist()}
    with zipfile.ZipFile(tree, "w") as archive:
        for name, data in members.items():
            if name != member:
                archive.writestr(name, data)
    assert f"without {member}" in str(failure(tree))


def test_changed_bytes_in_the_weights_are_found_by_their_checksum(tree: Path) -> None:
    data = bytearray(tree.read_bytes())
    place = data.index(KERNEL.tobytes())
    data[place] ^= 1
    tree.write_bytes(data)
    with open_archive(str(tree)) as archive, pytest.raises(ModelError, match="CRC"):
        archive.verify()


def test_intact_weights_pass_the_check(tree: Path, flat: Path) -> None:
    for path in (tree, flat):
        with open_archive(str(path)) as archive:
            archive.verify()


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    assert "not a regular file" in str(failure(tmp_path / "pipe"))
    assert time.monotonic() - start < 10


def test_a_device_is_refused() -> None:
    assert "not a regular file" in str(failure(Path("/dev/zero")))


def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(ModelError):
        open_archive("model\0.h5")


def test_weights_that_are_no_hdf5_are_refused(flat: Path, tree: Path) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        open_archive(str(flat), str(tree))


def test_the_digest_is_that_of_the_file(flat: Path) -> None:
    digest = hashlib.sha256(flat.read_bytes()).hexdigest()
    with open_archive(str(flat)) as archive:
        flat.unlink()
        flat.write_bytes(b"replaced meanwhile")
        assert archive.sha256() == digest


def test_the_digest_of_a_folder_covers_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "variables" / "b").write_bytes(b"2")
    first = folder_sha256(str(tmp_path))
    (tmp_path / "variables" / "b").write_bytes(b"3")
    second = folder_sha256(str(tmp_path))
    (tmp_path / "a").rename(tmp_path / "c")
    assert len({first, second, folder_sha256(str(tmp_path))}) == 3


def test_a_large_file_is_not_read_to_learn_its_config(tmp_path: Path) -> None:
    big = np.zeros((100_000, 500), "float32")
    path = write_flat(tmp_path / "big.h5", MODEL, {"dense": [("dense/kernel:0", big)]})
    del big
    start = time.process_time()
    with open_archive(path) as archive:
        assert archive.config() == MODEL
    assert time.process_time() - start < 10


def test_an_unpacked_keras_file_is_a_folder(tmp_path: Path, tree: Path) -> None:
    folder = tmp_path / "unpacked"
    zipfile.ZipFile(tree).extractall(folder)
    with open_archive(str(folder)) as archive:
        assert archive.file_format == "keras"
        assert archive.config() == MODEL
        assert archive.keras_version == "3.8.0"
        file = archive.hdf5()
        assert file is not None
        np.testing.assert_array_equal(file["layers/dense/vars/0"][()], KERNEL)
    (folder / "model.weights.h5").unlink()
    with pytest.raises(NoInputError, match="model.weights.h5"):
        open_archive(str(folder))
