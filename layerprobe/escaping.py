"""Strangers' text made fit to be shown: names of files and layers may hold anything."""

from __future__ import annotations


def escape(text: str) -> str:
    r"""Show control characters, line ends, undecodable bytes, marks of direction as `\x1b`, `\udc80`.

    Names of files and layers come from strangers; a terminal must not obey them.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
