"""Which processors this process may use: one place, for not every system lets that be asked or set."""

from __future__ import annotations

import os
from collections.abc import Iterable


def processors() -> list[int]:
    """Give their numbers: those that this process is bound to, or where systems know no such thing, all."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # macOS, Windows


def bind(numbers: Iterable[int]) -> None:
    """Have this process use these and no others; without effect where the system cannot do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, numbers)
