"""Names of classes, as files of names have them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence

from layerprobe.errors import AccessError, NoInputError, UsageError

MAX_BYTES = 16 << 20
"""A larger file holds no names of classes."""


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Read the names of classes, in the order of the model's output.

    A name a line, also with its number before it; or JSON: a list of names, an object from numbers to names,
    or to lists that end with a name, as `imagenet_class_index.json` has them, or an object from names to
    numbers, as `class_indices` of Keras's generators is.

    Raises:
        NoInputError: There is no such file.
        AccessError: Reading it is denied.
        UsageError: It holds no names.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except PermissionError as error:
        raise AccessError(f"labels {path!r} cannot be read: permission denied.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NoInputError(f"labels {path!r} cannot be read: {reason}.") from error
    text = data.decode("utf-8-sig", "backslashreplace").strip()
    if len(data) > MAX_BYTES or "\0" in text or not text:
        raise UsageError(f"labels {path!r} hold no names: expected a name a line, or JSON.")
    if text[0] not in "[{":
        return _without_numbers([line.strip() for line in text.splitlines()])
    try:
        return _from_json(json.loads(text))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(
            f"labels {path!r}: expected a JSON list of names, or an object from 0, 1, 2, ... to names."
        ) from error


def _without_numbers(lines: list[str]) -> list[str]:
    """The names, where every line begins with its own number, as Teachable Machine writes them."""
    numbered = [re.fullmatch(r"(\d{1,9})[\s:,]+(\S.*)", line, re.ASCII) for line in lines]
    names = [match[2] for place, match in enumerate(numbered) if match and int(match[1]) == place]
    return names if len(names) == len(lines) else lines


def _from_json(found: list[object] | dict[str, object]) -> list[str]:
    if isinstance(found, dict) and all(isinstance(number, int) for number in found.values()):
        found = {str(number): name for name, number in found.items()}
    names: Sequence[object] = found if isinstance(found, list) else [found[str(i)] for i in range(len(found))]
    last = [name[-1] if isinstance(name, list) else name for name in names]
    if not last or not all(isinstance(name, str) for name in last):
        raise TypeError
    return [str(name) for name in last]
