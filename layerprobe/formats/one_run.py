"""Whether outputs that are to count as one are of one run, and hold each row once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layerprobe.errors import OutputFormatError, UsageError

if TYPE_CHECKING:
    from layerprobe.protocols import Reader


class OneRun:
    """The outputs of a run's shards, one after the other, in any order."""

    def __init__(self) -> None:
        self._common: Mapping[str, Any] | None = None
        self._seen: list[tuple[str, Mapping[str, Any]]] = []

    def add(self, path: str, reader: Reader) -> None:
        """Take one more.

        Raises:
            UsageError: It is of another run than those before it, or holds rows that one of them holds.
            OutputFormatError: Its record is not what `extract` writes.
        """
        record = reader.provenance
        try:
            this = {
                "model": record["model"]["sha256"],
                "layers": [(layer["name"], layer["shape"]) for layer in record["layers"]],
                "preprocessing": record["preprocessing"],
                "pooling": record["options"].get("pool"),
            }
            # Outputs of early versions, and those of models that are in no file, do not say it.
            signature = record.get("run", {}).get("signature", {})
        except (LookupError, TypeError, AttributeError) as error:
            raise OutputFormatError(f"{path!r}: its provenance is not what extract writes.") from error
        for what, value in (self._common or this).items():
            if this[what] != value:
                raise UsageError(
                    f"{path!r}: its {what} is not that of the outputs before it: give outputs of one run."
                )
        for other, earlier in self._seen:
            if _same_place(path, other) or _overlap(signature, earlier):
                raise UsageError(f"{path!r} holds rows that {other!r} holds too: give each of them once.")
        self._common = this
        self._seen.append((path, signature))


def _same_place(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two have rows of one list in common; a stream has no list that tells."""
    if one.get("list_of_inputs") is None or one["list_of_inputs"] != other.get("list_of_inputs"):
        return False
    (start, stop), (first, end) = one["rows"], other["rows"]
    return bool(max(start, first) < min(stop, end))
