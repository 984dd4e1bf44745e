"""What the classes of a model are called, and which of them are meant."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from layerprobe.errors import NoInputError, UsageError

MOST_BYTES = 64 << 20
"""Of a file of names."""

_NUMBERED = re.compile(r"\s*(\d{1,9})[\s:,]+(\S.*)", re.ASCII)


class Classes:
    """Names of classes, where there are any.

    Args:
        names: Number -> name.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = dict(names)

    def name(self, number: int) -> str:
        """What a class is called."""
        return self._names.get(number, f"class {number}")

    def number(self, text: str | int, count: int) -> int:
        """Which class is meant.

        Args:
            text: A number, or a name; a name that looks like a number is a name first.
            count: How many classes the model has.

        Raises:
            UsageError: There is no such class, or several of that name.
        """
        found = [number for number, name in self._names.items() if name == text and number < count]
        if len(found) > 1:
            raise UsageError(f"{text!r} is the name of classes {', '.join(map(str, found))}: give a number.")
        if found:
            return found[0]
        if re.fullmatch(r"-?\d{1,9}", str(text), re.ASCII):
            if -count <= int(text) < count:
                return int(text) % count
            raise UsageError(f"class {text}: the model has classes 0 to {count - 1}.")
        if not self._names:
            raise UsageError(
                f"class {text!r}: give a number, or the names of the classes with --labels FILE."
            )
        closest = ", ".join(difflib.get_close_matches(str(text), self._names.values(), 3, 0.0))
        raise UsageError(f"no class is called {text!r}; the closest are {closest}.")

    def check(self, count: int) -> None:
        """Raise UsageError where the names are those of another model."""
        if self._names and max(self._names) >= count:
            raise UsageError(
                f"the labels name {max(self._names) + 1} classes, but the model has {count}: "
                "give the names of its classes, in the order of its output."
            )


def read_labels(path: str) -> dict[int, str]:
    """Read the names of classes: one a line, also numbered ones, a JSON list, or a JSON object by number.

    In JSON a name may be a list, of which the last text counts, as in Keras's list of ImageNet's classes.

    Raises:
        NoInputError: The file cannot be read.
        UsageError: It is none of these.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise UsageError(f"{path!r} is too large for a list of names: expected at most 64 MiB.")
            text = file.read(MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise NoInputError(f"labels {path!r} cannot be read: {reason.lower()}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path!r} is no list of names: it is not UTF-8.") from error
    if text.lstrip()[:1] in ("[", "{"):
        return _from_json(path, text)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UsageError(f"{path!r} holds no names: expected one a line, or JSON.")
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(match and int(match[1]) == place for place, match in enumerate(numbered)):
        return {place: match[2].strip() for place, match in enumerate(numbered) if match}
    return {place: line.strip() for place, line in enumerate(lines)}


def _from_json(path: str, text: str) -> dict[int, str]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path!r} begins like JSON but is none: {error}.") from error
    pairs: Sequence[tuple[Any, Any]] = list(read.items() if isinstance(read, dict) else enumerate(read))
    if pairs and all(isinstance(name, int) and not isinstance(name, bool) for _, name in pairs):
        pairs = [(number, name) for name, number in pairs]  # as `class_indices` of Keras's generators
    found = {}
    for number, name in pairs:
        name = name[-1] if isinstance(name, list) and name else name
        if not re.fullmatch(r"\d{1,9}", str(number), re.ASCII) or not isinstance(name, str):
            raise UsageError(f'{path!r}: expected a list of names, or an object as {{"0": NAME}}.')
        found[int(number)] = name
    if not found:
        raise UsageError(f"{path!r} holds no names.")
    return found
