"""Every way in which images may have been prepared, tried on the layers that remember how they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.diagnosis.divergence import Moments, joined, moments
from layerprobe.diagnosis.sampling import Look, SampledSource, pictures
from layerprobe.errors import UsageError
from layerprobe.images.preprocess import (
    FILTERS,
    ORDERS,
    PRESETS,
    normalise,
    parse_preprocess,
    preprocess_text,
)
from layerprobe.records import Failure, Preprocessing, TensorSpec
from layerprobe.run.plan import channels_first

if TYPE_CHECKING:
    from layerprobe.diagnosis.norms import StoredNorm
    from layerprobe.protocols import Engine, LoadedModel
    from layerprobe.records import Array

BATCH = 8
"""Images at once, where the model leaves that open."""


CENTRED = "127.5/255"
"""-0.5 to 0.5: no preset, but as common as some that are."""


def presets(like: Preprocessing) -> list[Preprocessing]:
    """Every preset in both orders of colour that fits the model's channels; all else as in `like`."""
    found: dict[str, Preprocessing] = {}
    for name in (*PRESETS, CENTRED):
        for order in ("", *(f"{order}:" for order in ORDERS)):
            try:
                how = parse_preprocess(order + name, size=like.size, channels=like.channels)
            except UsageError:
                continue  # It is for colour images, and these are grey.
            found.setdefault(preprocess_text(how), with_numbers(like, how))
    return list(found.values())


def with_numbers(like: Preprocessing, numbers: Preprocessing) -> Preprocessing:
    """`like`, but for the preset of `numbers`."""
    names = ("preset", "scale", "mean", "std", "channel_order")
    return dataclasses.replace(like, **{name: getattr(numbers, name) for name in names})


def ways_to_resize(like: Preprocessing, crops: bool) -> list[Preprocessing]:
    """Every filter, and with `crops` also cut to the model's proportions; all else as in `like`."""
    return [
        dataclasses.replace(like, resize=name, crop=crop)
        for crop in (("none", "center") if crops else (like.crop,))
        for name in sorted(FILTERS, key=lambda name: (name != like.resize, name))
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """What arrived at the layers, for each way to prepare the images."""

    ways: Sequence[Preprocessing]
    found: Sequence[Mapping[str, Moments]]
    """For each way: by the layer's address."""
    looks: Sequence[Look]
    """Of the images that could be read."""
    failures: Sequence[Failure]

    def of(self, way: Preprocessing) -> Mapping[str, Moments] | None:
        """What arrived for a way with these numbers; None where it was not tried."""
        texts = map(preprocess_text, self.ways)
        wanted = preprocess_text(way)
        return next((found for found, text in zip(self.found, texts, strict=True) if text == wanted), None)


class Trials:
    """A model, cut off at the layers that remember, ready to run.

    Args:
        probed: The model, of which `in:` of each layer is wanted; None: images are only looked at.
        norms: The layers.
        like: The size of the images.
        workers: Threads that decode.
        max_pixels: Larger images are refused; None for the decoder's own limit.

    Raises:
        LayerprobeError: No engine runs it.
    """

    def __init__(
        self,
        probed: LoadedModel | None,
        norms: Sequence[StoredNorm],
        like: Preprocessing,
        workers: int,
        max_pixels: int | None = None,
    ) -> None:
        self._workers, self._max_pixels = workers, max_pixels
        self._axes = {norm.address: norm.axis for norm in norms}
        self._size = BATCH
        self._engine: Engine | None = None
        if probed is None:
            return
        self._first = channels_first(probed.inputs[0])
        height, width = like.size
        shape = (like.channels, height, width) if self._first else (height, width, like.channels)
        self._specs = [TensorSpec(spec.name, shape, spec.dtype) for spec in probed.inputs]
        self._size = probed.fixed_batch_size or BATCH
        self._engine = probed.engine(self._specs, batch_size=self._size)

    def run(self, source: SampledSource, ways: Sequence[Preprocessing]) -> Tried:
        """Prepare the images of a sample in every way, and see what arrives at the layers."""
        parts: list[dict[str, list[Moments]]] = [{} for _ in ways]
        looks: list[Look] = []
        failures: list[Failure] = []
        taken = pictures(source, ways, self._size, self._workers, self._max_pixels)
        with closing(taken):
            for some in taken:
                looks += some.looks
                failures += some.failures
                if self._engine is None or not some.looks:
                    continue
                for way, kept in zip(ways, parts, strict=True):
                    arrived = self._arrived(self._engine, some.pixels[way.resize, way.crop], way)
                    for address, one in arrived.items():
                        kept.setdefault(address, []).append(one)
        found = [{address: joined(kept) for address, kept in each.items()} for each in parts]
        return Tried(ways, found, looks, failures)

    def _arrived(self, engine: Engine, pixels: Array, how: Preprocessing) -> dict[str, Moments]:
        rows = np.stack([normalise(one, how) for one in pixels])
        if self._first:
            rows = np.moveaxis(rows, 3, 1)
        # A model that compares images has several inputs; all of them are given the same ones.
        results = engine.run([rows.astype(spec.dtype, copy=False) for spec in self._specs])
        calls: dict[str, list[Moments]] = {}
        for spec in engine.outputs:
            arrived = moments(results[spec.name], self._axes[spec.layer])
            calls.setdefault(spec.layer, []).append(arrived)
        return {address: _mean(several) for address, several in calls.items()}


def _mean(calls: Sequence[Moments]) -> Moments:
    """Of all calls of a layer together."""
    return Moments(
        np.mean([call.means for call in calls], axis=0), np.mean([call.squares for call in calls], axis=0)
    )
