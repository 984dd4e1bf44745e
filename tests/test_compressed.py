"""Compressed HDF5: what other programs read in it, how it is cut, what of it is refused."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from made_up_model import BROKEN, OTHERS, extract, use_made_up_model, write_inputs
from output_samples import LAYERS, PATHS, PROVENANCE, WAYS, write_output
from PIL import Image

from layerprobe.errors import UnavailableError, UsageError, WriteError
from layerprobe.formats import chunks, disk, pending, spool
from layerprobe.formats.chunks import chunk_shape, chunks_of
from layerprobe.formats.codecs import METHODS, Codec, unpacked
from layerprobe.formats.compressed_hdf5 import CompressedHDF5Writer
from layerprobe.formats.opening import open_output
from layerprobe.formats.rows import StoredLayer
from layerprobe.formats.space import space_notice
from layerprobe.merging.merge import merge
from layerprobe.records import TensorSpec
from layerprobe.retrying import retry_failed
from layerprobe.verification import verify


def layer_of(*shape: int, dtype: str = "<f4") -> StoredLayer:
    return StoredLayer("x", "x", np.dtype(dtype), "float32", (0, *shape))


@pytest.mark.parametrize(
    ("shape", "rows", "batch", "wanted"),
    [
        ((14, 14, 512), 10, 8, (2, 14, 14, 512)),  # 392 KiB a row: two are the largest part of 8 below 1 MiB
        ((14, 14, 512), 10, 3, (1, 14, 14, 512)),
        ((512,), None, 8, (512, 512)),  # a batch would be 16 KiB
        ((512,), 100, 8, (100, 512)),
        ((4096,), None, 8, (8, 4096)),
        ((), None, 32, (1 << 18,)),
        ((224, 224, 64), 5, 8, (1, 18, 224, 64)),  # 56 KiB a line: 18 lines, in 13 parts of one size
        ((3, 1 << 20), 5, 8, (1, 1, 1 << 18)),
    ],
)
def test_chunks_have_a_mebibyte_at_most_and_batches_whole_ones_where_that_is_sensible(
    shape: tuple[int, ...], rows: int | None, batch: int, wanted: tuple[int, ...]
) -> None:
    assert chunk_shape(layer_of(*shape), rows, batch) == wanted
    assert np.prod(wanted) * 4 <= chunks.CHUNK_BYTES


def test_chunks_put_together_are_the_array() -> None:
    array = np.arange(7 * 5 * 3).reshape(7, 5, 3)
    whole = np.zeros((9, 6, 3), int)
    for (row, line, column), chunk in chunks_of(array, (3, 2, 3)):
        assert chunk.flags.c_contiguous
        whole[row : row + 3, line : line + 2, column : column + 3] = chunk
    np.testing.assert_array_equal(whole[:7, :5], array)
    assert not whole[7:].any()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("small", [False, True], ids=["large chunks", "small chunks"])
def test_plain_h5py_reads_it(tmp_path: Path, name: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small:  # so that batches are cut, rows too, and some rows wait until the end
        monkeypatch.setattr(chunks, "CHUNK_BYTES", 64)
        monkeypatch.setattr(chunks, "LEAST_CHUNK_BYTES", 16)
    values = write_output(WAYS[f"hdf5 {name}"], tmp_path / "out.h5")
    if name != "gzip":
        import hdf5plugin  # noqa: F401
    with h5py.File(tmp_path / "out.h5") as file:
        for spec, expected in zip(LAYERS, values.values(), strict=True):
            dataset = next(found for found in file.values() if found.attrs.get("layer") == spec.name)
            np.testing.assert_array_equal(dataset[:], expected)
            assert dataset.dtype == expected.dtype
            assert (dataset.chunks is None) == (dataset.size == 0)
        assert [text.decode("utf-8", "surrogateescape") for text in file["paths"][:]] == PATHS


@pytest.mark.parametrize("name", METHODS)
def test_what_does_not_become_smaller_is_stored_as_it_is(name: str) -> None:
    codec = Codec(name)
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype("u1")
    zeros = np.zeros(5000, "u1")
    mask, data = unpacked(next(iter(codec.compressed([noise]))))
    assert (mask, bytes(data)) == (2, noise.tobytes())
    mask, data = unpacked(next(iter(codec.compressed([zeros]))))
    assert mask == 0
    assert len(data) < 200
    codec.close()


def test_memory_for_compressing_does_not_grow() -> None:
    codec = Codec("zstd")
    random = np.random.default_rng(0)
    for size in random.integers(1, 100_000, 200):
        chunk = np.zeros(100_000, "u1")
        chunk[:size] = random.integers(0, 256, size)
        list(codec.compressed([chunk]))
    (file,) = codec._files.values()
    assert file.id.get_filesize() < 500_000
    codec.close()


def test_without_hdf5plugin_gzip_works_and_the_others_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_output(WAYS["hdf5 lz4"], tmp_path / "lz4.h5")
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    write_output(WAYS["hdf5 gzip"], tmp_path / "gzip.h5")
    with pytest.raises(UnavailableError, match="zstd in HDF5 needs .*layerprobe.compress") as told:
        CompressedHDF5Writer(str(tmp_path / "out.h5"), LAYERS, PATHS, compress="zstd")
    assert told.value.exit_code == 69
    with pytest.raises(UnavailableError, match="lz4 in HDF5 needs the package hdf5plugin"):
        open_output(tmp_path / "lz4.h5")
    assert sorted(os.listdir(tmp_path)) == ["gzip.h5", "lz4.h5"]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_made_up_model(monkeypatch)
    return write_inputs(tmp_path / "images")


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_verify_says_what_is_damaged(inputs: list[str], tmp_path: Path, name: str) -> None:
    output = tmp_path / OTHERS[name]
    extract(inputs, output)
    assert verify(output).problems == ()
    content = bytearray(output.read_bytes())
    with h5py.File(output) as file:
        chunk = file["block%2Fmap"].id.get_chunk_info(0)
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    output.write_bytes(content)
    problems = verify(output).problems
    assert problems
    assert all("\n" not in problem for problem in problems)
    assert not any("'vector'" in problem for problem in problems)


@pytest.mark.parametrize(
    ("output", "options", "told"),
    [
        ("out.npz", {}, "compress is not for npz, whose rows are mapped .* give -o NAME.h5"),
        ("out", {}, "compress is not for npy"),
        ("out.jsonl", {}, "compress is not for .jsonl files: pass on what `-o - --format jsonl` writes"),
        ("out.tar", {}, "compress is not for .tar files"),
        ("out.h5", {"compress": "bzip2"}, "compress must be one of gzip, lz4, zstd"),
        ("out.h5", {"processes": 2}, "not in a compressed file: .* `layerprobe merge`"),
    ],
)
def test_what_cannot_be_compressed_is_refused_by_name(
    inputs: list[str], tmp_path: Path, output: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        extract(inputs, tmp_path / output, **{"compress": "gzip", **options})
    assert caught.value.exit_code == 2
    assert os.listdir(tmp_path) == ["images"]


def test_parts_that_are_compressed_or_not_make_a_compressed_whole_and_the_reverse(
    inputs: list[str], tmp_path: Path
) -> None:
    extract(inputs, tmp_path / "plain.h5")
    extract(inputs, tmp_path / OTHERS["zstd"])
    extract(inputs, tmp_path / "one.h5", shard="1/2", compress="gzip")
    extract(inputs, tmp_path / "two.npz", shard="2/2")
    parts = [tmp_path / "one.h5", tmp_path / "two.npz"]
    merge(tmp_path / "whole.h5", parts, compress="zstd")
    merge(tmp_path / "loose.h5", parts)
    merge(tmp_path / "again.h5", [tmp_path / "whole.h5"], compress="lz4")
    names = ["whole.h5", "loose.h5", "again.h5", OTHERS["zstd"]]
    with open_output(tmp_path / "plain.h5") as expected:
        for name, compression in zip(names, ["zstd", None, "lz4", "zstd"], strict=True):
            assert verify(tmp_path / name).problems == ()
            with open_output(tmp_path / name) as found:
                assert found.compression == compression
                assert found.provenance["options"]["compress"] == compression
                assert (found.paths, found.error) == (expected.paths, expected.error)
                for layer in expected:
                    np.testing.assert_array_equal(found[layer], expected[layer])
    with h5py.File(tmp_path / "whole.h5") as merged, h5py.File(tmp_path / OTHERS["zstd"]) as run:
        assert {name: run[name].chunks for name in run} == {name: merged[name].chunks for name in merged}
    report = extract(inputs, tmp_path / "whole.h5", compress="zstd", resume=True)
    assert report.notes == ("it was finished already: there was nothing to do",)


def test_a_virtual_file_may_refer_to_compressed_parts(inputs: list[str], tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        extract(inputs, tmp_path / f"part{shard[0]}.h5", shard=shard, compress="gzip")
    parts = [tmp_path / "part1.h5", tmp_path / "part2.h5"]
    merge(tmp_path / "all.h5", parts, virtual=True)
    extract(inputs, tmp_path / "plain.h5")
    with open_output(tmp_path / "all.h5") as found, open_output(tmp_path / "plain.h5") as expected:
        np.testing.assert_array_equal(found["block/map"][[40, 3]], expected["block/map"][[40, 3]])
    with h5py.File(tmp_path / "all.h5") as file, open_output(tmp_path / "plain.h5") as expected:
        np.testing.assert_array_equal(file["block%2Fmap"][:], expected["block/map"])
    with pytest.raises(UsageError, match="leave --compress or --virtual out"):
        merge(tmp_path / "no.h5", parts, virtual=True, compress="gzip")


@pytest.mark.parametrize("when", ["while it runs", "at the end"])
def test_a_full_disk_is_told_and_resumed(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    extract(inputs, tmp_path / "reference.gzip.h5")
    output, original, left = tmp_path / OTHERS["gzip"], disk.write_all, [4 if when == "while it runs" else 0]

    def full(descriptor: int, offset: int, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor, offset, data)

    with monkeypatch.context() as patch:
        patch.setattr(spool if when == "while it runs" else pending, "write_all", full)
        with pytest.raises(WriteError, match="no space is left") as caught:
            extract(inputs, output)
    assert caught.value.exit_code == 74
    assert sorted(path.name for path in tmp_path.glob(".*")) == [
        ".out.gzip.h5.blocks",
        ".out.gzip.h5.journal",
    ]
    extract(inputs, output, resume=True)
    with open_output(output) as found, open_output(tmp_path / "reference.gzip.h5") as expected:
        for layer in expected:
            np.testing.assert_array_equal(found[layer], expected[layer])
    assert not list(tmp_path.glob(".*"))


def test_where_it_may_not_fit_that_is_said_before_the_first_row(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    extract(inputs, tmp_path / OTHERS["gzip"], notice=said.append)
    assert said == []
    monkeypatch.setattr("layerprobe.formats.space.free_space", lambda _: 50_000)
    extract(inputs, tmp_path / OTHERS["zstd"], notice=said.append)
    (line,) = said
    assert "no space is reserved: its rows have 38.3 KiB before they are compressed" in line
    assert "48.8 KiB are free" in line
    assert space_notice(str(tmp_path / "out.h5"), None, [TensorSpec("x", (1,), "float32")]) is None


def test_it_is_opened_lazily(tmp_path: Path) -> None:
    rows = np.zeros((200, 1 << 16), "f4")
    layers = [TensorSpec("x", (1 << 16,), "float32")]
    writer = CompressedHDF5Writer(str(tmp_path / "out.h5"), layers, [""] * 200, compress="gzip", batch_size=4)
    for start in range(0, 200, 4):
        writer.write(start, {"x": rows[start : start + 4]})
    writer.commit({}, PROVENANCE)
    read: list[int] = []
    with open_output(tmp_path / "out.h5") as reader:
        found: Any = reader["x"]
        original = found._rows
        found._rows = lambda rows: (read.append(len(rows)), original(rows))[1]
        assert found[3].shape == (1 << 16,)
        assert found[10:12, 5].shape == (2,)
        assert found[[7, 150, 7]].shape == (3, 1 << 16)
    assert read == [1, 2, 3]


def test_failed_rows_are_tried_again_and_the_others_stay(inputs: list[str], tmp_path: Path) -> None:
    output, fresh = tmp_path / OTHERS["zstd"], tmp_path / "fresh.zstd.h5"
    extract(inputs, output)
    for row in BROKEN:
        Image.new("RGB", (8, 8), (row, 2, 3)).save(inputs[row])
    assert retry_failed(output).failed == 0
    extract(inputs, fresh)
    assert verify(output).problems == ()
    with open_output(output) as found, open_output(fresh) as expected:
        assert found.compression == "zstd"
        for layer in expected:
            np.testing.assert_array_equal(found[layer], expected[layer])
