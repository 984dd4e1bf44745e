"""TensorFlow's checkpoints, read without TensorFlow."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerprobe.errors import ModelError
from layerprobe.modelfile.checkpoint import Checkpoint

RNG = np.random.default_rng(0)


def random(*shape: int) -> Any:
    return RNG.random(shape, dtype="float32")


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: Any) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """One block of a sorted table, every key written in full."""
    body = b"".join(b"\0" + varint(len(k)) + varint(len(v)) + k + v for k, v in entries)
    return body + struct.pack("<II", 0, 1)


def write_checkpoint(folder: Path) -> Any:
    """A checkpoint with one variable, at layer-0/kernel, made by hand."""
    kernel = random(3, 2)
    objects = field(1, field(1, field(1, 1) + field(2, "layer-0")))
    objects += field(1, field(1, field(1, 2) + field(2, "kernel")))
    objects += field(1, field(2, field(1, "VARIABLE_VALUE") + field(3, "some/key")))
    data = kernel.tobytes()
    text = varint(len(objects)) + b"crc_" + objects
    shape = field(2, field(1, 3)) + field(2, field(1, 2))
    entries = [
        (b"", field(1, 1)),
        (b"_CHECKPOINTABLE_OBJECT_GRAPH", field(1, 7) + field(4, len(data)) + field(5, len(text))),
        (b"some/key", field(1, 1) + field(2, shape) + field(4, 0) + field(5, len(data))),
    ]
    content = block(entries)
    index = block([(b"~", varint(0) + varint(len(content)))])
    place = len(content) + 5
    footer = (varint(0) + varint(0) + varint(place) + varint(len(index))).ljust(40, b"\0")
    magic = struct.pack("<Q", 0xDB4775248B80FB57)
    folder.mkdir()
    (folder / "variables.index").write_bytes(content + b"\0crc_" + index + b"\0crc_" + footer + magic)
    (folder / "variables.data-00000-of-00001").write_bytes(data + text)
    return kernel


def test_a_checkpoint_is_read_without_tensorflow(tmp_path: Path) -> None:
    kernel = write_checkpoint(tmp_path / "variables")
    variable = Checkpoint(str(tmp_path / "variables")).variable("layer-0", "kernel")
    assert variable is not None
    assert variable.shape == (3, 2)
    np.testing.assert_array_equal(variable[()], kernel)


def test_what_a_checkpoint_has_not_is_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "variables")
    found = Checkpoint(str(tmp_path / "variables"))
    assert found.variable("layer-0", "bias") is None
    assert found.variable("layer-1") is None
    assert found.variable("layer-0") is None


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path / "variables")
    path = tmp_path / "variables" / name
    data = path.read_bytes()
    for cut in (*range(0, len(data), 7), None):
        if cut is None:
            path.unlink()
        else:
            path.write_bytes(data[:cut])
        with pytest.raises(ModelError):
            Checkpoint(str(tmp_path / "variables")).variable("layer-0", "kernel")[()]  # type: ignore[index]
