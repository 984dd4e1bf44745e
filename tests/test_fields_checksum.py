"""What a list said of rows has a checksum too: damage there is seen, and files of before are sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from output_samples import FAILURES, FIELDS, PATHS, ROWS, WAYS

from layerprobe.formats import rows, schema
from layerprobe.formats.opening import open_output
from layerprobe.records import Provenance, TensorSpec
from layerprobe.verification import verify

LAYERS = (TensorSpec("count", (), "int32"),)


def write(name: str, path: Path) -> None:
    """An output without a fault, with fields."""
    import numpy as np

    told = {"name": "count", "shape": [], "dtype": "int32"}
    provenance = Provenance({}, [told], {"rows": ROWS, "failed": 2}, None, {}, {}, {}, "")
    writer = WAYS[name](str(path), LAYERS, PATHS)
    values = np.arange(ROWS, dtype="i4")
    values[list(FAILURES)] = 0
    writer.write(0, {"count": values})
    writer.commit(FAILURES, provenance, FIELDS)


@pytest.mark.parametrize("name", sorted(WAYS))
def test_damage_in_fields_is_seen(tmp_path: Path, name: str) -> None:
    write(name, tmp_path / "out")
    assert verify(tmp_path / "out").problems == ()
    files = [tmp_path / "out", *sorted((tmp_path / "out").rglob("*"))]
    for file in filter(Path.is_file, files):
        content = file.read_bytes()
        for said, other in [("cat", "cap"), ("c\0a\0t", "c\0a\0p"), ("c\0\0\0a\0\0\0t", "c\0\0\0a\0\0\0p")]:
            if f'"{said}'.encode() in content or f'"\0\0\0{said}'.encode() in content:
                file.write_bytes(content.replace(said.encode(), other.encode()))
                assert any("fields" in problem for problem in verify(tmp_path / "out").problems)
                return
    pytest.skip("its texts are compressed, and have checksums of their own")


@pytest.mark.parametrize("name", ["hdf5", "npy", "jsonl", "tar"])
def test_outputs_of_before_are_sound(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = schema.text_checksums

    def without(columns: dict[str, Any]) -> dict[str, int]:
        found = original(columns)
        found.pop("fields", None)
        return found

    monkeypatch.setattr(rows, "text_checksums", without)
    write(name, tmp_path / "out")
    monkeypatch.undo()
    with open_output(tmp_path / "out") as reader:
        assert reader.checksums is not None
        assert "fields" not in reader.checksums["texts"]
    assert verify(tmp_path / "out").problems == ()


def test_fields_that_are_gone_are_missed(tmp_path: Path) -> None:
    write("npy", tmp_path / "out")
    (tmp_path / "out" / "fields.npy").unlink()
    assert verify(tmp_path / "out").problems == ("'fields' is missing",)
