"""Runs of the made-up model that are stopped, and what is left of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_model import ROWS, extract

from layerprobe.errors import StoppedError


def after(batches: int) -> Callable[[], bool]:
    """What stops a run after so many batches."""
    left = iter([False] * (batches - 1))
    return lambda: next(left, True)


def left_over(output: Path) -> list[str]:
    """Names of what stands beside the output."""
    return sorted(name for name in os.listdir(output.parent) if name.startswith("."))


def stopped(inputs: list[str], output: Path, batches: int = 2, **options: Any) -> None:
    """Leave an unfinished output."""
    rows = "an unknown number of" if is_stream(output) else ROWS
    with pytest.raises(StoppedError, match=f"stopped after {10 * batches} of {rows} rows") as caught:
        extract(inputs, output, stop=after(batches), **options)
    assert caught.value.__notes__ == [kept(10 * batches, output)]
    waiting = "blocks" if is_spooled(output) else "unfinished"
    assert left_over(output) == sorted([f".{output.name}.journal", f".{output.name}.{waiting}"])


def is_stream(output: Path) -> bool:
    """Whether nobody knows how many rows come."""
    return ".stream" in output.name


def is_spooled(output: Path) -> bool:
    """Whether rows wait for the end of the run."""
    return any(part in output.name for part in (".gzip", ".zstd")) or (
        is_stream(output) and output.suffix != ".jsonl"
    )


def kept(rows: int, output: Path) -> str:
    """What is said of rows that are kept."""
    if is_stream(output):
        return f"{rows} rows are kept in an unfinished output, for when the same stream is given again"
    return f"{rows} of {ROWS} rows are kept in an unfinished output"
