"""What an earlier run left of an output: to go on with, to begin again, or in the way."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprobe.errors import LayerprobeError, OutputError, ResumeError
from layerprobe.formats.disk import discard, reported
from layerprobe.formats.opening import open_output
from layerprobe.formats.placement import (
    check_target,
    composed_name,
    journal_name,
    spool_name,
    unfinished_name,
)
from layerprobe.options import ExtractOptions
from layerprobe.records import Failure
from layerprobe.run.entries import Head
from layerprobe.run.identity import OF_A_STREAM, difference
from layerprobe.run.journal import Journal, check_free, written_rows
from layerprobe.stores.urls import is_url, shown

if TYPE_CHECKING:
    from layerprobe.protocols import LoadedModel, Reader


def claim(path: str, file_format: str, how: ExtractOptions) -> Journal:
    """Take hold of an output, and see what is there.

    Args:
        path: Of the output.
        file_format: A name in `registry.WRITERS`.
        how: `overwrite`, `resume`, `restart` and `lock` matter.

    Returns:
        The journal: with a head, if there is an unfinished output to go on with.

    Raises:
        BusyError: Another run holds the output.
        OutputError: It cannot be created, or is in the way, finished or not, and nobody said what to do.
    """
    check_target(path, file_format, overwrite=how.overwrite or how.resume)
    journal = Journal(path, journal_name(path), lock=how.lock)
    try:
        _tidy(path, journal)
        if journal.head is not None and not (how.resume or how.restart):
            raise _unfinished(path, journal.rows)
        if journal.head is not None and how.restart:
            journal.clear()
        if journal.head is None:
            _discard_left_over(path)
        if journal.head is not None:
            check_target(path, file_format, how.overwrite)
        return journal
    except BaseException:
        journal.close()
        raise


@dataclass(frozen=True, slots=True)
class Left:
    """What an earlier run left unfinished."""

    head: Head
    rows: int
    """How many are on disk."""


def look(path: str, file_format: str, how: ExtractOptions) -> tuple[Left | None, LayerprobeError | None]:
    """Tell what `claim` would find, and what it would raise; nothing is changed."""
    found = written_rows(journal_name(path))
    left = None
    if found is not None and any(map(os.path.lexists, _left_over(path))):
        left = Left(found[0], sum(stop - start for start, stop in found[1]))
    try:
        check_target(path, file_format, overwrite=how.overwrite or how.resume)
        if how.lock:
            check_free(path, journal_name(path))
        if left is not None and not (how.resume or how.restart):
            raise _unfinished(path, left.rows)
        if left is not None:
            check_target(path, file_format, how.overwrite)
    except LayerprobeError as error:
        return left, error
    return left, None


def _unfinished(path: str, rows: int) -> OutputError:
    return OutputError(
        f"{path!r} is unfinished, with {rows} rows on disk: give --resume to go on with it "
        "or --restart to begin again."
    )


def _tidy(path: str, journal: Journal) -> None:
    """Do what is left of a run that was killed when its output had its name already."""
    if journal.head is None:
        return
    if not any(map(os.path.lexists, _left_over(path))):
        journal.clear()
    elif _recorded_run(path).get("id") == journal.head.run:
        # Two folders change their names in one step: what is left is the one that was replaced. And a spool
        # goes after the output has its name.
        _discard_left_over(path)
        journal.clear()


def _left_over(path: str) -> list[str]:
    """The names under which an unfinished output may stand."""
    return [unfinished_name(path), spool_name(path), composed_name(path)]


def _discard_left_over(path: str) -> None:
    with reported(path):
        for name in _left_over(path):
            discard(name)


def _recorded_run(path: str) -> dict[str, Any]:
    """What the output at `path` says of its run; empty when it does not, or there is none."""
    with suppress(LayerprobeError), open_output(path) as reader:
        run = reader.provenance.get("run")
        return run if isinstance(run, dict) else {}
    return {}


def check_same_run(path: str, head: Head, signature: Mapping[str, Any]) -> None:
    """Check that the unfinished output is one of this run. Raises ResumeError."""
    _check_same(path, "unfinished", head.signature, signature)


def finished_output(path: str, how: ExtractOptions, signature: Mapping[str, Any]) -> Reader | None:
    """Open the output that a run would resume, where it was finished already; None: there is none.

    Raises:
        ResumeError: It is another run's.
        OutputFormatError: It is no output of layerprobe.
    """
    if how.restart or not (is_url(path) or os.path.lexists(path)):
        return None
    try:
        with ExitStack() as on_error:
            reader = on_error.enter_context(open_output(path))
            run = reader.provenance.get("run")
            earlier = run.get("signature") if isinstance(run, dict) else None
            _check_same(shown(path), "finished", earlier if isinstance(earlier, dict) else {}, signature)
            on_error.pop_all()
    except LayerprobeError:
        if how.overwrite:
            return None
        raise
    return reader


def with_earlier_batch_size(
    how: ExtractOptions, path: str, head: Head | None, probed: LoadedModel
) -> ExtractOptions:
    """Go on in batches of the size that the earlier run had, where none is asked for."""
    if not how.resume or isinstance(how.batch_size, int) or probed.fixed_batch_size is not None:
        return how
    size = _earlier_batch_size(path, head)
    return how if size is None else dataclasses.replace(how, batch_size=size)


def _earlier_batch_size(path: str, head: Head | None) -> int | None:
    """Of the run that left or finished the output, if there was one and it says so."""
    if head is not None:
        found = head.signature.get("batch_size")
    else:
        found = _recorded_run(path).get("signature", {}).get("batch_size")
    return found if isinstance(found, int) and found > 0 else None


def failures_of(reader: Reader) -> list[Failure]:
    """Give the rows of a finished output that failed; it does not say in which stage."""
    failed = [row for row, status in enumerate(reader.status) if status != "ok"]
    return [Failure(row, reader.paths[row], "unknown", reader.error[row]) for row in failed]


def _check_same(path: str, state: str, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if now.get("rows") is None and state == "finished":
        earlier = {**earlier, **OF_A_STREAM}  # which rows those are is seen when the stream comes
    found = difference(earlier, now)
    if found is not None:
        instead = "--restart to begin again" if state == "unfinished" else "--overwrite to replace it"
        raise ResumeError(
            f"the {state} {path!r} belongs to a different run, for its {found[0]} was {found[1]}, "
            f"now it is {found[2]}: give {instead}, "
            "or -o for another name."
        )
