"""What happened on the way to and from stores that the user should know, until somebody tells it."""

from __future__ import annotations

from layerprobe.stores.attempts import repeated_requests

_notes: list[str] = []


def note(text: str) -> None:
    """Have a sentence told."""
    if text not in _notes:
        _notes.append(text)


def taken() -> list[str]:
    """Give what is to be told since this was last called."""
    found = [*_notes, *repeated_requests()]
    _notes.clear()
    return found
