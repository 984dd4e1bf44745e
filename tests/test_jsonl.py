"""JSON lines read again: each pass over the file takes long, so there are few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerprobe.errors import OutputFormatError
from layerprobe.formats.jsonl import JsonlReader
from layerprobe.formats.schema import VERSION, VERSION_KEY

ROWS = 5
VALUES = np.arange(ROWS * 6, dtype="float32").reshape(ROWS, 6)


def write(path: Path, said: int = ROWS) -> str:
    """Five rows of two layers, and a record that says how many there are."""
    rows = [
        {"path": f"{row}.jpg", "status": "ok", "error": "", "layers": {"a": [*map(float, one)], "b": [row]}}
        for row, one in enumerate(VALUES)
    ]
    types = {"a": ["float32", [6]], "b": ["float32", [1]]}
    layers = [
        {"name": "a", "shape": [6], "dtype": "float32"},
        {"name": "b", "shape": [1], "dtype": "float32"},
    ]
    provenance = {"layers": layers, "arrays": {name: name for name in types}, VERSION_KEY: VERSION}
    record = {"layerprobe": said, "dtypes": types, "provenance": provenance}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*rows, record]))
    return str(path)


def test_texts_take_one_pass_over_the_file_and_a_layer_that_is_asked_for_again_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    lines = JsonlReader._lines

    def counted(reader: JsonlReader) -> Any:
        passes.append("pass")
        return lines(reader)

    monkeypatch.setattr(JsonlReader, "_lines", counted)
    reader = JsonlReader(write(tmp_path / "x.jsonl"))
    assert (reader.paths[4], set(reader.status), set(reader.error)) == ("4.jpg", {"ok"}, {""})
    assert reader.fields_texts is None
    assert len(passes) == 1
    for _ in range(3):
        np.testing.assert_array_equal(reader["a"], VALUES)
    assert len(passes) == 2
    np.testing.assert_array_equal(reader["b"][:, 0], range(ROWS))
    np.testing.assert_array_equal(reader["a"], VALUES)
    reader.close()


@pytest.mark.parametrize("said", [ROWS - 1, ROWS + 1])
def test_more_or_fewer_rows_than_the_record_says_are_damage(tmp_path: Path, said: int) -> None:
    reader = JsonlReader(write(tmp_path / "x.jsonl", said))
    with pytest.raises(OutputFormatError, match=f"not {said} rows"):
        _ = reader["a"]
    with pytest.raises(OutputFormatError, match=f"not {said} rows"):
        _ = reader.paths
    reader.close()
