"""Rows of an output computed anew, by the model that it names, and compared with what is stored."""

from __future__ import annotations

import datetime
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.engines.agreement import largest_value, limit, relative_difference
from layerprobe.errors import ResumeError
from layerprobe.run.clock import Clock
from layerprobe.run.preparing import prepare_run
from layerprobe.run.recorded import LIST_OF_INPUTS, open_recorded

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Array, Batch, Provenance
    from layerprobe.run.loop import Run
    from layerprobe.run.recorded import Given

BFLOAT16 = 2e-2
"""So much may two ways to compute in bfloat16 differ: each is up to 1e-2 from float32."""
LAST_BIT = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""From one number to the next, relative to it: rounding may fall on either where values differ a little."""


@dataclass(slots=True)
class Compared:
    """One layer of the rows that were compared."""

    tolerance: float
    """The largest relative difference that rounding explains; 0 for whole numbers and truth values."""
    rows: int = 0
    equal: int = 0
    """Rows that are equal bit for bit."""
    largest: float = 0.0
    """The largest difference over the largest value of the batch; infinite: they are not comparable."""


@dataclass(slots=True)
class Recomputed:
    """What came of rows that were computed anew."""

    seed: int
    """With it the same rows are chosen again."""
    chosen: Sequence[int]
    rows: list[int] = field(default_factory=list)
    """Those of the chosen ones that could be compared, or failed again."""
    layers: dict[str, Compared] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """A line for each row and layer that differs by more than rounding explains."""
    notes: list[str] = field(default_factory=list)
    """Rows of which nothing can be said, and why."""

    def as_plain(self) -> dict[str, Any]:
        """As JSON has it; a difference of what cannot be compared is null."""
        layers = {
            name: {
                "tolerance": one.tolerance,
                "rows": one.rows,
                "bit_equal": one.equal,
                "largest_difference": one.largest if math.isfinite(one.largest) else None,
            }
            for name, one in self.layers.items()
        }
        return {"seed": self.seed, "chosen": list(self.chosen), "rows": self.rows, "layers": layers}


def recomputed(reader: Reader, given: Given, count: int, seed: int | None = None) -> Recomputed:
    """Compute rows anew, each beside the rows that it was computed beside, and compare them.

    Args:
        reader: The output.
        given: What it does not say of its run.
        count: How many rows; all, where there are no more.
        seed: Decides which; None: drawn.

    Raises:
        ResumeError: Model, options or inputs are not those of the run.
        LayerprobeError: It cannot be done again, as `open_recorded` and `extract` raise.
    """
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    rows = len(reader.paths)
    found = Recomputed(seed, sorted(random.Random(seed).sample(range(rows), min(count, rows))))
    recorded = open_recorded(reader, given, whole=False)
    with closing(recorded.request.probed) as probed:
        run = prepare_run(probed, recorded.request.sources, recorded.request.how, Clock())
        recorded.check_same(run.signature, without=(*LIST_OF_INPUTS, "engine"))
        tolerances = _tolerances(reader.provenance, len(probed.info.layers))
        found.layers = {name: Compared(tolerance) for name, tolerance in tolerances.items()}
        comparison = _Comparison(reader, found)
        for batch, block in _batches(run, found.chosen, rows):
            comparison.add(batch, block)
        comparison.check_complete()
        found.notes += _why_not_equal(found.layers, reader.provenance, run.provenance())
    return found


def _tolerances(record: Mapping[str, Any], layers: int) -> dict[str, float]:
    """By layer: the bound for engines, or for bfloat16; and one step more where few bits are stored."""
    bound = BFLOAT16 if record["engine"].get("precision") == "bfloat16" else limit(layers)
    dtypes = {layer["name"]: str(layer["dtype"]) for layer in record["layers"]}
    return {
        name: bound + LAST_BIT.get(dtype, 0.0) if "float" in dtype else 0.0 for name, dtype in dtypes.items()
    }


def _batches(run: Run, chosen: Sequence[int], rows: int) -> Iterator[tuple[Batch, dict[str, Array]]]:
    """Compute the batches in which the chosen rows are."""
    size = run.engine.batch_size
    wanted = {row - row % size for row in chosen}
    run.leave_out(start for start in range(0, rows, size) if start not in wanted)
    with closing(run.computed()) as computed:
        for batch, results in computed:
            if batch.start not in wanted:  # of a stream that goes on
                return
            yield batch, run.storing.block(batch, results)


class _Comparison:
    """What is stored beside what is computed now."""

    def __init__(self, reader: Reader, found: Recomputed) -> None:
        self._reader, self._found = reader, found
        self._paths, self._status = reader.paths, reader.status
        self._stored = {name: reader[name] for name in reader}
        self._started = _timestamp(reader.provenance["started"])
        self._left = set(found.chosen)

    def add(self, batch: Batch, block: Mapping[str, Array]) -> None:
        """Compare the chosen rows of a batch."""
        failures = {failure.index: failure.reason for failure in batch.failures}
        scales = {name: largest_value(values) for name, values in block.items()}
        for row in sorted(self._left & set(range(batch.start, batch.start + batch.size))):
            place, path = row - batch.start, self._paths[row]
            if batch.keys[place] != path:
                self._refuse(row, batch.keys[place])
            self._left.remove(row)
            if self._status[row] != "ok" and row not in failures:
                self._note(row, "had failed and is computed now: extract --retry-failed puts it in its place")
            elif self._status[row] == "ok" and row in failures:
                self._note(row, f"is not computed any more, so it was not compared: {failures[row]}")
            elif row in failures:
                self._found.rows.append(row)
            else:
                self._compare(row, {name: values[place] for name, values in block.items()}, scales)

    def _compare(self, row: int, values: Mapping[str, Array], scales: Mapping[str, float]) -> None:
        equal, differences = {}, {}
        for name, stored in self._stored.items():
            kept = np.asarray(stored[row])
            # In what is stored: for a few types that is another one.
            now = np.asarray(values[name]).astype(kept.dtype, copy=False)
            equal[name] = kept.shape == now.shape and kept.tobytes() == now.tobytes()
            differences[name] = 0.0 if equal[name] else relative_difference(kept, now, scales[name])
        wrong = [name for name, one in differences.items() if one > self._found.layers[name].tolerance]
        if wrong and self._is_newer(row):
            self._note(row, "was changed since the run, so it cannot be compared")
            return
        self._found.rows.append(row)
        for name, one in self._found.layers.items():
            one.rows += 1
            one.equal += equal[name]
            one.largest = max(one.largest, differences[name])
        for name in wrong:
            self._found.problems.append(
                f"layer {name!r}: row {row}, {self._paths[row]!r}, is not what the model computes: "
                f"{_difference(differences[name])}, and rounding explains "
                f"{self._found.layers[name].tolerance:.2g}"
            )

    def check_complete(self) -> None:
        """Raise ResumeError where a chosen row did not come."""
        if self._left:
            self._refuse(min(self._left), None)

    def _refuse(self, row: int, key: str | None) -> None:
        came = "nothing" if key is None else repr(key)
        raise ResumeError(
            f"row {row} of {self._reader.path!r} is {self._paths[row]!r}, and {came} came: "
            "give all inputs of the run, as it had them."
        )

    def _note(self, row: int, what: str) -> None:
        self._found.notes.append(f"row {row}, {self._paths[row]!r}, {what}")

    def _is_newer(self, row: int) -> bool:
        """Whether the file of a row was written, or came under its name, after the run had begun."""
        path = self._paths[row]
        with suppress(OSError, ValueError):
            found = os.stat(path if os.path.lexists(path) else path.partition("::")[0])
            return max(found.st_mtime, found.st_ctime) > self._started
        return False


def _timestamp(started: str) -> float:
    # It is a whole second, rounded down.
    return datetime.datetime.fromisoformat(started).timestamp() + 1


def _difference(difference: float) -> str:
    if math.isinf(difference):
        return "they cannot be compared, or are other whole numbers"
    return f"relative difference {difference:.1e}"


def _why_not_equal(
    layers: Mapping[str, Compared], earlier: Mapping[str, Any], now: Provenance
) -> Iterator[str]:
    """Say which layers are equal only to the rounding, and what may be the reason."""
    unequal = [name for name, one in layers.items() if one.equal < one.rows and one.largest <= one.tolerance]
    if not unequal:
        return
    before, after = {**earlier["versions"], **earlier["engine"]}, {**now.versions, **now.engine}
    changes = [
        f"{name} {before.get(name)} then, {after.get(name)} now"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]
    why = "; ".join(changes) or "perhaps another kind of processor, or another number of threads"
    for name in unequal:
        one = layers[name]
        yield (
            f"layer {name!r}: {one.rows - one.equal} of {one.rows} rows computed anew differ, by up to "
            f"{one.largest:.1e}, which rounding explains ({why})"
        )
