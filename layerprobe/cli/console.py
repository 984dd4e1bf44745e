"""What the command line says on stderr, and how text from outside is made fit for a terminal."""

from __future__ import annotations

import sys

import click


def escape(text: str) -> str:
    r"""Show control characters, line ends and undecodable bytes as `\x1b`, `\n`, `\udc80`.

    Names of files and layers come from strangers; a terminal must not obey them.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def say(text: str) -> None:
    """Print one line on stderr, after the program's name; silently nowhere when stderr is closed."""
    try:
        click.echo(f"layerprobe: {escape(text)}", err=True)
    except (OSError, ValueError):
        return


def is_terminal() -> bool:
    """Whether stderr is a terminal, where a progress bar may move."""
    return sys.stderr is not None and sys.stderr.isatty()
