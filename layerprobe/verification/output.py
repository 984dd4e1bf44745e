"""`verify`: an output, finished or not, read as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprobe.errors import LayerprobeError, NoInputError, OutputFormatError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.formats.placement import journal_name
from layerprobe.options import MAX_MEMORY, ModelOptions
from layerprobe.run.journal import written_rows
from layerprobe.stores.urls import shown
from layerprobe.verification.checking import LISTED, Checking

if TYPE_CHECKING:
    from layerprobe.run.request import Inputs
    from layerprobe.verification.recomputing import Recomputed


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found."""

    path: str
    rows: int
    failed: int
    checksums: int
    """How many checksums of rows were compared."""
    problems: tuple[str, ...]
    """Why it is not what it says; empty: it is."""
    notes: tuple[str, ...]
    """What else to know, such as values that are not finite."""
    recomputed: Recomputed | None = None
    """How rows came out that were computed anew; None: there were none."""


def verify(
    path: str | os.PathLike[str],
    *,
    recompute: int = 0,
    seed: int | None = None,
    model: str | os.PathLike[str] | None = None,
    inputs: Inputs | Mapping[str, Inputs] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> Verification:
    """Read a whole output and compare it with what it says of itself, and some rows with the model.

    Args:
        path: Of the output; of any format.
        recompute: So many rows, by chance, are computed anew, and compared with what is stored.
        seed: Of that chance; None: drawn, see `Verification.recomputed`.
        model: Path of the model, whose SHA-256 has to be that of the run; None: the one in the provenance.
        inputs: All inputs of the run, as for `extract`; None: the paths in the output, where they are images.
        custom_objects: As for `extract`, like the next three.
        weights: Path of the weights, for a model that came without them.
        lambdas: Expressions for Lambda layers.
        max_memory: Bytes that one layer may ask for.

    Raises:
        NoInputError: There is no output, finished or not; or the model or the inputs are gone.
        AccessError: Reading it is denied.
        ResumeError: The model, or what is given beside it, is not that of the run.
        LayerprobeError: The rows cannot be computed anew, as `extract` raises.
    """
    if not isinstance(recompute, int) or recompute < 0:
        raise UsageError(f"recompute is a number of rows. Received: {recompute!r}")
    path = os.fspath(path)
    unfinished = _unfinished(path)
    try:
        reader = open_output(path)
    except NoInputError:
        if unfinished is None:
            raise
        return Verification(shown(path), 0, 0, 0, (unfinished,), ())
    except OutputFormatError as error:
        return Verification(shown(path), 0, 0, 0, (str(error),), ())
    with reader:
        checking = Checking(reader)
        checking.check()
        notes = checking.notes if unfinished is None else [*checking.notes, f"beside it, {unfinished}"]
        problems, anew = checking.problems, None
        if recompute:
            from layerprobe.run.recorded import Given
            from layerprobe.verification.recomputing import recomputed

            needs = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
            anew = recomputed(reader, Given(model, inputs, needs=needs), recompute, seed)
            problems, notes = [*problems, *anew.problems], [*notes, *anew.notes]
        return Verification(
            shown(path),
            checking.rows,
            checking.failed,
            checking.compared,
            tuple(dict.fromkeys(problems)),
            tuple(notes),
            anew,
        )


def _unfinished(path: str) -> str | None:
    """Which rows an unfinished output lacks; None: there is none."""
    try:
        found = written_rows(journal_name(path))
    except LayerprobeError:
        return None
    if found is None:
        return None
    head, ranges = found
    first, last = head.signature.get("rows") or (0, None)
    rows = None if last is None else last - first
    told = f"an output is unfinished: {_covered(ranges)} rows are on disk"
    if not isinstance(rows, int):
        return f"{told}; go on with --resume"
    gaps = list(_gaps(ranges, rows))
    listed = ", ".join(gaps[:LISTED]) + (", ..." if len(gaps) > LISTED else "")
    return f"{told}, of {rows}; missing: {listed or 'none'}; go on with --resume"


def _covered(ranges: list[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)


def _gaps(ranges: list[tuple[int, int]], rows: int) -> Iterator[str]:
    end = 0
    for start, stop in [*ranges, (rows, rows)]:
        if start > end:
            yield f"{end} to {start - 1}"
        end = max(end, stop)


def as_plain(found: Verification) -> Mapping[str, Any]:
    """As JSON has it."""
    plain: dict[str, Any] = {
        "path": found.path,
        "ok": not found.problems,
        "rows": found.rows,
        "failed": found.failed,
        "checksums": found.checksums,
        "problems": list(found.problems),
        "notes": list(found.notes),
    }
    if found.recomputed is not None:
        plain["recomputed"] = found.recomputed.as_plain()
    return plain
