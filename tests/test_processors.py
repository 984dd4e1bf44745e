"""How many processors there are, on systems too that do not let a process be bound to some of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layerprobe
from layerprobe.processors import bind, processors


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system such as macOS."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)


@pytest.mark.usefixtures("elsewhere")
def test_where_nothing_can_be_bound_all_processors_are_there() -> None:
    bind([0])
    assert processors() == list(range(os.cpu_count() or 1))


@pytest.mark.usefixtures("elsewhere")
def test_a_compressed_output_is_written_there(
    command: Callable[..., Any], samples: Path, tmp_path: Path
) -> None:
    image = samples / "images" / "star_09.png"
    line = ("extract", samples / "vgg_shapes.h5", "-l", "conv5_3", image, "--compress", "gzip")
    ended = command(*line, "-o", tmp_path / "x.h5")
    assert ended.code == 0, ended.err
    with layerprobe.open(tmp_path / "x.h5") as found:
        assert found["conv5_3"].shape[0] == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process")
def test_a_process_that_is_bound_has_those_processors_and_no_others() -> None:
    all_of_them = processors()
    try:
        bind(all_of_them[:1])
        assert processors() == all_of_them[:1]
    finally:
        bind(all_of_them)
