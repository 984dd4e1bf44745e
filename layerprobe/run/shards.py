"""Parts of a list of inputs, for jobs on several machines: `merging` joins what they write.

A shard is a run of rows that follow each other, so that joining copies blocks, and it begins where a batch of
the whole list does, so that every row is computed beside the same others as without shards: bit for bit the
same, whatever the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from layerprobe.errors import NoInputError, UsageError

SLURM = "slurm"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a list."""

    number: int
    """From 1."""
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def suffix(self) -> str:
        """For names of files, which sort as the shards do: "-03-of-16"."""
        return f"-{self.number:0{len(str(self.count))}}-of-{self.count}"


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """Read "I/N", or "slurm": as SLURM's variables for a task of a job array say.

    Args:
        text: What the user asked for.
        environment: Where SLURM's variables are.

    Raises:
        UsageError: It is neither, or this is no task of an array that counts evenly.
    """
    if text == SLURM:
        return _slurm(environment or {})
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            "shard must be I/N with I from 1 to N, as 1/8 to 8/8 for eight parts, or slurm. "
            f"Received: {text!r}"
        )
    return Shard(int(found[1]), int(found[2]))


def _slurm(environment: Mapping[str, str]) -> Shard:
    """See https://slurm.schedmd.com/job_array.html."""
    try:
        task, count = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "COUNT"))
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
        place, rest = divmod(task - first, step)
    except KeyError as error:
        raise UsageError(
            f"shard slurm is for tasks of a job array (sbatch --array), but {error.args[0]} is not set: "
            "give it as I/N."
        ) from None
    except (ValueError, ZeroDivisionError):
        place, rest, count = 0, 1, 0
    if rest or not 0 <= place < count:
        given = {name: text for name, text in environment.items() if name.startswith("SLURM_ARRAY_TASK_")}
        listed = ", ".join(f"{name}={text}" for name, text in sorted(given.items()))
        raise UsageError(
            "shard slurm needs an array that counts evenly, as --array=0-7: give it as I/N. "
            f"Received: {listed}"
        )
    return Shard(place + 1, count)


def rows_of(shard: Shard, rows: int, batch_size: int) -> range:
    """Say which rows of a list a shard has: whole batches, and of these as many as the others, or one more.

    Args:
        shard: One of them.
        rows: Of the list.
        batch_size: B; the last batch of the list may be shorter.

    Raises:
        NoInputError: None: there are fewer batches than shards.
    """
    batches = -(-rows // batch_size)
    first, last = ((shard.number - less) * batches // shard.count for less in (1, 0))
    if first == last:
        raise NoInputError(
            f"shard {shard} has nothing to do, for {rows} inputs are only {batches} batches of {batch_size}: "
            f"use at most {batches} shards."
        )
    return range(first * batch_size, min(last * batch_size, rows))
