"""What the classes of a model are called, and which of them are meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from layerprobe.errors import UsageError


class Classes:
    """Names of classes, where there are any.

    Args:
        names: In the order of the model's output; empty where they have none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def name(self, number: int) -> str:
        """What a class is called."""
        return self._names[number] if number < len(self._names) else f"class {number}"

    def number(self, text: str | int, count: int) -> int:
        """Which class is meant.

        Args:
            text: A number, or a name; a name that looks like a number is a name first.
            count: How many classes the model has.

        Raises:
            UsageError: There is no such class, or several of that name.
        """
        found = [number for number, name in enumerate(self._names[:count]) if name == text]
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
        closest = ", ".join(difflib.get_close_matches(str(text), self._names, 3, 0.0))
        raise UsageError(f"no class is called {text!r}; the closest are {closest}.")

    def check(self, count: int) -> None:
        """Raise UsageError where the names are those of another model."""
        if len(self._names) not in (0, count):
            raise UsageError(
                f"the labels name {len(self._names)} classes, but the model has {count}: "
                "give the names of its classes, in the order of its output."
            )
