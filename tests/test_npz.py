from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from output_samples import FAILURES, LAYERS, PATHS, PROVENANCE, ROWS, assert_holds, write_output

from layerprobe.errors import OutputFormatError
from layerprobe.formats import npydata, zip64
from layerprobe.formats.npz import NpzReader, NpzWriter
from layerprobe.formats.zip64 import Member, central_directory, local_header
from layerprobe.records import TensorSpec


def test_numpy_reads_everything_without_pickle(tmp_path: Path) -> None:
    values = write_output(NpzWriter, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert file.files == [*(name or "%" for name in values), "paths", "status", "error", "provenance"]
        for name, expected in values.items():
            np.testing.assert_array_equal(file[name or "%"], expected)
            assert file[name or "%"].dtype == expected.dtype
        assert file["paths"].tolist() == PATHS
        assert file["status"].tolist() == ["failed" if row in FAILURES else "ok" for row in range(ROWS)]
        assert file["error"].tolist() == [FAILURES.get(row, "") for row in range(ROWS)]
        assert json.loads(str(file["provenance"]))["model"] == PROVENANCE.model


def test_zip_tools_find_every_checksum_right(tmp_path: Path) -> None:
    write_output(NpzWriter, tmp_path / "out.npz")
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() is None
        stored = [info for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED]
        assert len(stored) == len(LAYERS)
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}
        archive.extractall(tmp_path / "extracted")
    assert np.load(tmp_path / "extracted" / "backbone" / "conv1.npy").shape == (ROWS, 5)


def test_a_flipped_byte_shows_in_the_checksum(tmp_path: Path) -> None:
    write_output(NpzWriter, tmp_path / "out.npz")
    content = bytearray((tmp_path / "out.npz").read_bytes())
    content[400] ^= 1
    (tmp_path / "out.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() == "conv5_3.npy"


def test_what_the_archive_holds_before_commit_already_stands_at_its_place(tmp_path: Path) -> None:
    writer = NpzWriter(str(tmp_path / "out.npz"), [TensorSpec("x", (16,), "float32")], ["a"] * 100)
    rows = np.arange(1600, dtype="f4").reshape(100, 16)
    writer.write(0, {"x": rows[:60]})
    (temporary,) = tmp_path.iterdir()
    content = temporary.read_bytes()
    place = content.find(rows[:60].tobytes())
    assert place > 0
    assert place % 64 == 0
    assert content[place + rows[:60].nbytes :].startswith(bytes(rows[60:].nbytes))
    writer.abort()


@pytest.mark.parametrize(
    "names", [("file", "allow_pickle"), ("x", "x.npy", "x.npy.npy"), ("a", "a/b", "a/b/c")]
)
def test_names_that_numpy_itself_stumbles_over(tmp_path: Path, names: tuple[str, ...]) -> None:
    writer = NpzWriter(str(tmp_path / "out.npz"), [TensorSpec(name, (), "int32") for name in names], ["p"])
    writer.write(0, {name: np.array([place], "i4") for place, name in enumerate(names)})
    writer.commit({}, PROVENANCE)
    with np.load(tmp_path / "out.npz") as file, NpzReader(str(tmp_path / "out.npz")) as reader:
        arrays = json.loads(str(file["provenance"]))["arrays"]
        for place, name in enumerate(names):
            assert file[arrays[name]].tolist() == reader[name].tolist() == [place]


def test_archives_with_64_bit_records_are_read_by_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip64, "MANY_BYTES", 1000)
    monkeypatch.setattr(zip64, "MANY_MEMBERS", 3)
    values = write_output(NpzWriter, tmp_path / "out.npz")
    assert b"PK\x06\x06" in (tmp_path / "out.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file["conv5_3"], values["conv5_3"])
    assert_holds(tmp_path / "out.npz", values)


def test_a_member_of_more_than_4_gib_keeps_its_place(tmp_path: Path) -> None:
    """By hand, in a file that is mostly a hole: 5 GiB of zeros and a 1 at the end."""
    rows = 5 << 28
    header = npydata.npy_header(np.dtype("<f4"), (rows,))
    size = len(header) + 4 * rows
    large = Member(b"large.npy", 0, size, stored_size=size)
    after = Member(b"after.npy", large.end, len(header), stored_size=len(header), crc=zlib.crc32(header))
    with open(tmp_path / "out.npz", "wb") as file:
        for member in (large, after):
            file.seek(member.place)
            file.write(local_header(member))
            assert file.tell() == member.data_place
            file.write(header)
        file.seek(large.end - 4)
        file.write(np.float32(1).tobytes())
        file.seek(after.end)
        file.write(central_directory([large, after], after.end))
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert [info.file_size for info in archive.infolist()] == [size, len(header)]
        assert archive.read("after.npy") == header
        with archive.open("large.npy") as member:
            assert npydata.read_npy_header(member)[0] == (rows,)
    reader = NpzReader.__new__(NpzReader)
    with (
        zipfile.ZipFile(tmp_path / "out.npz") as reader._archive,
        open(tmp_path / "out.npz", "rb") as reader._file,
    ):
        array = reader._map("large", reader._place("large"))
        assert (array[0], array[-1], array.nbytes) == (0, 1, 5 << 30)


def test_more_members_than_16_bits_count(tmp_path: Path) -> None:
    members = [Member(b"%d.npy" % number, 64 * number, 0) for number in range(70_000)]
    place = 64 * 70_000
    (tmp_path / "out.npz").write_bytes(bytes(place) + central_directory(members, place))
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert len(archive.namelist()) == 70_000
        assert archive.infolist()[-1].header_offset == 64 * 69_999


def test_an_archive_that_was_compressed_again_is_refused_by_name(tmp_path: Path) -> None:
    write_output(NpzWriter, tmp_path / "out.npz")
    with (
        zipfile.ZipFile(tmp_path / "out.npz") as old,
        zipfile.ZipFile(tmp_path / "new.npz", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(OutputFormatError, match=r"'conv5_3.npy' is compressed"):
        NpzReader(str(tmp_path / "new.npz"))


def test_a_reader_keeps_reading_the_file_that_it_opened(tmp_path: Path) -> None:
    old = write_output(NpzWriter, tmp_path / "out.npz", seed=1)
    with NpzReader(str(tmp_path / "out.npz")) as reader:
        write_output(NpzWriter, tmp_path / "out.npz", seed=2)
        np.testing.assert_array_equal(reader["count"], old["count"])
        np.testing.assert_array_equal(reader["conv5_3"], old["conv5_3"])
        shutil.rmtree(tmp_path)
        np.testing.assert_array_equal(reader["count"], old["count"])


def test_long_texts_cost_little_space(tmp_path: Path) -> None:
    paths = ["x" * 4000] + [f"{row}.jpg" for row in range(3000)]
    writer = NpzWriter(str(tmp_path / "out.npz"), [TensorSpec("x", (), "float32")], paths)
    writer.write(0, {"x": np.zeros(len(paths), "f4")})
    writer.commit({}, PROVENANCE)
    assert (tmp_path / "out.npz").stat().st_size < 500_000
    with NpzReader(str(tmp_path / "out.npz")) as reader:
        assert reader.paths == paths
