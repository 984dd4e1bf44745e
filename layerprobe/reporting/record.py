"""What the page shows, as plain values: every text fit to be shown, every number short."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.escaping import escape
from layerprobe.reporting.budget import Plan
from layerprobe.reporting.survey import STRONGEST
from layerprobe.statistics import linear_histogram
from layerprobe.views.colours import STEPS, amounts, signed

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.records import Array
    from layerprobe.reporting.maps import Maps
    from layerprobe.reporting.survey import LayerSurvey
    from layerprobe.reporting.thumbnails import Thumbnail
    from layerprobe.statistics import LayerStatistics

BINS = 64
LONGEST_TEXT = 300
"""Characters of what a list of inputs, or an error, says of a row."""


def layer_record(layer: LayerSurvey, plan: Plan) -> dict[str, Any]:
    """One layer, with its channels."""
    statistics = layer.statistics
    mean, variance, low, high = statistics.overall
    total = int(statistics.count.sum())
    return {
        "name": escape(layer.name),
        "class": escape(layer.class_name),
        "shape": list(layer.shape),
        "type": layer.dtype,
        "channels": len(statistics.count),
        "dead": int((statistics.dead & (statistics.count > 0)).sum()),
        "mean": _short(mean),
        "std": _short(math.sqrt(variance)),
        "min": _short(low),
        "max": _short(high),
        "zeros": _short(statistics.zeros.sum() / total) if total else None,
        "nan": int(statistics.nan.sum()),
        "infinite": int(statistics.infinite.sum()),
        "histogram": _histogram(statistics),
        "each": _channels(layer, plan),
        "low": [_short(layer.scale(int(channel)).low) for channel in layer.channels],
        "high": [_short(layer.scale(int(channel)).high) for channel in layer.channels],
        "is_sequence": len(layer.shape) == 2,
        "maps": _packed(layer.maps),
        "maps_of_rows": _packed(layer.maps_of_rows),
    }


def _histogram(statistics: LayerStatistics) -> dict[str, Any]:
    """Counts in equal steps from the least to the largest value, zeros left out where others are there."""
    zeros, others = int(statistics.zeros.sum()), statistics.histogram.copy()
    others[0] -= zeros  # this bin also has what is all but 0
    without = bool(zeros) and bool(others.any())
    shown = dataclasses.replace(statistics, histogram=others) if without else statistics
    counts = linear_histogram(shown, BINS)
    return {"counts": [_short(count) for count in counts.tolist()], "without_zeros": without}


def _channels(layer: LayerSurvey, plan: Plan) -> dict[str, list[Any]]:
    """A list for each thing that is told, a place in it for each channel that is shown."""
    statistics, shown = layer.statistics, layer.channels
    dead = statistics.dead & (statistics.count > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        zeros = statistics.zeros / statistics.count
    rows = layer.strongest.rows[: plan.top, shown].T
    values = layer.strongest.values[: plan.top, shown].T
    return {
        "number": shown.tolist(),
        "mean": _shorts(statistics.mean[shown]),
        "std": _shorts(np.sqrt(statistics.variance[shown])),
        "min": _shorts(statistics.minimum[shown]),
        "max": _shorts(statistics.maximum[shown]),
        "zeros": _shorts(zeros[shown]),
        "dead": np.flatnonzero(dead[shown]).tolist(),
        "rows": [[] if dead[channel] else _known(found) for channel, found in zip(shown, rows, strict=True)],
        "values": [
            [] if dead[channel] else _shorts(found[: len(_known(of))])
            for channel, found, of in zip(shown, values, rows, strict=True)
        ],
    }


def _known(rows: Array) -> list[int]:
    return [int(row) for row in rows if row >= 0]


def _packed(maps: Maps | None) -> dict[str, Any] | None:
    if maps is None:
        return None
    height, width = maps.size
    return {"height": height, "width": width, "top": maps.values.shape[1], "packed": maps.packed}


def image_records(
    reader: Reader,
    rows: Sequence[int],
    layers: Sequence[LayerSurvey],
    probabilities: LayerSurvey | None,
    thumbnails: Mapping[int, Thumbnail],
    faults: Mapping[int, str],
) -> list[dict[str, Any]]:
    """The rows that are listed, in order.

    Args:
        reader: The output.
        rows: Their numbers.
        layers: What is known of the layers.
        probabilities: The layer that says the classes.
        thumbnails: Row -> its picture.
        faults: Row -> why there is no picture, or what is wrong with it.
    """
    fields = reader.fields
    found = []
    for row in rows:
        record: dict[str, Any] = {"row": row, "name": escape(reader.paths[row])}
        if reader.status[row] != "ok":
            record["failed"] = _text(reader.error[row]) or "no reason is recorded"
        else:
            record["strong"] = [_pairs(layer.of_rows.get(row, ())) for layer in layers]
            if probabilities is not None:
                record["classes"] = _pairs(probabilities.of_rows[row])
        if row in thumbnails:
            picture = thumbnails[row]
            record["picture"] = [picture.url, picture.width, picture.height]
        if row in faults:
            record["fault"] = _text(faults[row])
        if fields is not None and fields[row]:
            record["fields"] = [[_text(name), _text(value)] for name, value in fields[row].items()]
        found.append(record)
    return found


def palettes() -> dict[str, str]:
    """The colours of amounts and of signed values, 256 times red, green and blue, in base64."""
    steps = np.linspace(0, 1, STEPS)
    tables = {"amounts": amounts(steps), "signed": signed(2 * steps - 1)}
    return {name: base64.b64encode(table.tobytes()).decode("ascii") for name, table in tables.items()}


def probabilities_of(layers: Sequence[LayerSurvey]) -> LayerSurvey | None:
    """The last layer whose rows are probabilities."""
    return next((layer for layer in reversed(layers) if layer.is_probabilities), None)


def _pairs(found: Sequence[tuple[int, float]]) -> list[Any]:
    """Numbers and values, one after the other."""
    return [part for channel, value in found[:STRONGEST] for part in (channel, _short(value))]


def _text(value: object) -> str:
    text = escape(str(value))
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _shorts(values: Array) -> list[float | int | None]:
    return [_short(value) for value in values.tolist()]


def _short(value: float) -> float | int | None:
    """Five digits; None where there is no number."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
