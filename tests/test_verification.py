"""`verify`: what was written is found to be so, and a bit that has changed anywhere is noticed."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from made_up_model import BROKEN, FORMATS, ROWS, extract, use_made_up_model, write_inputs
from output_samples import LAYERS, write_output
from pyarrow import parquet

from layerprobe import registry
from layerprobe.cli import cli
from layerprobe.errors import NoInputError, StoppedError
from layerprobe.formats import schema
from layerprobe.formats.opening import open_output
from layerprobe.run import journal
from layerprobe.verification import verify


@pytest.fixture(autouse=True)
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_inputs(tmp_path_factory.mktemp("verification") / "images")


@pytest.fixture(params=sorted(FORMATS))
def output(request: pytest.FixtureRequest, tmp_path: Path, inputs: list[str]) -> Path:
    path = tmp_path / FORMATS[request.param]
    extract(inputs, path)
    return path


def files_of(output: Path) -> list[Path]:
    return sorted(file for file in output.rglob("*") if file.is_file()) if output.is_dir() else [output]


def flip(file: Path, place: int, bit: int = 0) -> None:
    with open(file, "r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ 1 << bit]))


def find(output: Path, data: bytes) -> tuple[Path, int]:
    """The file of an output, and the place in it, that holds these bytes."""
    for file in files_of(output):
        if (place := file.read_bytes().find(data)) >= 0:
            return file, place
    raise AssertionError(f"{data!r} is not in {output}")


def test_what_was_written_is_found_to_be_so(output: Path) -> None:
    found = verify(output)
    assert (found.problems, found.notes) == ((), ())
    assert (found.rows, found.failed, found.checksums) == (ROWS, len(BROKEN), 3 * 5)


@pytest.mark.parametrize("name", sorted(registry.WRITERS))
def test_layers_of_every_type_and_paths_of_every_kind_are(tmp_path: Path, name: str) -> None:
    write_output(registry.find(registry.WRITERS, name, "format"), tmp_path / "out")
    with open_output(tmp_path / "out") as reader:
        assert reader.checksums is not None
        for layer in LAYERS:
            data = np.ascontiguousarray(reader[layer.name]).tobytes()
            size = len(data) // 7
            assert reader.checksums["rows"] == [0, 3, 6]
            assert reader.checksums["crc32"][layer.name] == [
                zlib.crc32(data[start * size : stop * size]) for start, stop in ((0, 3), (3, 6), (6, 7))
            ]
        assert reader.intact is True
        assert "checksums" not in reader.provenance
    # Random values stand where that sample says that rows failed.
    problems = [
        problem for problem in verify(tmp_path / "out").problems if "yet there are values" not in problem
    ]
    assert problems == []


def test_a_bit_in_every_part_is_noticed(output: Path, tmp_path: Path) -> None:
    with open_output(output) as reader:
        parts = {name: np.asarray(reader[name][20:21]).tobytes() for name in reader}
    if output.suffix in (".parquet", ".zarr"):
        pytest.skip("no value stands in it as it is: each bit is tried below")
    compressed = output.suffix == ".npz"
    texts = {} if compressed else {"paths": "013.png", "status": "failed", "error": "text, not"}
    wide = output.is_dir()
    parts |= {name: text.encode("utf-32-le" if wide else "utf-8") for name, text in texts.items()}
    if output.suffix == ".safetensors":
        parts["status"] = bytes([1] * 7 + [0, 0, 1])  # BROKEN begins with 7 and 8
    if not compressed:
        parts["provenance"] = b'"sha256": "00'
    for name, data in parts.items():
        copy = tmp_path / "copy"
        shutil.copytree(output, copy) if wide else shutil.copy(output, copy)
        file, place = find(copy, data)
        flip(file, place + len(data) // 2)
        problems = " ".join(verify(copy).problems)
        assert name in problems, (name, problems)
        if name in ("vector", "block/map", "count"):
            assert f"layer {name!r}: rows 20 to 29 are not what was written (CRC-32)" in problems
        shutil.rmtree(copy) if wide else copy.unlink()


def everything(output: Path) -> list[Any]:
    """All that NumPy, zipfile and h5py find in an output."""
    if output.suffix == ".zarr":
        return [
            repr(zarr.open_array(file.parent, mode="r")[:].tolist()) for file in output.glob("*/zarr.json")
        ]
    if output.is_dir():
        return [file.read_bytes() for file in files_of(output)]
    if output.suffix == ".npz":
        # Texts are deflated, and a changed bit may mean an equal match elsewhere: what comes out counts.
        with zipfile.ZipFile(output) as archive:
            return [(info.filename, archive.read(info)) for info in archive.infolist()]
    if output.suffix == ".parquet":
        # What describes the pages has bits without meaning, such as who wrote it.
        table = parquet.read_table(output)
        return [table.schema, repr(table.to_pylist())]
    if output.suffix != ".h5":
        return [output.read_bytes()]
    found: list[Any] = []
    with h5py.File(output, "r") as file:
        found += sorted((name, str(value)) for name, value in file.attrs.items())
        for name, dataset in sorted(file.items()):
            found += [name, dataset.dtype.str, dataset.shape, repr(np.asarray(dataset[()]).tolist())]
            found += sorted((key, str(value)) for key, value in dataset.attrs.items())
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, of a damaged dtype
def test_no_bit_anywhere_changes_what_is_read_without_being_noticed(output: Path, inputs: list[str]) -> None:
    """HDF5's own tables and deflated texts have bits without meaning; elsewhere every one counts."""
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    extract(inputs[:10], output)
    whole = everything(output)
    chosen = random.Random(1)
    most = 15 if output.suffix == ".zarr" else 150  # It has many files, and each takes long to read.
    for file in files_of(output):
        size = file.stat().st_size
        for place in sorted({0, size - 1, *chosen.sample(range(size), min(size, most))}):
            bit = chosen.randrange(8)
            flip(file, place, bit)
            if not verify(output).problems:
                assert everything(output) == whole, (file.name, place, bit)
                assert output.suffix in (".h5", ".npz", ".parquet", ".zarr"), (file.name, place, bit)
            flip(file, place, bit)
    assert verify(output).problems == ()


