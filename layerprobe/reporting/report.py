"""`layerprobe.report`: one HTML file about an output."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.errors import NoInputError, UsageError
from layerprobe.escaping import escape
from layerprobe.formats.disk import amount
from layerprobe.formats.opening import open_output
from layerprobe.formats.placement import check_target
from layerprobe.formats.reading import check_names
from layerprobe.labels import read_labels
from layerprobe.reporting.budget import (
    Plan,
    by_importance,
    most_rows,
    plan_channels,
    plan_row_maps,
    rows_to_list,
)
from layerprobe.reporting.origin import read_origin
from layerprobe.reporting.originals import Originals
from layerprobe.reporting.record import (
    image_records,
    layer_record,
    palettes,
    probabilities_of,
)
from layerprobe.reporting.survey import STRONGEST, LayerSurvey, survey_layer, survey_rows
from layerprobe.reporting.template import as_script_data, fill_page
from layerprobe.reporting.thumbnails import make_thumbnails
from layerprobe.version import __version__
from layerprobe.views.saving import save_bytes

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.reporting.thumbnails import Thumbnail

MAX_SIZE = 10 << 20
"""Bytes of the page, unless more are allowed."""
MOST_TOP = 64
_ROOM_TO_SPARE = 2_000
"""Bytes for what is not known before the pictures are made, such as notes."""
_ROW_BYTES = 200
"""Of a row's classes, or of why it has no picture."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report shows; every field is an option of the command line."""

    layers: Sequence[str] = ()
    """Only these; empty: all."""
    top: int = 8
    """So many images for each channel."""
    limit: int | None = None
    """Only the first so many rows."""
    images: str | os.PathLike[str] = ""
    """A folder in which to look for the images; "" where they were."""
    labels: str | os.PathLike[str] = ""
    """A file with the names of the classes."""
    max_size: int = MAX_SIZE
    """Bytes that the file may have."""
    overwrite: bool = False
    """Replace an existing file."""


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What was written."""

    path: str
    size: int
    """Bytes."""
    rows: int
    failed: int
    layers: int
    pictures: int
    notes: tuple[str, ...]
    """What is not shown, and why."""


def report(
    output: str | os.PathLike[str],
    path: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> ReportSummary:
    """Write one HTML file about what `extract` wrote: layers, channels, images, and where it all comes from.

    The file needs nothing beside itself. It is complete, or not there.

    Args:
        output: What `extract` wrote, in any format.
        path: Of the page, `x.html`.
        progress: Called with rows done, over all layers, and rows in all.
        options: Fields of `ReportOptions`.

    Raises:
        UsageError: An option cannot be meant.
        UnknownLayerError: The output has no such layer.
        OutputFormatError: The output is damaged, or none.
        OutputError: The page cannot be created there.
        WriteError: The disk is full, or fails.
    """
    how, path = _read_options(options), os.fspath(path)
    if not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"{path!r}: a report is an HTML file: give -o a name that ends with .html.")
    check_target(path, "html", how.overwrite)
    names = read_labels(how.labels) if how.labels else None
    with open_output(output) as reader:
        data, summary = _Report(reader, how, names, progress).made()
    page = fill_page(f"{data['title']} · layerprobe", data)
    if len(page) > how.max_size:
        raise UsageError(
            f"the page takes {amount(len(page))}, and {amount(how.max_size)} are allowed: "
            "give --max-size, or fewer layers with --layer."
        )
    save_bytes(page, path)
    return dataclasses.replace(summary, path=path, size=len(page))


def _read_options(options: Mapping[str, Any]) -> ReportOptions:
    known = [field.name for field in dataclasses.fields(ReportOptions)]
    for name in options:
        if name not in known:
            raise UsageError(f"a report has no option {name!r}: expected one of {', '.join(known)}.")
    how = ReportOptions(**options)
    check_names(how.layers)
    if not 1 <= how.top <= MOST_TOP:
        raise UsageError(f"--top is 1 to {MOST_TOP} images for each channel. Received: {how.top}")
    if how.limit is not None and how.limit < 1:
        raise UsageError(f"--limit is 1 or more. Received: {how.limit}")
    if how.images and not os.path.isdir(how.images):
        raise NoInputError(f"there is no folder {os.fspath(how.images)!r} with images.")
    return how


class _Report:
    """One report on its way: each step needs what the one before found."""

    def __init__(
        self,
        reader: Reader,
        how: ReportOptions,
        names: list[str] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._reader, self._how, self._names = reader, how, names
        self._origin = read_origin(reader)
        self._notes: list[str] = []
        self._rows = min(len(reader.paths), how.limit or len(reader.paths))
        if self._rows < len(reader.paths):
            self._notes.append(f"Only the first {self._rows:,} of {len(reader.paths):,} rows are counted.")
        self._chosen = self._choose()
        self._good = np.array([status == "ok" for status in reader.status[: self._rows]], bool)
        self._progress = progress
        self._done = 0
        self._listed = min(self._rows, most_rows(len(self._chosen), how.max_size))

    def made(self) -> tuple[dict[str, Any], ReportSummary]:
        """Find out everything that the page shows."""
        reader, how = self._reader, self._how
        layers = [
            survey_layer(reader, name, self._origin, self._good, how.top, self._step) for name in self._chosen
        ]
        plan = plan_channels(layers, how.top, how.max_size)
        self._note_plan(layers, plan)
        probabilities = probabilities_of(layers)
        self._check_labels(probabilities)
        order = by_importance(layers, plan, self._good)
        listed = rows_to_list(order, self._good, self._listed)
        if len(listed) < self._rows:
            self._notes.append(
                f"{len(listed):,} of {self._rows:,} images are listed: those that failed or excite a channel "
                "most, then the first ones."
            )
        good = [row for row in listed if self._good[row]]
        kept = set(good)
        row_side = plan_row_maps(layers, len(good), STRONGEST, how.max_size)
        for layer in layers:
            survey_rows(reader, layer, good, plan, row_side, self._step)
        failed = int((~self._good).sum())
        data: dict[str, Any] = {
            "title": escape(os.path.basename(os.path.abspath(reader.path))),
            "made": f"layerprobe {__version__}",
            "rows": self._rows,
            "failed": failed,
            "provenance": [[name, escape(text)] for name, text in self._origin.lines],
            "palettes": palettes(),
            "layers": [layer_record(layer, plan) for layer in layers],
            "classes": self._classes(layers, probabilities),
        }
        thumbnails, faults = self._thumbnails(layers, [row for row in order if row in kept], data)
        data["images"] = image_records(reader, listed, layers, probabilities, thumbnails, faults)
        data["notes"] = [escape(note) for note in self._notes]
        summary = ReportSummary("", 0, self._rows, failed, len(layers), len(thumbnails), tuple(self._notes))
        return data, summary

    def _step(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None:
            total = self._rows * len(self._chosen) + self._listed * (len(self._chosen) + 1)
            self._progress(min(self._done, total), total)

    def _choose(self) -> list[str]:
        """The layers that are shown: of those that were not asked for by name, the ones with real numbers."""
        chosen = []
        for name in self._how.layers or list(self._reader):
            if self._reader[name].dtype.kind in "biuf":
                chosen.append(name)
            elif self._how.layers:
                raise UsageError(f"layer {name!r} holds complex numbers, which have no order: leave it out.")
            else:
                self._notes.append(f"{name} is left out: its complex numbers have no order.")
        if not chosen:
            raise UsageError(f"{self._reader.path!r} holds no layer of real numbers.")
        return list(dict.fromkeys(chosen))

    def _note_plan(self, layers: Sequence[LayerSurvey], plan: Plan) -> None:
        top = min(self._how.top, self._rows)
        if plan.top < top:
            self._notes.append(f"{plan.top} instead of {top} images are shown for each channel, for size.")
        if not plan.side and any(len(layer.shape) in (2, 3) for layer in layers):
            self._notes.append("Maps are left out, for size.")
        for layer in layers:
            count = len(layer.statistics.count)
            if len(layer.channels) < count:
                self._notes.append(
                    f"{layer.name}: {len(layer.channels):,} of {count:,} channels are shown, those with the "
                    "largest values."
                )

    def _check_labels(self, probabilities: LayerSurvey | None) -> None:
        if self._names is None:
            return
        if probabilities is None:
            raise UsageError(
                f"labels {os.fspath(self._how.labels)!r} need a layer of probabilities, such as a softmax: "
                f"{self._reader.path!r} has none. Extract the model's output too, or leave --labels out."
            )
        if len(self._names) != probabilities.shape[0]:
            raise UsageError(
                f"labels {os.fspath(self._how.labels)!r} has {len(self._names)} names, and layer "
                f"{probabilities.name!r} has {probabilities.shape[0]} classes."
            )

    def _classes(
        self, layers: Sequence[LayerSurvey], probabilities: LayerSurvey | None
    ) -> dict[str, Any] | None:
        if probabilities is None:
            return None
        names = self._names or [str(number) for number in range(probabilities.shape[0])]
        return {"layer": layers.index(probabilities), "names": [escape(name) for name in names]}

    def _thumbnails(
        self, layers: Sequence[LayerSurvey], order: Sequence[int], data: Mapping[str, Any]
    ) -> tuple[dict[int, Thumbnail], dict[int, str]]:
        """As many as there is room for beside everything else."""
        reader = self._reader
        how = self._origin.preprocessing
        if how is None:
            self._notes.append("The rows come from arrays, not from image files: there are no pictures.")
            return {}, {}
        rows = image_records(reader, order, layers, None, {}, {})
        taken = len(as_script_data(data)) + len(as_script_data({"rows": rows}))
        taken += len(fill_page("", {})) + _ROOM_TO_SPARE + _ROW_BYTES * len(order)
        room = self._how.max_size - taken
        keys = {row: reader.paths[row] for row in order}
        originals = Originals(
            os.path.dirname(os.path.abspath(reader.path)),
            os.fspath(self._how.images),
            self._origin.started,
        )
        found, faults = make_thumbnails(
            keys, originals, how, max(0, room), self._origin.max_pixels, self._step
        )
        changed = {row: "changed since it was computed" for row in found if originals.has_changed(keys[row])}
        self._note_pictures(len(order), len(found), len(faults), len(changed))
        return found, faults | changed

    def _note_pictures(self, images: int, found: int, faults: int, changed: int) -> None:
        if found < images - faults:
            self._notes.append(f"{found:,} of {images - faults:,} images have a picture, for size.")
        if faults:
            self._notes.append(
                f"{faults:,} image{'s' * (faults != 1)} cannot be read any more: "
                "--images DIR finds those that moved."
            )
        if changed:
            self._notes.append(
                f"{changed:,} image{'s' * (changed != 1)} changed since: pictures are of what is there now."
            )
