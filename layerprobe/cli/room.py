"""Whether `ulimit -v` leaves room to begin: some libraries end the process where it does not."""

from __future__ import annotations

from layerprobe.errors import ResourceError
from layerprobe.processors import processors

COMPUTING = {"bench", "cam", "doctor", "extract"}
"""Commands that load what runs a model."""
_TO_COMPUTE, _TO_READ = 450 << 20, 150 << 20
_A_PROCESSOR = 50 << 20
"""What the threads take of each: stacks, and the buffers of linear algebra."""


def check_room(command: str) -> None:
    """Raise ResourceError where the command cannot begin under `ulimit -v`.

    What is needed was measured, and is less than any run takes: where this lets one go on it may still find
    that memory is short, and say so.
    """
    limit = _limit()
    least = (_TO_COMPUTE if command in COMPUTING else _TO_READ) + _A_PROCESSOR * len(processors())
    if limit is not None and limit < least:
        raise ResourceError(
            f"not enough memory: `{command}` takes at least {least >> 20} MiB of address space here, and "
            f"{limit >> 20} MiB are allowed: raise the limit (`ulimit -v`)."
        )


def _limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit
