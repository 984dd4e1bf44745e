"""Which stage bounds a run: the one that it waited for longest."""

from __future__ import annotations

from collections.abc import Mapping

WAITS = ("list", "load", "input", "compute", "reduce", "write")
"""What the run itself does or waits for, one after the other: together they are its whole time."""

INPUT = ("read", "decode", "preprocess")
"""What threads do for "input" meanwhile; their seconds are added up over the threads."""


def bound_by(seconds: Mapping[str, float]) -> str:
    """Name the stage that bounded a run.

    Stages overlap, and one that is busy all the time holds nobody up as long as its results are there when
    they are asked for. So what counts is how long the run waited for each, not how long each worked.

    Args:
        seconds: By stage, as in `RunReport`.

    Returns:
        One of `WAITS`, or, where the run waited for its input, that of `INPUT` which took most of the time.
    """
    longest = max(WAITS, key=lambda stage: seconds.get(stage, 0.0))
    return max(INPUT, key=lambda stage: seconds.get(stage, 0.0)) if longest == "input" else longest
