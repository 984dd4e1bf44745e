"""What cannot be reported, or be meant, is said, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import (
    PREPROCESSING,
    make_report,
    page_data,
    write_images,
    write_output,
)

import layerprobe
from layerprobe.errors import NoInputError, OutputError, OutputFormatError, UnknownLayerError, UsageError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An output and the report about it."""
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize(
    "change",
    [
        {"size": [0, 5]}, {"size": "x"}, {"channels": 7}, {"crop": "weird"}, {"background": ["a", 1, 2]},
        {"resize": None}, {"exif": 1, "size": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_provenance_that_extract_does_not_write_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    paths = write_images(tmp_path / "images", 1)
    how = {**PREPROCESSING, **change}
    output = write_output(tmp_path / "a.h5", {"x": np.ones((1, 2), "f4")}, paths, {}, how)
    with pytest.raises(OutputFormatError, match="its provenance is not what extract writes"):
        layerprobe.report(output, tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_layers_without_values_and_complex_ones_do_no_harm(tmp_path: Path) -> None:
    layers = {"none": np.zeros((2, 0, 3), "f4"), "waves": np.ones((2, 3), "complex64"), "x": np.eye(2)}
    output = write_output(tmp_path / "a.h5", layers, ["a", "b"], {}, None)
    made = layerprobe.report(output, tmp_path / "a.html")
    assert made.notes[0] == "waves is left out: its complex numbers have no order."
    assert [found["mean"] for found in page_data(tmp_path / "a.html")["layers"]] == [None, 0.5]
    with pytest.raises(UsageError, match="layer 'waves' holds complex numbers"):
        layerprobe.report(output, tmp_path / "b.html", layers=["waves"])


def test_what_cannot_be_meant_is_said_and_nothing_is_written(
    written: tuple[Path, Path], tmp_path: Path, command: Any
) -> None:
    output, page = written
    for options, error, message in (
        ({"layers": ["relo"]}, UnknownLayerError, "no layer 'relo'; the closest that it holds: 'relu'"),
        ({"top": 0}, UsageError, "--top is 1 to 64"),
        ({"limit": 0}, UsageError, "--limit is 1 or more"),
        ({"images": tmp_path / "none"}, NoInputError, "there is no folder"),
        ({"colour": "red"}, UsageError, "has no option 'colour'"),
    ):
        with pytest.raises(error, match=message):
            layerprobe.report(output, tmp_path / "a.html", **options)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="exists: give --overwrite"):
        layerprobe.report(output, page)
    with pytest.raises(UsageError, match=r"ends with \.html"):
        layerprobe.report(output, tmp_path / "a.h5")
    (tmp_path / "no.h5").write_text("no output")
    with pytest.raises(OutputFormatError):
        layerprobe.report(tmp_path / "no.h5", tmp_path / "a.html")
    for arguments, code in (
        (["report", output, "-o", page], 73),
        (["report", tmp_path / "none.h5", "-o", tmp_path / "a.html"], 66),
        (["report", output, "-o", tmp_path / "none" / "a.html"], 73),
        (["report", output, "-o", tmp_path / "a.html", "--max-size", "x"], 2),
        (["report", output, "-o", tmp_path / "a.html", "-l", "x"], 2),
    ):
        ended = command(*arguments)
        assert ended.code == code, ended.err
        assert ended.err.splitlines()[-1].startswith("layerprobe: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no.h5"]
