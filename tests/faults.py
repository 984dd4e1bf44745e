"""Faults on demand: the n-th call to the system fails, or the process dies there."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CALLS = (
    *("open", "mkdir", "unlink", "replace", "rename", "pwrite", "pread", "ftruncate", "posix_fallocate"),
    *("fsync", "fdatasync"),
)
"""What a run asks of the system, of the module `os`; and it locks."""


class Fault:
    """What happens at one of the calls.

    Args:
        nth: At which call, from 1.
        act: What happens there.
        lasting: Whether it happens at every later call too.
    """

    def __init__(self, nth: int, act: Callable[[], object], lasting: bool = False) -> None:
        self._left, self._act, self._lasting = nth, act, lasting
        self.fired = False

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0 or (self._lasting and self._left < 0):
            self.fired = True
            self._act()

    def install(self, patch: pytest.MonkeyPatch, calls: tuple[str, ...] = CALLS) -> None:
        """Have it happen in `os` and `fcntl`, until `patch` is undone."""
        for name in calls:
            patch.setattr(os, name, self._wrapped(getattr(os, name)))
        patch.setattr(fcntl, "flock", self._wrapped(fcntl.flock))

    def _wrapped(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # Not rmtree's, for what is left behind, and not the inputs': an image that fails is a row.
            if "dir_fd" not in kwargs and not str(args[0]).endswith(".png"):
                self()
            return original(*args, **kwargs)

        return call


def failing(code: int) -> Callable[[], object]:
    """An act: the call fails."""

    def fail() -> object:
        raise OSError(code, os.strerror(code))

    return fail


def dying() -> None:
    """An act: the process is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def until_none_fires(
    act: Callable[[], object], lasting: bool = False, first: int = 1, step: int = 1
) -> Iterator[Fault]:
    """Give a fault at the first call, the second, ...; ends after the run in which none fell.

    Args:
        act: What happens there.
        lasting: Whether it happens at every later call too.
        first: At which call the first run has it.
        step: How many calls later the next one does.
    """
    for nth in range(first, 2000, step):
        fault = Fault(nth, act, lasting)
        yield fault
        if not fault.fired:
            assert nth > 10
            return
    raise AssertionError("there is no end of calls")


FULL = errno.ENOSPC
BROKEN = errno.EIO
