"""What every format refuses: values and blocks that it cannot hold, files that are damaged or of others."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_samples import (
    PROVENANCE,
    WAYS,
    write_output,
)

from layerprobe import registry
from layerprobe.errors import (
    AccessError,
    NoInputError,
    OutputFormatError,
    UnrecordableLayerError,
)
from layerprobe.formats.opening import open_output
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


def test_a_block_that_is_not_what_was_announced_is_refused(placing: Any, tmp_path: Path) -> None:
    layers = [TensorSpec("x", (2,), "float32"), TensorSpec("y", (), "float32")]
    writer = placing(str(tmp_path / "out"), layers, ["a", "b", "c"])
    good = {"x": np.zeros((2, 2), "f4"), "y": np.zeros(2, "f4")}
    for start, wrong in [
        (0, good | {"x": np.zeros((2, 3), "f4")}),
        (0, good | {"x": np.zeros((2, 2), "f8")}),
        (0, good | {"x": np.zeros((2, 2), "i4")}),
        (0, good | {"y": np.zeros(1, "f4")}),
        (2, good),
        (-1, good),
        (0, {"x": np.zeros((4, 2), "f4"), "y": np.zeros(4, "f4")}),
    ]:
        with pytest.raises(ValueError, match="announced"):
            writer.write(start, wrong)
    writer.write(0, good)
    for start in (0, 1):
        with pytest.raises(ValueError, match="announced"):
            writer.write(start, good)
    with pytest.raises(ValueError, match="only 2 of 3 rows"):
        writer.commit({}, PROVENANCE)
    writer.abort()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("dtype", ["string", "object", "<U5", "variant", "datetime64[s]"])
def test_values_that_are_no_numbers_are_refused_by_name(
    writer_class: Any, tmp_path: Path, dtype: str
) -> None:
    with pytest.raises(UnrecordableLayerError, match="'lookup'.*Received: "):
        writer_class(str(tmp_path / "out"), [TensorSpec("lookup", (2,), dtype)], ["a"])
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_cut_short_anywhere_is_refused(writer_class: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_output(writer_class, out)
    for file in _files(out):
        content = file.read_bytes()
        # 200 is in the middle of `status.npy`, between two texts.
        for length in {0, 1, 7, 100, min(200, len(content) - 1), len(content) // 2, len(content) - 1}:
            if length >= len(content):
                continue
            file.write_bytes(content[:length])
            with pytest.raises(OutputFormatError, match="layerprobe") as caught:
                _read_all(out)
            assert "\n" not in str(caught.value)
        file.write_bytes(content)
    _read_all(out)


def test_damaged_bytes_give_an_error_or_values_but_never_another_exception(
    writer_class: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_output(writer_class, out)
    random = np.random.default_rng(1)
    files = list(_files(out))
    for file in files:
        content = file.read_bytes()
        # Not HDF5's: libhdf5 itself is not proof against every byte.
        places = range(len(content)) if not content.startswith(b"\x89HDF") else range(0, 96)
        for place in random.choice(places, min(max(10, 120 // len(files)), len(places)), replace=False):
            file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
            with suppress(OutputFormatError):
                _read_all(out)
        file.write_bytes(content)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"PK\x05\x06" + bytes(18)]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "out.npz").write_bytes(content)
    with pytest.raises(OutputFormatError, match="is no output of layerprobe: "):
        open_output(tmp_path / "out.npz")


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    np.savez_compressed(tmp_path / "b.npz", provenance="{}", status="ok")
    np.savez(tmp_path / "c.npz", provenance='{"layerprobe_format": 1, "arrays": []}')
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "e").mkdir()
    np.save(tmp_path / "e" / "x.npy", np.zeros(3))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(
            OutputFormatError,
            match="no output of layerprobe: |was not written by layerprobe, or is damaged: ",
        ):
            open_output(path)


def test_a_missing_or_closed_file_and_a_pipe_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoInputError, match="there is no file or folder"):
        open_output(tmp_path / "none.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(OutputFormatError, match="no regular file"):
        open_output(tmp_path / "pipe.npz")
    with pytest.raises(OutputFormatError, match="null"):
        open_output("a\0b")
    monkeypatch.setattr(os, "stat", _deny)
    with pytest.raises(AccessError, match="permission denied"):
        open_output(str(tmp_path / "pipe.npz"))


def _deny(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


def _read_all(path: Path) -> None:
    with open_output(path) as reader:
        for name in reader:
            np.asarray(reader[name]).tobytes()
        assert len(reader.paths) == len(reader.status) == len(reader.error)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
