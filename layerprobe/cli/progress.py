"""How far a run is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layerprobe.cli.console import is_terminal, say

SECONDS_BETWEEN_LINES = 10


@contextmanager
def progress(quiet: bool, unit: str = "rows") -> Iterator[Callable[[int, int, int], None] | None]:
    """Give the callback for a long call: units done, in all, failed. The bar is gone when it ends."""
    if quiet:
        yield None
    elif is_terminal():
        with _bar(unit) as update:
            yield update
    else:
        yield _lines(unit)


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    started = time.monotonic()
    first: list[int] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(unit, total=None, rate="", failed="")

        def update(done: int, rows: int, failed: int) -> None:
            first.append(done) if not first else None
            rate = (done - first[0]) / max(time.monotonic() - started, 1e-9)
            told = f"[red]{failed} failed" if failed else ""
            bar.update(task, completed=done, total=rows, rate=f"{rate:.1f} {unit}/s", failed=told)

        yield update


def _lines(unit: str) -> Callable[[int, int, int], None]:
    started = told = time.monotonic()
    first: list[int] = []

    def update(done: int, rows: int, failed: int) -> None:
        nonlocal told
        now = time.monotonic()
        first.append(done) if not first else None  # what an earlier run did, in no time
        if now - told < SECONDS_BETWEEN_LINES or done in (first[0], rows):  # the closing line tells the end
            return
        told = now
        rate = (done - first[0]) / (now - started)
        broken = f", {failed} failed" if failed else ""
        say(f"{done} of {rows} {unit}, {rate:.1f} {unit}/s, {(rows - done) / rate:.0f} s left{broken}")

    return update
