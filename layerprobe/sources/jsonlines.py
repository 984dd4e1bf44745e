"""Lists that are JSON lines: objects with a `path`, and whatever else is to be kept beside the row."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from layerprobe.sources.files import Readable
    from layerprobe.sources.tar_stream import TarStream

MAX_OBJECT = 2**20
"""Bytes of one line."""
_BEGINNING = re.compile(rb'\s*\{\s*["}]')


@dataclass(frozen=True, slots=True)
class Listed:
    """One file, and what its list says of it."""

    file: str | Readable | TarStream
    fields: str
    """JSON text of an object."""


def begins_json_lines(head: bytes) -> bool:
    """Whether a list begins with an object: no path is likely to begin like that."""
    return _BEGINNING.match(head) is not None


def read_object(text: str, number: int, where: str) -> tuple[str, str]:
    """Read one line.

    Args:
        text: Undecodable bytes as lone surrogates.
        number: Of the line, from 1, for messages.
        where: Of the list, for messages.

    Returns:
        The path; and the other fields as the JSON text of an object, "" where there are none.

    Raises:
        UsageError: It is no object, or has no path.
    """
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}, line {number}, is not JSON: {error}.") from error
    path = found.pop("path", None) if isinstance(found, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError(
            f'{where}, line {number}: expected an object with a path, as in {{"path": "a.jpg", "label": 3}}. '
            f"Received: {text[:60]}"
        )
    return path, json.dumps(found) if found else ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")
