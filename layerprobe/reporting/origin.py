"""What the provenance of an output says, read before anything is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprobe.errors import OutputFormatError
from layerprobe.images.preprocess import check_preprocessing
from layerprobe.records import Preprocessing
from layerprobe.run.provenance import preprocessing_text

if TYPE_CHECKING:
    from layerprobe.protocols import Reader


@dataclass(frozen=True, slots=True)
class Origin:
    """What a report needs to know of a run."""

    lines: tuple[tuple[str, str], ...]
    """What made the output, as names and texts."""
    preprocessing: Preprocessing | None
    """None where the rows come from arrays."""
    started: str
    """ISO 8601."""
    max_pixels: int | None
    """Of images, where a limit was given."""
    classes: Mapping[str, str]
    """Layer -> class."""
    channel_axes: Mapping[str, int]
    """Layer -> which axis of a row holds its channels."""


def read_origin(reader: Reader) -> Origin:
    """Read the provenance of an output.

    Raises:
        OutputFormatError: It is not what `extract` writes.
    """
    try:
        record = reader.provenance
        return Origin(
            lines=tuple(_lines(reader.path, record)),
            preprocessing=_preprocessing(record["preprocessing"]),
            started=str(record["started"]),
            max_pixels=None if (most := record["options"].get("max_pixels")) is None else int(most),
            classes={layer["name"]: str(layer["class_name"]) for layer in record["layers"]},
            channel_axes={layer["name"]: _channel_axis(layer["channel_axis"]) for layer in record["layers"]},
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # UsageError is a ValueError
        raise OutputFormatError(f"{reader.path!r}: its provenance is not what extract writes.") from error


def _lines(path: str, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, engine, options = record["model"], record["engine"], record["options"]
    yield "output", path
    yield "model", str(model["path"])
    yield "SHA-256 of the model", str(model["sha256"])
    yield "saved with", f"Keras {model['keras_version'] or '?'}"
    if part := record["inputs"].get("part"):
        start, stop = part["rows"]
        yield "shard", f"{part['shard']}, rows {start} to {stop - 1} of {part['listed']}"
    yield "preprocessing", preprocessing_text(record["preprocessing"])
    yield "engine", f"{engine['name']} on {engine['device']}, {engine['precision']}"
    yield "stored", f"{options['dtype']}, pool {options['pool']}"
    yield "started", str(record["started"])
    yield "versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())


def _preprocessing(record: Mapping[str, Any] | None) -> Preprocessing | None:
    if record is None:
        return None
    known = {field.name for field in dataclasses.fields(Preprocessing)}
    given: dict[str, Any] = {name: value for name, value in record.items() if name in known}
    for name in ("size", "background", "mean", "std"):
        given[name] = tuple(given[name])
    how = Preprocessing(**given)
    check_preprocessing(how)
    if how.channels not in (1, 3, 4):
        raise ValueError(how.channels)
    return how


def _channel_axis(axis: object) -> int:
    if axis not in (-1, 0):
        raise ValueError(axis)
    return int(axis)
