"""What cannot be an image is refused with its reason: other files, cut and damaged ones, bombs."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import NOISE, chunk, encode, every_format, png
from PIL import Image

from layerprobe.errors import SampleError
from layerprobe.images.decode import decode

FILES = every_format()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (bytes(5000), "only zero bytes"),
        (b"once upon a time", "text, not an image"),
        (b"BMW is no bitmap, whatever its first letters say", "text"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML, not an image"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"%PDF-1.7\n\xe2\xe3", "PDF"),
        (bytes(range(256)), "unknown format"),
        (encode(NOISE, "JPEG2000"), "JPEG 2000"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (png(0, 0, 8, 0, b""), "corrupt PNG"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(data: bytes, reason: str) -> None:
    with pytest.raises(SampleError, match=reason) as raised:
        decode(data)
    assert "\n" not in str(raised.value)


def test_heic_names_the_package_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brand in (b"heic", b"mif1"):
        with pytest.raises(SampleError, match="HEIC.*pip install pillow-heif"):
            decode(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(99))


def test_heic_is_read_where_the_package_is_there() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(file)
    np.testing.assert_allclose(decode(file.getvalue()).pixels, np.full((48, 64, 3), (200, 100, 50)), atol=4)


def test_no_program_is_started_for_postscript(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("started a program"))
    eps = encode(NOISE, "EPS")
    with pytest.raises(SampleError, match="EPS"):
        decode(eps)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_a_file_that_is_cut_short_is_never_an_image(name: str) -> None:
    data = FILES[name]
    length = len(data)
    if name == "JPEG with further pictures":
        length = data.index(b"\xff\xd9") + 2
        decode(data[:length])  # whole as far as the first picture goes
    elif name == "BMP":
        length -= 2  # which only fill the last row up
    for end in [20, length // 2, *range(length - 30, length), *range(0, length, 37)]:
        with pytest.raises(SampleError):
            decode(data[:end])


def test_a_cut_file_is_called_truncated() -> None:
    for name in ("JPEG", "PNG", "GIF", "GIF animated", "BMP"):
        with pytest.raises(SampleError, match="^truncated"):
            decode(FILES[name][:-3])


def test_a_wrong_checksum_in_a_png_is_noticed() -> None:
    stored = png(
        30, 20, 8, 2, zlib.decompress(zlib.compress(b"".join(b"\0" + row.tobytes() for row in NOISE)))
    )
    pixels = stored.index(b"IDAT") + 4
    end = stored.index(b"IEND") - 4
    np.testing.assert_array_equal(decode(stored).pixels, NOISE)
    for place in (pixels + 100, end - 1):
        broken = bytearray(stored)
        broken[place] ^= 1
        with pytest.raises(SampleError, match="PNG"):
            decode(bytes(broken))


def bombs() -> dict[str, bytes]:
    jpeg = bytearray(FILES["JPEG"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65535, 30000)
    gif = bytearray(FILES["GIF"])
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    text = b"key\0\0" + zlib.compress(bytes(200 * 2**20))
    return {
        "20000 x 20000": png(20000, 20000, 1, 0, bytes(2501 * 20000)),
        "14000 x 14000": png(14000, 14000, 1, 0, bytes(1751 * 14000)),
        "2147483647 x 2147483647": png(2**31 - 1, 2**31 - 1, 8, 2, b""),
        "30000 x 65535": bytes(jpeg),
        "65535 x 65535": bytes(gif),
        "too large": png(1, 1, 8, 0, b"\0\0", chunk(b"zTXt", text)),
    }


def test_bombs_are_refused_before_they_grow(tmp_path: Path) -> None:
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import os, resource, sys\n"
        "from layerprobe.images.decode import decode\n"
        "from layerprobe.errors import SampleError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sorted(os.listdir(sys.argv[1])):\n"
        "    data = open(os.path.join(sys.argv[1], name), 'rb').read()\n"
        "    try: decode(data)\n"
        "    except SampleError as error: print(name, '|', error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=20, check=True
    )
    *refused, grown = done.stdout.splitlines()
    assert [line.split(" | ")[0] for line in refused] == sorted(bombs())
    assert all(line.split(" | ")[0] in line.split(" | ")[1] for line in refused)
    assert int(grown) < 100 * 1024  # KiB


def test_the_limit_of_pixels_is_the_callers() -> None:
    with pytest.raises(SampleError, match="30 x 20 pixels are more than the limit of 599"):
        decode(FILES["PNG"], max_pixels=599)
    assert decode(FILES["PNG"], max_pixels=600).pixels.shape == (20, 30, 3)


def test_pillows_own_limit_is_neither_used_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("JPEG", "PNG", "GIF", "BMP"):
        assert decode(FILES[name]).pixels.shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_lines_of_pixels_are_images() -> None:
    assert decode(png(1, 1, 8, 0, b"\0\x07")).pixels.tolist() == [[[7, 7, 7]]]
    assert decode(png(1_000_000, 1, 1, 0, bytes(125_001))).pixels.shape == (1, 1_000_000, 3)
    with pytest.raises(SampleError, match="longer than"):
        decode(png(1_000_001, 1, 1, 0, bytes(125_002)))


def test_running_out_of_memory_is_not_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", starve)
    with pytest.raises(MemoryError):
        decode(FILES["PNG"])


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_whatever_the_bytes_there_is_an_image_or_a_reason(
    name: str, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(FILES[name])
    for place, new in changes:
        place %= len(data)
        data[place : place + len(new)] = new
    try:
        shape, reason = decode(bytes(data), max_pixels=1_000_000).pixels.shape, "-"
    except SampleError as error:
        shape, reason = (1, 1, 3), str(error)
    assert shape[2] == 3
    assert reason.isprintable()
