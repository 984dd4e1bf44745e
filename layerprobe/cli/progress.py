"""How far a run is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layerprobe.cli.console import is_terminal, say

SECONDS_BETWEEN_LINES = 10

Progress = Callable[[int, "int | None", int], None]
"""Called with units done, in all (None: not known), and failed."""


@contextmanager
def progress(quiet: bool, unit: str = "rows") -> Iterator[Progress | None]:
    """Give the callback for a long call: units done, in all, failed. The bar is gone when it ends."""
    if quiet:
        yield None
    elif is_terminal():
        with _bar(unit) as update:
            yield update
    else:
        yield _lines(unit)


@contextmanager
def _bar(unit: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    pace = _Pace()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(unit, total=None, rate="", failed="")

        def update(done: int, rows: int | None, failed: int) -> None:
            rate = pace.rate(done)
            told = f"[red]{failed} failed" if failed else ""
            bar.update(task, completed=done, total=rows, rate=f"{rate:.1f} {unit}/s", failed=told)

        yield update


def _lines(unit: str) -> Progress:
    pace = _Pace()

    def update(done: int, rows: int | None, failed: int) -> None:
        rate = pace.rate(done)
        if not pace.due or not rate or done == rows:  # the closing line tells the end
            return
        pace.told()
        broken = f", {failed} failed" if failed else ""
        count = f"{done} {unit}" if rows is None else f"{done} of {rows} {unit}"
        left = "" if rows is None else f", {(rows - done) / rate:.0f} s left"
        say(f"{count}, {rate:.1f} {unit}/s{left}{broken}")

    return update


class _Pace:
    """How fast a call goes on since its first word; what came before, such as loading, does not count."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._told = 0.0

    def rate(self, done: int) -> float:
        """Units a second."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._told = (done, now), now
        before, since = self._first
        return (done - before) / max(now - since, 1e-9)

    @property
    def due(self) -> bool:
        """Whether it is time for another line."""
        return time.monotonic() - self._told >= SECONDS_BETWEEN_LINES

    def told(self) -> None:
        """Count the time to the next line from now."""
        self._told = time.monotonic()
