"""The option --input NAME=FILE, for models with several inputs."""

from __future__ import annotations

from collections.abc import Sequence

from layerprobe.errors import UsageError


def read_named_inputs(named: Sequence[str]) -> dict[str, list[str]]:
    """NAME=FILE, where a name may repeat -> the files by name. Raises UsageError."""
    files: dict[str, list[str]] = {}
    for text in named:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise UsageError(f"--input wants NAME=FILE, as in --input image=photos. Received: {text!r}")
        files.setdefault(name, []).append(file)
    return files
