"""Strict JSON: what the config of a model file may be, and nothing looser."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from layerprobe.errors import ModelError

MAX_DEPTH = 200
"""Objects and lists inside each other; the deepest published model file needs fewer than 40."""
MAX_CONTAINERS = 1_000_000
"""Objects and lists in all; the largest architecture of keras.applications has 50,000."""


def parse(text: bytes | str, place: str) -> Any:
    """Parse one JSON document.

    Args:
        text: UTF-8 bytes, or text.
        place: What is being read, for the errors: "config.json of model.keras".

    Raises:
        ModelError: It is not UTF-8 or not JSON, a key occurs twice in one object, a number is NaN or
            infinite, or it is nested more than `MAX_DEPTH` deep, or is larger than any model.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ModelError(f"{place} holds the number {name}, which is not JSON: save the model again.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise ModelError(f"{place} is ambiguous: the key {twice[:80]!r} occurs twice in one object.")
        return table

    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        if decoded.count("[") + decoded.count("{") > MAX_CONTAINERS:
            raise ModelError(
                f"{place} holds more than {MAX_CONTAINERS} objects and lists: no model needs so many."
            )
        value = json.loads(decoded, object_pairs_hook=unique, parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise ModelError(f"{place} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except RecursionError as error:
        raise ModelError(
            f"{place} is nested more than {MAX_DEPTH} deep, which no Keras model needs."
        ) from error
    except ValueError as error:
        raise ModelError(f"{place} is not JSON: {error}.") from error
    _check_depth(value, place)
    return value


def _check_depth(value: Any, place: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for container in level for item in _members(container)]
        if not level:
            return
    raise ModelError(f"{place} is nested more than {MAX_DEPTH} deep, which no Keras model needs.")


def _members(container: Any) -> list[Any]:
    if isinstance(container, dict):
        container = container.values()
    elif not isinstance(container, list):
        return []
    return [item for item in container if isinstance(item, dict | list)]
