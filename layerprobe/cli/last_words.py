"""A sentence for when this process is ended where nothing of it can say one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WORDS = (
    "ended at once from outside, as Ray does when it ends on this machine: "
    "the same command with --resume goes on"
)

# Waits for a line, or for the end of the process that would have written it.
_PROGRAM = 'read -r _ || echo "layerprobe: $0" >&2'


@contextmanager
def last_words() -> Iterator[None]:
    """Meanwhile have another process say a sentence on stderr if this one ends without leaving here.

    Ray's library ends the process that uses it, at once and in silence, when Ray has ended on its machine.
    """
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0) as told:
        with open(reading, "rb") as awaited:
            # In a session of its own it outlives Ctrl-C.
            watcher = subprocess.Popen(
                ["/bin/sh", "-c", _PROGRAM, WORDS],
                stdin=awaited,
                stdout=subprocess.DEVNULL,
                stderr=sys.stderr.fileno(),
                start_new_session=True,
            )
        try:
            yield
        finally:
            with suppress(OSError):  # It was ended by somebody.
                told.write(b"\n")
    watcher.wait()
