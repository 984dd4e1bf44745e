"""What is tried again when a store fails, how often, and what its failures mean."""

from __future__ import annotations

import errno
import math
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

Result = TypeVar("Result")

TRIES = 6
"""A request is made so often at most."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two tries; each pause has twice the length of the one before."""
PATIENCE, FIRST_PATIENCE = 60.0, 4.0
"""After so many seconds nothing is tried again; the second of a store that never answered."""

_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
"""HTTP's codes for what may be otherwise a moment later."""
_DENIED = frozenset((401, 403, 407))
_MISSING = frozenset((404, 410))
_FINAL = frozenset((errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENAMETOOLONG))


class StoreError(Exception):
    """A store did not give what it was asked for; the message is the reason, in a few words."""


class MissingError(StoreError):
    """There is no such object."""


class DeniedError(StoreError):
    """The store does not let us."""


class NoRangesError(StoreError):
    """The store gives whole objects only."""


class UnreachableError(StoreError):
    """There was no answer at all, also not after several tries."""


class UntrustedError(UnreachableError):
    """The server shows a certificate that is not accepted; no other try changes that."""


_lock = threading.Lock()
_repeated: Counter[str] = Counter()
"""How many requests had to be made again, by the name of the store, since that was last told."""
_last: dict[str, str] = {}
"""Why the last of them had to."""


def repeated_requests() -> list[str]:
    """Say which stores had to be asked again since this was last called, and why."""
    told = [
        f"{count} request{'s' * (count != 1)} to {name} had to be made again, last because {_last[name]}"
        for name, count in _repeated.items()
    ]
    _repeated.clear()
    return told


def repeated_here() -> dict[str, tuple[int, str]]:
    """Give what `repeated_requests` would say: by the name of the store, for another process to add."""
    return {name: (count, _last.get(name, "")) for name, count in dict(_repeated).items()}


def add_repeated(elsewhere: Mapping[str, tuple[int, str]]) -> None:
    """Count in what another process made again."""
    for name, (count, why) in elsewhere.items():
        _repeated[name] += count
        _last[name] = why


class Attempts:
    """Repeats what fails for reasons that pass. Threads may share one.

    Args:
        name: Of the store, for messages.
    """

    __slots__ = ("_gave_up", "_name", "last_answer")

    def __init__(self, name: str) -> None:
        self._name = name
        self.last_answer = -math.inf
        """When there was one, by `time.monotonic`, be it that there is no such object."""
        self._gave_up = -math.inf
        """When there was none after all tries."""

    def answered(self) -> None:
        """Note that there was an answer."""
        self.last_answer = time.monotonic()

    def __call__(self, function: Callable[[], Result]) -> Result:
        """Call a function until it does not fail, or what it raises will not pass.

        Raises:
            StoreError: A kind of it, by what was raised last.
        """
        began, pause = time.monotonic(), FIRST_PAUSE
        # What has just been given up is not waited for again with each request.
        is_gone = self._gave_up > max(self.last_answer, began - PATIENCE)
        tries = 1 if is_gone else TRIES
        for number in range(1, tries + 1):
            try:
                result = function()
            except Exception as error:  # each store has classes of its own: `meaning` knows them
                found = meaning(error)
                has_answer = not isinstance(found, UnreachableError)
                if has_answer:
                    self.answered()
                final = isinstance(found, MissingError | DeniedError | NoRangesError | UntrustedError)
                if final or not _passes(error):
                    raise found from error
                patience = PATIENCE if self.last_answer > -math.inf else FIRST_PATIENCE
                if number == tries or time.monotonic() - began + pause > patience:
                    if not has_answer:
                        self._gave_up = time.monotonic()
                    often = f" (tried {number} times)" if number > 1 else ""
                    raise type(found)(f"{found}{often}") from error
                with _lock:
                    _repeated[self._name] += 1
                    _last[self._name] = str(found)
                time.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.answered()
                return result
        raise AssertionError


def meaning(error: Exception) -> StoreError:
    """Say in words what one of the many exceptions of fsspec's file systems means."""
    if isinstance(error, StoreError):
        return error
    error = _cause(error)
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in _MISSING:
        return MissingError("no such object")
    if isinstance(error, PermissionError) or status in _DENIED or _wants_credentials(error):
        return DeniedError(f"access is denied ({_words(error)})")
    if status is not None:
        return StoreError(f"the store answers {status} {getattr(error, 'message', '')}".rstrip())
    fault = _fault_of_certificate(error)
    if fault:
        return UntrustedError(f"the server's certificate is not accepted ({fault})")
    if _has_no_answer(error):
        return UnreachableError(f"the store does not answer ({_words(error)})")
    return StoreError(_words(error))


def _wants_credentials(error: Exception) -> bool:
    """Whether nobody has said who asks: as botocore, Google, Azure, paramiko and FTP say it."""
    name = type(error).__name__
    of_ftp = name == "error_perm" and str(error).startswith("530")
    return of_ftp or any(part in name for part in ("Credential", "Authentication"))


def _cause(error: Exception) -> Exception:
    """What is behind "not found": fsspec calls every failure of a web server so."""
    behind = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(behind, Exception):
        return error
    return error if hasattr(behind, "response") else behind  # S3's own answer, which was understood


def _status(error: Exception) -> int | None:
    """HTTP's code, where the error has one: aiohttp's own, httpx's of its response, gcsfs's."""
    response = getattr(error, "response", None)
    told = (
        getattr(error, "status", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
    )
    return next((found for found in told if isinstance(found, int) and found), None)


def _passes(error: Exception) -> bool:
    error = _cause(error)
    status = _status(error)
    if status is not None:
        return status in _AGAIN
    if isinstance(error, NotImplementedError | IsADirectoryError | NotADirectoryError | TypeError):
        return False
    return not (isinstance(error, OSError) and error.errno in _FINAL)


def _has_no_answer(error: Exception) -> bool:
    """Whether it is about the connection, and not about what came through it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    no_answer = {"ClientConnectorError", "EndpointConnectionError", "ConnectTimeoutError"}
    no_answer |= {"ConnectTimeout", "ConnectError"}  # of httpx, which the Hugging Face hub uses
    timeouts = {"FSTimeoutError", "TimeoutError", "ReadTimeoutError"}
    return isinstance(error, ConnectionRefusedError) or bool(names & (no_answer | timeouts))


def _fault_of_certificate(error: BaseException | None) -> str:
    """What is wrong with a certificate, if that is behind an error: all packages wrap what `ssl` says."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) and hasattr(error, "verify_message"):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__
    return ""


def _words(error: Exception) -> str:
    from layerprobe.stores.urls import shown_within

    told = error.strerror if isinstance(error, OSError) else None
    lines = [line for line in str(told or error).splitlines() if line.strip()]
    text = " ".join(lines[0].split()) if lines else type(error).__name__
    return shown_within(text)[:200]
