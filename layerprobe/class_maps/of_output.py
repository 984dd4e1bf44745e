"""Maps of activations that `extract` wrote: no network is run, and the weights behind are read as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.class_maps.head import Head, NotLinear, find_head
from layerprobe.class_maps.measured import Exact
from layerprobe.class_maps.of_model import scores_of
from layerprobe.class_maps.wanted import Found, MeasuredBatch, Wanted, check_maps, one_tap
from layerprobe.errors import ModelError, OutputFormatError, SampleError, UsageError
from layerprobe.modelfile.listing import describe_file
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.modelfile.select import select
from layerprobe.options import ModelOptions
from layerprobe.records import Failure, Preprocessing, TensorSpec
from layerprobe.run.package_versions import versions
from layerprobe.run.recorded import recorded_images
from layerprobe.stores.urls import located

if TYPE_CHECKING:
    from layerprobe.protocols import Reader

BATCH = 32
"""Rows that are read at once."""


class OutputMaps:
    """Decides how maps are made when it is made; see `MapSource`.

    Args:
        reader: The output; its images are where they were when it was written.
        wanted: The maps.
        model: Path of the model; None: where it was then.
        needs: What the model's file needs beside itself.
        rows: Which rows, negative ones from the end; empty: all.

    Raises:
        UsageError: CAM is not exact for the layer, so that the network would have to be run.
        ModelError: The model is another one.
        OutputFormatError: The output does not say what it is of.
    """

    def __init__(
        self, reader: Reader, wanted: Wanted, model: str | None, needs: ModelOptions, rows: Sequence[int]
    ) -> None:
        if wanted.method not in ("auto", "cam"):
            raise UsageError(f"{wanted.method} needs the network: give the model and the images.")
        self._reader = reader
        count = len(reader.paths)
        for row in rows:
            if not -count <= row < count:
                raise UsageError(f"row {row}: {reader.path!r} has rows 0 to {count - 1}.")
        self._rows = [row % count for row in rows] or list(range(count))
        layer = wanted.layer or _only_maps(reader)
        self._spec = _spec_of(reader, layer)
        check_maps(layer, self._spec.shape)
        recorded = reader.provenance.get("preprocessing")
        if recorded is None:
            raise UsageError(f"{reader.path!r} is of arrays: give the model and the arrays.")
        how = _preprocessing(recorded)
        self._head, output, described = _head(reader, wanted, self._spec, model, needs)
        notes = [] if wanted.layer else [f"layer {layer}: the one with feature maps in {reader.path}"]
        if wanted.method == "auto":
            notes.append("method cam: it is exact here")
        self.found = Found(
            layer=layer,
            method="cam",
            output=output,
            preprocessing=how,
            max_pixels=reader.provenance.get("options", {}).get("max_pixels"),
            notes=tuple(notes),
            provenance={
                "model": described,
                "preprocessing": dataclasses.asdict(how),
                "engine": reader.provenance.get("engine", {}),
                "activations": located(reader.path),
                "versions": versions({"name": "none"}),
            },
        )

    @property
    def rows(self) -> int:
        """See `MapSource`."""
        return len(self._rows)

    def keys(self) -> Sequence[str]:
        """See `MapSource`."""
        return [self._reader.paths[row] for row in self._rows]

    def close(self) -> None:
        """See `MapSource`; the reader is its owner's."""

    def batches(self) -> Iterator[MeasuredBatch]:
        """See `MapSource`."""
        images = recorded_images(self._reader, "give the model and the images")
        status, error = self._reader.status, self._reader.error
        for start in range(0, len(self._rows), BATCH):
            failures, rows, keys, pictures, values = [], [], [], [], []
            for row in self._rows[start : start + BATCH]:
                (sample,) = images.rows(row, row + 1)
                try:
                    if status[row] != "ok":
                        raise SampleError(error[row])
                    pictures.append(sample.read())
                except SampleError as reason:
                    failures.append(Failure(row, sample.key, "read", str(reason)))
                    continue
                rows.append(row)
                keys.append(sample.key)
                values.append(np.asarray(self._reader[self._spec.name][row]))
            measured = Exact(self._head, np.stack(values), self._spec.channel_axis) if values else None
            yield MeasuredBatch(rows, keys, pictures, measured, failures)


def _only_maps(reader: Reader) -> str:
    """The layer of an output that has feature maps."""
    found = [name for name in reader if len(reader[name].shape) == 4]
    if not found:
        raise UsageError(
            f"{reader.path!r} holds no layer with feature maps: extract one without --pool, "
            "or give the model and the images."
        )
    if len(found) > 1:
        listed = ", ".join(map(repr, found[:6])) + (", ..." if len(found) > 6 else "")
        raise UsageError(f"{reader.path!r} holds several layers with feature maps: name one of {listed}.")
    return found[0]


def _spec_of(reader: Reader, layer: str) -> TensorSpec:
    """What a layer of an output is."""
    shape = tuple(reader[layer].shape[1:])
    for record in reader.provenance.get("layers", ()):
        if record.get("name") == layer:
            axis = int(record.get("channel_axis", -1))
            return TensorSpec(layer, shape, "float32", axis, str(record.get("layer", "")))
    raise OutputFormatError(f"{reader.path!r} does not say what {layer!r} is: run extract again.")


def _preprocessing(recorded: dict[str, Any]) -> Preprocessing:
    lists = {name: tuple(value) for name, value in recorded.items() if isinstance(value, list)}
    return Preprocessing(**{**recorded, **lists})


def _head(
    reader: Reader, wanted: Wanted, spec: TensorSpec, model: str | None, needs: ModelOptions
) -> tuple[Head, str, dict[str, Any]]:
    """What makes scores of the layer's values, where they are recorded, and which model says so."""
    recorded = reader.provenance.get("model", {})
    path = model or recorded.get("path")
    if not path:
        raise UsageError(f"{reader.path!r} is of a model in no file: give one with --model.")
    with ModelFile(path, needs) as file:
        if recorded.get("sha256") not in (None, file.archive.sha256()):
            raise ModelError(f"{path!r} is not the model that {reader.path!r} is of: give that with --model.")
        if recorded.get("weights") != file.weights_sha256():
            how = "leave --weights out" if recorded.get("weights") is None else "give those with --weights"
            raise ModelError(f"{reader.path!r} is of other weights: {how}.")
        scores = scores_of(file, wanted.output or "output")
        if scores is None:
            raise UsageError(f"the file of {path!r} does not list its layers: give the model and the images.")
        listed = describe_file(file).layers
        try:
            head = find_head(scores, one_tap(select([spec.name], listed), listed), file.weights, spec)
        except NotLinear as reason:
            raise UsageError(
                f"CAM is not exact for {spec.name!r}: {reason}; give the model and the images for gradcam."
            ) from reason
    return head, scores.tap.name, recorded
