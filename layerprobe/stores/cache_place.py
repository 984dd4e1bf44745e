"""Where this user's cache is, and the models in it that came from elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from layerprobe.errors import OutputError
from layerprobe.stores.scratch import scratch_path

MODELS = "models"
"""The folder in the cache that they are in."""


def cache_folder() -> str | None:
    """Give $LAYERPROBE_CACHE, or the place that the system has for such things.

    Returns:
        None where $LAYERPROBE_CACHE is empty: the user wants none; "" where there is no place for one.
    """
    given = os.environ.get("LAYERPROBE_CACHE")
    if given is not None:
        return os.path.abspath(given) if given else None
    if sys.platform == "win32":
        place, name = os.environ.get("LOCALAPPDATA", ""), os.path.join("layerprobe", "cache")
    elif sys.platform == "darwin":
        place, name = os.path.expanduser("~/Library/Caches"), "layerprobe"
    else:
        place, name = os.environ.get("XDG_CACHE_HOME", ""), "layerprobe"
        if not os.path.isabs(place):  # A relative one is to be ignored, says the XDG specification.
            place = os.path.expanduser("~/.cache")
    return os.path.join(place, name) if os.path.isabs(place) else ""


def model_folder(key: str) -> str:
    """Make the folder of one model: in the cache, or in `$TMPDIR` where there is none.

    Args:
        key: A name for it, of letters that every file system takes.

    Raises:
        OutputError: It cannot be made.
    """
    top = cache_folder()
    folder = os.path.join(top, MODELS, key) if top else os.path.dirname(scratch_path(f"models://{key}/x"))
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"a model cannot be kept in {folder!r}: {error.strerror}; set LAYERPROBE_CACHE to a folder of "
            "your own."
        ) from error
    return folder


@contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Wait until no other process makes a model in its folder, on this machine or one that shares it.

    File systems that cannot lock let several in: what they make has names of its own until it is whole.
    """
    with ExitStack() as held:
        with suppress(ImportError, OSError):  # Windows has no such lock
            import fcntl

            descriptor = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