def test_a_file_that_is_cut_short_or_goes_on_is_noticed(output: Path) -> None:
    file = max(files_of(output), key=lambda path: path.stat().st_size)
    size = file.stat().st_size
    os.truncate(file, size - 1)
    assert verify(output).problems
    if output.suffix != ".h5":
        os.truncate(file, size)
        os.truncate(file, size + 1)
        assert verify(output).problems


def test_a_bit_in_the_name_of_the_last_checksum_is_noticed(tmp_path: Path, inputs: list[str]) -> None:
    extract(inputs[:3], tmp_path / "out")
    record = tmp_path / "out" / "provenance.json"
    flip(record, record.read_bytes().rindex(b'"crc32"') + 1)
    assert "its provenance is not what was written (CRC-32)" in verify(tmp_path / "out").problems


def edit(output: Path, name: str, row: int, value: float) -> None:
    """Change one row, as a later program would that writes with h5py."""
    with h5py.File(output, "r+") as file:
        file[name][row] = value


def test_rows_that_failed_hold_nothing_and_others_are_told_that_are_not_finite(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.h5"
    extract(inputs, output)
    edit(output, "vector", BROKEN[0], 1.0)
    edit(output, "count", BROKEN[1], 1)
    edit(output, "vector", 1, np.nan)
    edit(output, "block%2Fmap", 2, np.inf)
    found = verify(output)
    assert f"layer 'vector': row {BROKEN[0]} failed, and yet there are values" in found.problems
    assert f"layer 'count': row {BROKEN[1]} failed, and yet there are values" in found.problems
    assert found.notes == ("layer 'vector': NaN in row 1", "layer 'block/map': infinite values in row 2")


def test_an_output_without_checksums_is_looked_at_and_that_is_said(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dump(arrays: Any, provenance: Any, _: Any) -> str:
        record: dict[str, Any] = json.loads(schema.dump_record(arrays, provenance, {}))
        return json.dumps(
            {name: value for name, value in record.items() if name not in ("checksums", "crc32")}
        )

    from layerprobe.formats import rows

    monkeypatch.setattr(rows, "dump_record", dump)
    extract(inputs, tmp_path / "out.h5")
    found = verify(tmp_path / "out.h5")
    assert (found.problems, found.checksums) == ((), 0)
    assert found.notes == ("an earlier version wrote it, without checksums: its values cannot be verified",)
    edit(tmp_path / "out.h5", "vector", BROKEN[0], 1.0)
    assert verify(tmp_path / "out.h5").problems


def test_of_an_unfinished_output_the_missing_rows_are_named(tmp_path: Path, inputs: list[str]) -> None:
    output = tmp_path / "out.h5"
    stops: Iterator[bool] = iter([False, True])
    with pytest.raises(StoppedError):
        extract(inputs, output, stop=lambda: next(stops))
    found = verify(output)
    assert found.problems == (
        "an output is unfinished: 20 rows are on disk, of 50; missing: 20 to 49; go on with --resume",
    )
    extract(inputs, output, resume=True)
    assert verify(output).problems == ()
    assert sorted(os.listdir(tmp_path)) == ["out.h5"]
    with pytest.raises(NoInputError):
        verify(tmp_path / "nothing.h5")


def test_of_an_unfinished_shard_its_own_rows_count(tmp_path: Path, inputs: list[str]) -> None:
    with pytest.raises(StoppedError):
        extract(inputs, tmp_path / "out.h5", shard="2/2", stop=lambda: True)
    assert verify(tmp_path / "out.h5").problems == (
        "an output is unfinished: 10 rows are on disk, of 30; missing: 10 to 29; go on with --resume",
    )


def test_a_resumed_output_has_the_checksums_of_an_uninterrupted_one(output: Path, inputs: list[str]) -> None:
    with open_output(output) as reader:
        wanted = reader.checksums
    with pytest.raises(StoppedError):
        extract(inputs, output, stop=lambda: True, overwrite=True)
    extract(inputs, output, resume=True, overwrite=True)
    with open_output(output) as reader:
        assert reader.checksums == wanted


def test_the_number_of_checksums_is_bounded(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerprobe.formats import rows

    monkeypatch.setattr(rows, "CHECKED_PARTS", 4)
    extract(inputs, tmp_path / "out.npz", batch_size=3)
    found = verify(tmp_path / "out.npz")
    assert (found.problems, found.checksums) == ((), 3 * 4)


def test_the_command_has_its_exit_codes(
    tmp_path: Path, inputs: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.npz"
    extract(inputs, output)
    assert cli.main(["verify", str(output)], standalone_mode=False) == 0
    assert "is what was written: 50 rows, 3 failed, 15 checksums" in capfd.readouterr().out
    with zipfile.ZipFile(output) as archive:
        place = archive.getinfo("vector.npy").header_offset
    flip(output, place + 400)
    assert cli.main(["verify", str(output), "--json"], standalone_mode=False) == 65
    told = json.loads(capfd.readouterr().out)
    assert not told["ok"]
    assert "its member 'vector.npy' is not what was written (CRC-32)" in told["problems"]
