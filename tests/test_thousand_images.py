"""A thousand images, of which a hundred are broken in twenty ways: 900 rows in their places, 100 reasons."""

from __future__ import annotations

import json
import os
import re
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_samples import NOISE, chunk, encode, png
from made_up_model import extract, use_made_up_model

from layerprobe.formats.opening import open_output
from layerprobe.sources.opening import open_source
from layerprobe.verification import verify

ROWS, EVERY = 1000, 10

JPEG, PNG = encode(NOISE, "JPEG"), encode(NOISE, "PNG")
RIFF = b"RIFF\x10\0\0\0WEBP"
ROW = b"\0" + bytes(24)


def written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        folder = os.getcwd()
        os.chdir(path.parent)  # its name may have 107 bytes
        try:
            opened.bind(path.name)
        finally:
            os.chdir(folder)


WAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (written(b""), "empty"),
    "text": (written(b"a note, no picture\n"), "text"),
    "html": (written(b"<!DOCTYPE html><html><body>404</body></html>"), "HTML"),
    "svg": (written(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "SVG"),
    "pdf": (written(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), "PDF"),
    "zip": (written(b"PK\x03\x04" + bytes(40)), "not an image|ZIP|unknown format"),
    "zeros": (written(bytes(500)), "only zero bytes"),
    "half a JPEG": (written(JPEG[: len(JPEG) // 2]), "truncated"),
    "20 bytes of a JPEG": (written(JPEG[:20]), "truncated|corrupt"),
    "a JPEG without its end": (written(JPEG[:-2]), "truncated"),
    "half a PNG": (written(PNG[: len(PNG) // 2]), "truncated|corrupt"),
    "a PNG of a wrong checksum": (
        written(PNG.replace(PNG[-20:-16], bytes(byte ^ 255 for byte in PNG[-20:-16]))),
        "corrupt|checksum|CRC|truncated",
    ),
    "a PNG of nothing": (written(png(0, 0, 8, 2, b"")), "corrupt PNG"),
    "a PNG of 400 million pixels": (written(png(20000, 20000, 8, 2, ROW)), "pixels"),
    "a bomb of text": (
        written(
            png(8, 8, 8, 2, ROW * 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))),
        ),
        "PNG",
    ),
    "half a WebP": (written(RIFF + b"VP8 "), "truncated|corrupt"),
    "gone": (lambda path: path.unlink(missing_ok=True), "no such file"),
    "a folder": (lambda path: path.mkdir(), "is a directory"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "a socket": (a_socket, "not a regular file"),
}


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[list[str], np.ndarray]:
    """1,000 paths, and the pixels (N, 8, 8, 3) of what lies there; every tenth is broken in the next way."""
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 3), "uint8")
    ways = list(WAYS.values())
    for row in range(ROWS):
        path = folder / f"{row:04}.png"
        if row % EVERY == 3:
            ways[row // EVERY % len(ways)][0](path)
        else:
            path.write_bytes(encode(pixels[row], "PNG"))
    return [str(folder / f"{row:04}.png") for row in range(ROWS)], pixels


def test_nine_hundred_rows_are_in_their_places_and_a_hundred_have_reasons(
    inputs: tuple[list[str], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_made_up_model(monkeypatch)
    paths, pixels = inputs
    assert len(WAYS) == 20
    broken = list(range(3, ROWS, EVERY))
    good = sorted(set(range(ROWS)) - set(broken))
    listed = tmp_path / "images.txt"
    listed.write_text("\n".join(paths))

    source = open_source([], lists=[str(listed)])
    report = extract(source, tmp_path / "out.h5", batch_size=32, errors_to=str(tmp_path / "failed"))
    assert (report.rows, report.failed) == (ROWS, 100)
    values = pixels.astype("float32")
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.paths == paths
        np.testing.assert_array_equal(reader["count"][good], values.sum((1, 2, 3)).astype("int32")[good])
        np.testing.assert_array_equal(reader["block/map"][good], np.tanh(values / 100)[good])
        assert np.isnan(reader["vector"][broken]).all()
        assert not reader["count"][broken].any()
        assert [row for row, status in enumerate(reader.status) if status == "failed"] == broken
        for row in broken:
            way, (_, words) = list(WAYS.items())[row // EVERY % len(WAYS)]
            assert re.search(words, reader.error[row]), (way, reader.error[row])
        assert not any(reader.error[row] for row in good)
        reasons = [reader.error[row] for row in broken]
    lines = [json.loads(line) for line in (tmp_path / "failed").read_text().splitlines()]
    assert [(line["index"], line["path"], line["reason"]) for line in lines] == [
        (row, paths[row], reason) for row, reason in zip(broken, reasons, strict=True)
    ]
    assert verify(tmp_path / "out.h5").problems == ()
