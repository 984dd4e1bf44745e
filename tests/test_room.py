"""Under `ulimit -v` a command ends with one sentence, whatever library finds that memory is short."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerprobe import cli

pytest.importorskip("resource")


@pytest.mark.parametrize("kib", [100_000, 200_000, 300_000, 400_000, 500_000])
def test_a_limit_that_is_too_small_is_said_before_anything_large_is_loaded(
    kib: int, samples: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.npz"
    command = "ulimit -v {}; exec {} -m layerprobe extract {} -l conv5_3 {} -o {}"
    line = command.format(kib, sys.executable, samples / "vgg_shapes.h5", samples / "images", output)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=samples.parent)
    assert done.returncode == 71
    assert done.stderr.startswith("layerprobe: not enough memory: `extract` takes at least ")
    assert f"and {kib >> 10} MiB are allowed: raise the limit (`ulimit -v`).\n" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_is_given_all_the_same() -> None:
    line = f"ulimit -v 100000; exec {sys.executable} -m layerprobe extract --help"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_thread_that_cannot_be_started_is_a_lack_of_memory(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cli.cli, "main", no_thread)
    ended = command("info", "out.npz")
    assert ended.code == 71
    assert ended.err.startswith("layerprobe: not enough memory")


def test_a_layer_that_keras_has_no_memory_for_is_no_fault_of_the_file(
    command: Callable[..., Any], samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras = pytest.importorskip("keras")

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(keras.layers.Layer, "add_weight", exhausted)
    where = samples / "vgg_shapes.h5", samples / "images" / "star_09.png"
    ended = command("extract", *where, "-l", "conv5_3", "--engine", "keras", "-o", tmp_path / "x.npz")
    assert ended.code == 71
    assert ended.err.startswith("layerprobe: not enough memory")
    assert list(tmp_path.iterdir()) == []
