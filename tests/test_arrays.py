from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from layerprobe.errors import NoInputError, SampleError, UsageError
from layerprobe.sources import arrays
from layerprobe.sources.arrays import array_source, is_array

VALUES = np.random.default_rng(5).normal(size=(7, 4, 3)).astype(np.float32)


def rows(*files: str | Path) -> np.ndarray:
    return np.stack([sample.read() for sample in array_source([str(file) for file in files])])


def save_hdf5(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=values)
    return path


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", VALUES)
    return tmp_path / "x.npy"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">i2", "u1", "i8", "?"])
def test_rows_of_npy_are_those_of_numpy(tmp_path: Path, dtype: str) -> None:
    values = (VALUES * 10).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    source = array_source([str(tmp_path / "x.npy")])
    assert (len(source), source.row_shape, source.dtype.kind) == (7, (4, 3), values.dtype.kind)
    np.testing.assert_array_equal(rows(tmp_path / "x.npy"), values)


def test_rows_of_arrays_in_fortrans_order_are_those_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(VALUES))
    np.savez_compressed(tmp_path / "x.npz", x=np.asfortranarray(VALUES))
    np.testing.assert_array_equal(rows(tmp_path / "x.npy"), VALUES)
    np.testing.assert_array_equal(rows(tmp_path / "x.npz"), VALUES)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_npz_are_those_of_numpy(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "one.npz", x=VALUES)
    save(tmp_path / "two.npz", x=VALUES, **{"deep/y": VALUES[::-1]})
    np.testing.assert_array_equal(rows(tmp_path / "one.npz"), VALUES)
    np.testing.assert_array_equal(rows(f"{tmp_path}/one.npz::x"), VALUES)
    np.testing.assert_array_equal(rows(f"{tmp_path}/two.npz::deep/y"), VALUES[::-1])
    with pytest.raises(UsageError, match=r"say which array.*x, deep/y"):
        rows(tmp_path / "two.npz")


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 4, 3)}, {"compression": "gzip", "shuffle": True}])
def test_rows_of_hdf5_are_those_of_h5py(tmp_path: Path, options: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=512) as file:
        file.create_dataset("a/b", data=VALUES, **options)
    np.testing.assert_array_equal(rows(tmp_path / "x.h5"), VALUES)
    np.testing.assert_array_equal(rows(f"{tmp_path}/x.h5::a/b"), VALUES)
    np.testing.assert_array_equal(rows(f"{tmp_path}/x.h5::/a/b"), VALUES)


def test_of_several_datasets_one_must_be_named(tmp_path: Path) -> None:
    path = save_hdf5(tmp_path / "x.h5", a__b=VALUES, c=VALUES)
    with pytest.raises(UsageError, match=r"say which array.*a/b, c"):
        rows(path)
    with pytest.raises(UsageError, match=r"no such array.*a/b, c"):
        rows(f"{path}::a")


