"""What a migration works on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SavedLayer:
    """One layer as a file has it, to be changed in place."""

    class_name: str
    config: dict[str, Any]
    """A copy, so that the archive's own config stays as it is."""
    version: tuple[int, int]
    """(major, minor) of the Keras that saved it."""
    backend: str | None = None
    """"tensorflow", "theano", "cntk", ...; None where the file does not say."""
    stored_class: str = field(init=False)
    """The class as the file spells it."""

    def __post_init__(self) -> None:
        self.stored_class = self.class_name
