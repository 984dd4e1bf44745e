"""Names with ranges in braces, as numbered shards have them: `data-{0000..0099}.tar`, `{train,test}.tar`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from layerprobe.errors import UsageError

MOST = 1_000_000
"""Names that one text may stand for."""

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")


def has_braces(name: str) -> bool:
    """Whether a name stands for several."""
    return _BRACES.search(name) is not None


def names_of(name: str) -> list[str]:
    """Give the names that one with braces stands for, the last braces counting fastest.

    `{00..11}` counts with leading zeros if its first number has them, and down if its second is smaller;
    `{a,b}` is one after the other. Braces within braces are no braces.

    Raises:
        UsageError: There are more than `MOST`.
    """
    counts = [len(_choices(found)) for found in _BRACES.finditer(name)]
    total = 1
    for count in counts:
        total *= count
    if total > MOST:
        raise UsageError(f"{name!r} stands for {total} names, more than {MOST}: give smaller ranges.")
    return list(_expanded(name))


def _expanded(name: str) -> Iterator[str]:
    found = _BRACES.search(name)
    if found is None:
        yield name
        return
    for choice in _choices(found):
        for rest in _expanded(name[found.end() :]):
            yield f"{name[: found.start()]}{choice}{rest}"


class _Numbers:
    """The texts of a range of numbers, of any length."""

    def __init__(self, first: str, last: str) -> None:
        step = 1 if int(first) <= int(last) else -1
        self._numbers = range(int(first), int(last) + step, step)
        self._width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0

    def __len__(self) -> int:
        return min(len(self._numbers), MOST + 1) if self._numbers.stop < 2**62 else MOST + 1

    def __iter__(self) -> Iterator[str]:
        return (f"{number:0{self._width}d}" for number in self._numbers)


def _choices(found: re.Match[str]) -> _Numbers | list[str]:
    return found[3].split(",") if found[1] is None else _Numbers(found[1], found[2])
