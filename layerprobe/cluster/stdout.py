"""Standard output, kept free of what Ray says of workers that die.

Ray prints that from threads of its own to `sys.stdout`, whatever it is told of logs, where the data of a
program belong.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from threading import Thread


@contextlib.contextmanager
def stdout_without(threads: set[Thread]) -> Iterator[None]:
    """Meanwhile what these threads, which may be added later, print is on stderr, and nothing else is.

    That is where Ray's log is, too: the command line shows it with --verbose.
    """
    original = sys.stdout
    if original is None:  # The program was started without one.
        yield
        return
    ours = cast(TextIO, _Stdout(original, threads))
    sys.stdout = ours
    try:
        yield
    finally:
        if sys.stdout is ours:
            sys.stdout = original


class _Stdout:
    """A text stream; all but `write` is the original's."""

    def __init__(self, original: TextIO, others: set[Thread]) -> None:
        self._original, self._others = original, others

    def write(self, text: str) -> int:
        if threading.current_thread() not in self._others:
            return self._original.write(text)
        with contextlib.suppress(OSError, ValueError, AttributeError):  # A closed stderr.
            cast(TextIO, sys.__stderr__).write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
