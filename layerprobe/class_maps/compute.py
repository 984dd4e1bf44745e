"""`cam`: from a model and images, or from saved activations, to maps of classes on the images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from layerprobe.class_maps.classes import Classes
from layerprobe.class_maps.formulas import METHODS
from layerprobe.class_maps.of_model import ModelMaps
from layerprobe.class_maps.of_output import OutputMaps
from layerprobe.class_maps.wanted import Found, MapSource, Wanted
from layerprobe.errors import OutputFormatError, SampleError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.images.pictures import picture
from layerprobe.images.projection import onto_image
from layerprobe.labels import read_labels
from layerprobe.options import MAX_MEMORY, ModelOptions
from layerprobe.records import Failure

if TYPE_CHECKING:
    from types import TracebackType

    from PIL import Image

    from layerprobe.class_maps.measured import Measured
    from layerprobe.records import Array
    from layerprobe.run.request import Inputs


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Where one class is seen on one image."""

    number: int
    name: str
    score: float
    """Before the softmax or sigmoid."""
    probability: float | None
    """None where the model gives none."""
    values: Array
    """(h, w) float32, of the layer's size."""
    on_image: Array
    """(height, width) float32, of the image's size, upright; NaN where the model saw nothing of it."""
    peak: tuple[int, int]
    """(x, y) of the largest value on the image, in pixels."""


@dataclass(frozen=True, slots=True)
class MappedImage:
    """One image and the maps of its classes."""

    key: str
    """What it is called: a path, as it was given."""
    image: Image.Image
    """RGB, upright."""
    maps: tuple[ClassMap, ...]


class ClassMaps:
    """Maps of image after image, gone through once and closed at the end of a `with` block; see `cam`."""

    def __init__(self, source: MapSource, wanted: Wanted, stack: ExitStack) -> None:
        self._source, self._wanted, self._stack = source, wanted, stack
        self.failures: list[Failure] = []
        """Images that were skipped, so far."""

    @property
    def found(self) -> Found:
        """Which layer and method it is, what was assumed, and where the numbers come from."""
        return self._source.found

    @property
    def rows(self) -> int | None:
        """How many images there are; None for a stream."""
        return self._source.rows

    def keys(self) -> Sequence[str]:
        """What the images are called; none of a stream."""
        return self._source.keys()

    def __iter__(self) -> Iterator[MappedImage]:
        for batch in self._source.batches():
            self.failures += batch.failures
            if batch.measured is None:
                continue
            chosen = self._chosen(batch.measured)
            maps = batch.measured.maps(chosen)
            computed = zip(batch.rows, batch.keys, batch.pictures, strict=True)
            for place, (row, key, data) in enumerate(computed):
                try:
                    assert data is not None, "a row that was computed was read"
                    image = picture(data, self.found.preprocessing, self.found.max_pixels)
                except SampleError as error:
                    self.failures.append(Failure(row, key, "decode", str(error)))
                    continue
                found = [
                    self._map(batch.measured, place, int(number), values, image.size)
                    for number, values in zip(chosen[place], maps[place], strict=True)
                ]
                yield MappedImage(key, image, tuple(found))

    def _chosen(self, measured: Measured) -> Array:
        """(B, n) numbers of the classes whose maps are wanted, of each row."""
        rows, count = measured.scores.shape
        names = self._wanted.names
        names.check(count)
        if self._wanted.classes:
            numbers = [names.number(text, count) for text in self._wanted.classes]
            return np.broadcast_to(np.array(list(dict.fromkeys(numbers))), (rows, len(set(numbers))))
        order = np.argsort(-measured.scores, axis=1, kind="stable")
        return np.asarray(order[:, : min(self._wanted.top, count)])

    def _map(
        self, measured: Measured, row: int, number: int, values: Array, size: tuple[int, int]
    ) -> ClassMap:
        on_image = onto_image(values, size, self.found.preprocessing)
        down, across = np.unravel_index(np.argmax(np.nan_to_num(on_image, nan=-np.inf)), on_image.shape)
        probability = None if measured.probabilities is None else float(measured.probabilities[row, number])
        return ClassMap(
            number,
            self._wanted.names.name(number),
            float(measured.scores[row, number]),
            probability,
            np.asarray(values, np.float32),
            on_image,
            (int(across), int(down)),
        )

    def close(self) -> None:
        """Release files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cam(
    source: str | os.PathLike[str] | Any,
    inputs: Inputs | Mapping[str, Inputs] = (),
    *,
    layer: str | None = None,
    classes: Sequence[str | int] = (),
    top: int = 1,
    method: str = "auto",
    output_layer: str | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    model: str | None = None,
    rows: Sequence[int] = (),
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
    **options: Any,
) -> ClassMaps:
    """Find where on images a network sees a class: CAM, Grad-CAM, Grad-CAM++ or Layer-CAM.

    ::

        with layerprobe.cam("model.h5", ["photo.jpg"], layer="conv5_3") as maps:
            for found in maps:
                print(found.key, found.maps[0].name, found.maps[0].peak)

    Scores and gradients are those before the last softmax or sigmoid. With one sigmoid unit there are two
    classes: 1, and 0 whose score is its negative.

    Args:
        source: A model, where there are inputs; else an output of `extract` that holds the layer.
        inputs: As for `extract`.
        layer: Its address; None: the last that gives feature maps.
        classes: Numbers and names of classes; empty: those of the highest scores.
        top: So many, where no classes are named.
        method: "cam", "gradcam", "gradcam++", "layercam", or "auto": cam where that is exact, else gradcam.
        output_layer: What gives the scores: an address; None: the model's output.
        labels: Names of classes: a file, see `labels.read_labels`, or a list.
        model: Of an output: the model's path, where that is another one now.
        rows: Of an output: which, negative ones from the end; empty: all.
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.
        options: Of `extract`, for a model.

    Raises:
        UsageError: There is no such class or method, or CAM was asked for where it is not exact.
        LayerprobeError: As `extract` and `open`.
    """
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}. Received: {method!r}")
    if isinstance(classes, str | int):
        raise UsageError(f"classes must be a list, such as [{classes!r}]. Received: {classes!r}")
    if top < 1:
        raise UsageError(f"top must be 1 or more. Received: {top}")
    names = read_labels(labels) if isinstance(labels, str | os.PathLike) else labels or ()
    wanted = Wanted(layer, method, output_layer, tuple(classes), top, Classes(names))
    needs = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    with ExitStack() as stack:
        found: MapSource
        if not isinstance(inputs, Sequence | Mapping) or inputs:
            if model is not None or rows:
                name = "rows are" if rows else "another model is"
                raise UsageError(f"{name} for outputs: with a model, give the images that you want to see.")
            found = ModelMaps(source, inputs, wanted, needs, options)
        else:
            reader = stack.enter_context(_opened(source))
            found = OutputMaps(reader, wanted, model, needs, rows)
        stack.callback(found.close)
        return ClassMaps(found, wanted, stack.pop_all())


def _opened(source: Any) -> Any:
    try:
        return open_output(source)
    except OutputFormatError as error:
        raise OutputFormatError(f"{error} For maps of a model, give images too.") from error
