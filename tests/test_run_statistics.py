"""Statistics gathered while rows are written: bit for bit those of the finished output."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_model import FORMATS, extract

from layerprobe.cli import cli
from layerprobe.errors import StoppedError
from layerprobe.statistics import LayerStatistics, output_statistics

pytestmark = pytest.mark.usefixtures("made_up_model")


def bits(statistics: Any) -> dict[str, dict[str, bytes]]:
    return {
        name: {
            field.name: np.asarray(getattr(layer, field.name)).tobytes()
            for field in dataclasses.fields(LayerStatistics)
        }
        for name, layer in statistics.items()
    }


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("options", [{}, {"dtype": "float16"}, {"pool": "gap", "batch_size": 7}], ids=str)
def test_they_are_those_of_the_output(
    inputs: list[str], tmp_path: Path, form: str, options: dict[str, Any]
) -> None:
    output = tmp_path / FORMATS[form]
    report = extract(inputs, output, stats=True, **options)
    assert bits(report.statistics) == bits(output_statistics([output]))
    assert extract(inputs, tmp_path / "other.h5", **options).statistics is None


@pytest.mark.parametrize("batches", [1, 3])
def test_rows_of_an_earlier_run_are_counted_too(inputs: list[str], tmp_path: Path, batches: int) -> None:
    output, left = tmp_path / "out.h5", iter([False] * (batches - 1))
    with pytest.raises(StoppedError):
        extract(inputs, output, stop=lambda: next(left, True))
    for _ in ("resumed", "finished already"):
        report = extract(inputs, output, stats=True, resume=True)
        assert report.statistics["vector"].rows == 47
        assert bits(report.statistics) == bits(output_statistics([output]))


def test_the_command_prints_the_table_of_stats(
    inputs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out.h5")
    command = ["extract", "model.h5", *inputs, "-l", "vector", "-l", "count", "-o", output, "--stats"]
    assert cli.main(command, standalone_mode=False) == 3
    told = capfd.readouterr().err
    cli.main(["stats", output], standalone_mode=False)
    table = capfd.readouterr().out
    assert "47 rows" in table
    assert table in told
    cli.main([*command, "--json", "--quiet", "--overwrite"], standalone_mode=False)
    found = json.loads(capfd.readouterr().out)["statistics"]
    cli.main(["stats", output, "--json"], standalone_mode=False)
    assert found == json.loads(capfd.readouterr().out)
