"""Texts for formats that hold Unicode only: a path may be any bytes, which Python has as lone surrogates.

Such formats get the text with U+FFFD in the place of each, for people and their programs, and beside all
texts the few as they are, in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_LONE = re.compile("[\ud800-\udfff]")


def legible(texts: Sequence[str]) -> list[str]:
    """Give texts that can be encoded."""
    return [_LONE.sub("\ufffd", text) for text in texts]


def dump_exact(columns: Mapping[str, Sequence[str]]) -> str:
    """Write the texts that `legible` changes, by column and row, as JSON."""
    exact = {
        name: {row: text for row, text in enumerate(texts) if _LONE.search(text)}
        for name, texts in columns.items()
    }
    return json.dumps({name: found for name, found in exact.items() if found})


def with_exact(texts: Sequence[str], name: str, exact: str | bytes) -> list[str]:
    """Put the texts of one column back that `legible` has changed.

    Raises:
        ValueError: What `dump_exact` wrote is damaged.
        LookupError: It is of other rows.
    """
    found = list(texts)
    for row, text in json.loads(exact).get(name, {}).items():
        if legible([text]) != [found[int(row)]]:
            raise ValueError(f"{name!r} of row {row} is not what was written")
        found[int(row)] = text
    return found
