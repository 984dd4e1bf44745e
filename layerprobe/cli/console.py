"""What the command line says: data on stdout, all else on stderr, strangers' text made fit for a terminal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from layerprobe.errors import WriteError
from layerprobe.escaping import escape as escape
from layerprobe.hiding import shown_within

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def say(text: str) -> None:
    """Print one line on stderr, after the program's name; silently nowhere when stderr is closed.

    Passwords and signatures of URLs are not shown.
    """
    try:
        click.echo(f"layerprobe: {escape(shown_within(text))}", err=True)
    except (OSError, ValueError):
        return


@contextmanager
def only_our_own_lines(verbose: bool = False) -> Iterator[None]:
    """Meanwhile nothing but layerprobe's own lines reaches stderr, unless `verbose`.

    TensorFlow writes to descriptor 2 while it is imported, whatever its log level, and so does libtiff for a
    broken picture; Pillow and Keras warn through Python.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")
    if verbose:
        yield
        return
    original, kept = sys.stderr, os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), os.fdopen(kept, "w", buffering=1, errors="backslashreplace") as ours:
        warnings.simplefilter("ignore")
        os.dup2(nowhere, 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = original
            os.dup2(kept, 2)
            os.close(nowhere)
            logging.disable(logging.NOTSET)


def emit(text: str) -> None:
    """Print data on stdout, and know that it arrived.

    Raises:
        click.exceptions.Exit: It did not; see `lost_stdout`.
    """
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError as error:
        raise click.exceptions.Exit(lost_stdout(error)) from None


def text_console(width: int) -> Console:
    """What writes for stdout: as wide as the terminal, or `width` where there is none.

    What it is given is text, no markup: a layer may be called `[red]` or `:cat:`.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=terminal,
        width=None if terminal else width,
    )


def as_text(table: Table, width: int = 1000) -> str:
    """A table as lines; see `text_console`."""
    console = text_console(width)
    with console.capture() as written:
        console.print(table)
    return written.get().rstrip()


class DataPipe:
    """Standard output, for bytes; that they could not be written ends the command, see `lost_stdout`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write all of it, which may wait for the reader."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise click.exceptions.Exit(lost_stdout(error)) from None

    def flush(self) -> None:
        """Nothing is kept back."""


@contextmanager
def only_data_on_stdout() -> Iterator[DataPipe]:
    """Give what takes data; meanwhile whatever else is printed, by a library say, goes nowhere."""
    sys.stdout.flush()
    original, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield DataPipe(original)
    finally:
        sys.stdout.flush()
        os.dup2(original, 1)
        os.close(nowhere)
        os.close(original)


def lost_stdout(error: OSError) -> int:
    """Say so, unless the reader went away, as `head` does; gives the exit code."""
    # What is still buffered would fail again when the interpreter exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    say(f"cannot write to standard output: {error.strerror}")
    return WriteError.exit_code


def is_terminal() -> bool:
    """Whether stderr is a terminal, where a progress bar may move."""
    return sys.stderr.isatty()
