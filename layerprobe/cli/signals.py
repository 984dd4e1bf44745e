"""Signals that end the program: a run finishes the batch in hand first; a second signal ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from layerprobe.cli.console import say

SECONDS_FOR_A_BATCH = 8
"""So much time to end has a run that works; people and schedulers kill it after 10 to 30 seconds."""
SECONDS_FOR_THE_REST = 4
"""So much has everything else, such as a model that computes without end."""

_received: list[int] = []
_ending = False
"""Whether the program was told to exit, wherever it was."""
_stoppable = False
_working = False
"""Whether the run in hand has finished a batch."""


def install() -> None:
    """Handle the signals that end the program, but for those that are ignored, as under nohup."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)
    # Handlers wait for the call in hand to return, and a model may compute for long: a thread has the clock.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()


def received() -> int | None:
    """Tell which signal came first; None: none came."""
    return _received[0] if _received else None


def ending() -> int | None:
    """Tell for which signal the program was told to exit, be it that library code has lost the exception."""
    return _received[-1] if _ending else None


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Give what a run asks after each batch, whether it shall end; meanwhile a first signal does no more."""
    global _stoppable

    def asked() -> bool:
        global _working
        _working = True
        return bool(_received)

    _stoppable = True
    try:
        yield asked
    finally:
        _stoppable = False


def _handle(number: int, _: FrameType | None) -> None:
    global _ending
    first = not _received
    _received.append(number)
    if not first or not (_stoppable and _working):
        _ending = True
        sys.exit(128 + number)
    say(f"{signal.Signals(number).name}: ends after the batch in hand; at once with another")


def _watch(reading: int) -> None:
    """End the program at the second signal, or when the first has waited too long."""
    fatal = {int(getattr(signal, name, 0)) for name in ("SIGINT", "SIGTERM", "SIGHUP")}
    number = 0
    while number not in fatal:
        number = os.read(reading, 1)[0]
    timer = threading.Timer(SECONDS_FOR_A_BATCH if _working else SECONDS_FOR_THE_REST, _die, [number])
    timer.daemon = True
    timer.start()
    while (second := os.read(reading, 1)[0]) not in fatal:
        pass
    _die(second)


def _die(number: int) -> NoReturn:
    """What is on disk is sound at any moment; nothing needs to be tidied but the terminal."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # the progress bar hides the cursor
    os._exit(128 + number)