def test_keys_are_the_inputs_as_typed_with_the_row(npy: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", y=VALUES[:2])
    source = array_source([str(npy), f"{tmp_path}/x.npz::y"])
    samples = list(source)
    assert [sample.index for sample in samples] == list(range(9))
    assert samples[6].key == f"{npy}[6]"
    assert samples[7].key == f"{tmp_path}/x.npz::y[0]"
    np.testing.assert_array_equal(samples[8].read(), VALUES[1])


def test_what_a_file_is_its_content_decides(npy: Path, tmp_path: Path) -> None:
    odd = npy.rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(rows(odd), VALUES)
    hdf5 = save_hdf5(tmp_path / "x.npy", a=VALUES)
    np.testing.assert_array_equal(rows(hdf5), VALUES)


def test_array_files_are_told_from_others(npy: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", VALUES)
    save_hdf5(tmp_path / "x.h5", a=VALUES)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("x.jpg", b"")
    (tmp_path / "text.npy").write_text("text")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "a::b.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.npy")
    for name in ("x.npy", "x.npz", "x.h5", "gone.h5::a"):
        assert is_array(f"{tmp_path}/{name}")
    for name in ("photos.zip", "text.npy", "cut.npz", "pipe.npy", "gone.npy", "", "a::b.jpg", "a\0b"):
        assert not is_array(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    "other", [VALUES[:, :3], VALUES.astype(np.int32), VALUES[..., np.newaxis], VALUES > 0]
)
def test_files_that_are_read_as_one_need_equal_rows(npy: Path, tmp_path: Path, other: np.ndarray) -> None:
    np.save(tmp_path / "other.npy", other)
    with pytest.raises(UsageError, match=r"x\.npy.*other\.npy"):
        array_source([str(npy), str(tmp_path / "other.npy")])


def test_files_of_different_precision_are_read_as_one(npy: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", VALUES.astype(">f8"))
    source = array_source([str(npy), str(tmp_path / "other.npy")])
    assert (len(source), source.dtype) == (14, np.float64)


def header(shape: str, descr: str = "'<f4'", fortran: bool = False) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


class Payload:
    """Unpickling one writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header("(2,)") + bytes(7), "truncated"),
        (header("(2, 10**12)"), "not an array that can be read"),
        (header("(2, 1000000000000)"), "truncated"),
        (header("(2, 1000000000000)", fortran=True), "truncated"),
        (header("()") + bytes(4), "shape"),
        (header("(-1, 2)") + bytes(64), "shape"),
        (header("(100000000000000000000, 0)"), "shape"),
        (header("(2,)", "'<c8'") + bytes(16), "complex64"),
        (header("(2,)", "'<U3'") + bytes(24), "U3"),
        (header("(2,)", "'|V2'") + bytes(4), "V2"),
        (header("(2,)", "[('a', '<f4')]") + bytes(8), "'a'"),
        (header("(2,)", "'|O'") + pickle.dumps([Payload()] * 2), "object"),
        (header("(2,)", "'__import__'"), "not an array that can be read"),
        (header("(" * 90), "not an array that can be read"),
        (b"\x93NUMPY\x03\x00" + header("(2,)")[8:], "structures"),
        (b"\x93NUMPY\x09\x00" + header("(2,)")[8:], "not an array that can be read|structures"),
        (b"\x93NUMPY", "not an array that can be read"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "not an array that can be read"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "not an array that can be read"),
        (b"text", "no array file"),
        (b"", "no array file"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.npy").write_bytes(content)
    with pytest.raises(UsageError, match=words) as raised:
        array_source(["x.npy"])
    assert "x.npy" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_broken_members_of_npz_are_refused(tmp_path: Path, compression: int) -> None:
    members = {
        "cut": header("(2,)") + bytes(7),
        "huge": header("(1000000000000, 9)"),
        "pickle": header("(2,)", "'|O'") + pickle.dumps([Payload()] * 2),
        "single": header("()") + bytes(4),
        "text": b"text",
    }
    for name, content in members.items():
        path = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(UsageError, match=f"{name}.npz"):
            array_source([str(path)])


def test_a_damaged_compressed_npz_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=VALUES)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[200:210] = bytes(10)
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(UsageError, match="not an array that can be read"):
        array_source([str(tmp_path / "x.npz")])


def test_a_compressed_npz_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1000, 1000)))
    monkeypatch.setattr(arrays, "MAX_UNPACKED", 1_000_000)
    with pytest.raises(UsageError, match=r"8000128 bytes: save it with numpy\.savez"):
        array_source([str(tmp_path / "x.npz")])


def test_hdf5_never_reads_other_files(tmp_path: Path) -> None:
    other = save_hdf5(tmp_path / "other.h5", secret=VALUES)
    raw = tmp_path / "raw"
    raw.write_bytes(VALUES.tobytes())
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["outside"] = h5py.ExternalLink(str(other), "secret")
        file["group"] = h5py.ExternalLink(str(other), "/")
        file["soft"] = h5py.SoftLink("/outside")
        file.create_dataset("external", VALUES.shape, "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout(VALUES.shape, "f4")
        layout[:] = h5py.VirtualSource(str(other), "secret", VALUES.shape)
        file.create_virtual_dataset("virtual", layout)
    for name in ("outside", "group/secret", "soft", "external", "virtual"):
        with pytest.raises(UsageError, match=r"no such array|in other files"):
            array_source([f"{tmp_path}/x.h5::{name}"])


@pytest.mark.parametrize("content", ["text", 1.5, np.array([b"a"]), h5py.Empty("f4"), np.array([1j])])
def test_hdf5_without_numbers_in_rows_is_refused(tmp_path: Path, content: Any) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = content
    with pytest.raises(UsageError, match=r"x\.h5"):
        array_source([str(tmp_path / "x.h5")])


def test_a_file_that_does_not_exist_and_one_without_rows_are_no_input(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", VALUES[:0])
    with pytest.raises(NoInputError, match="no such file"):
        array_source([f"{tmp_path}/gone.h5::x"])
    with pytest.raises(NoInputError, match=r"no rows in .*empty\.npy"):
        array_source([str(tmp_path / "empty.npy")])


def test_a_directory_or_pipe_is_refused_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe::x", "::x", "pipe"):
        with pytest.raises(UsageError, match=r"is a directory|not a regular file"):
            array_source([f"{tmp_path}/{name}"])


def test_an_array_that_shrinks_while_it_is_read_costs_its_rows(npy: Path) -> None:
    samples = list(array_source([str(npy)]))
    os.truncate(npy, npy.stat().st_size - 1)
    np.testing.assert_array_equal(samples[5].read(), VALUES[5])
    with pytest.raises(SampleError, match="shorter"):
        samples[6].read()
    npy.unlink()
    with pytest.raises(SampleError, match="no such file"):
        samples[0].read()


def test_many_rows_at_once_are_those_one_by_one_also_across_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    np.save(tmp_path / "empty.npy", VALUES[:0])
    np.save(tmp_path / "fortran.npy", np.asfortranarray(VALUES + 1))
    np.savez_compressed(tmp_path / "c.npz", x=VALUES + 2)
    save_hdf5(tmp_path / "d.h5", x=VALUES + 3)
    names = ("empty.npy", "a.npy", "fortran.npy", "empty.npy", "c.npz", "d.h5")
    source = array_source([str(tmp_path / name) for name in names])
    expected = np.concatenate([VALUES + more for more in range(4)])
    for start in range(len(expected)):
        for stop in range(start + 1, len(expected) + 1):
            np.testing.assert_array_equal(
                np.concatenate(list(source.values(start, stop))), expected[start:stop]
            )
    samples = list(source)
    assert [(sample.key, "") for sample in samples[5:9]] == source.names(5, 9)
    assert [sample.index for sample in samples] == list(range(28))


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, suffix: str) -> None:
    values = np.zeros((2000, 1000), np.float64)
    path = tmp_path / f"x.{suffix}"
    if suffix == "h5":
        save_hdf5(path, x=values)
    else:
        {"npy": np.save, "npz": np.savez}[suffix](path, values)
    tracemalloc.start()
    total = sum(float(sample.read().sum()) for sample in array_source([str(path)]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 0
    assert peak < 1_000_000  # of 16,000,000
