"""Maps straight from a model and inputs: the network is run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from layerprobe.class_maps.head import Head, NotLinear, find_head
from layerprobe.class_maps.kept_inputs import KeptInputs
from layerprobe.class_maps.measured import ByGradients, Exact, Measured
from layerprobe.class_maps.walk import Scores, find_scores
from layerprobe.class_maps.wanted import (
    Found,
    MeasuredBatch,
    Wanted,
    check_maps,
    check_scores,
    default_layer,
    one_tap,
)
from layerprobe.diagnosis.evidence import with_evidence
from layerprobe.engines.cache import user_cache
from layerprobe.errors import UsageError
from layerprobe.images.presets import ASKED
from layerprobe.layer_listing import layers as list_layers
from layerprobe.modelfile.listing import describe_file
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.modelfile.select import select
from layerprobe.options import ModelOptions
from layerprobe.run.batches import batches, worker_threads
from layerprobe.run.clock import Clock
from layerprobe.run.feeds import Feeds
from layerprobe.run.package_versions import versions
from layerprobe.run.plan import takes_images
from layerprobe.run.preparing import prepare_run
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.request import find_feeds, open_sources, read_options

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.records import Batch
    from layerprobe.run.request import Inputs

BATCH = 8
"""Rows that are differentiated at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    """How the maps come about."""

    probed: ProbedModel
    feeds: Feeds
    method: str
    output: str
    engine: Mapping[str, Any]
    batches: Iterator[MeasuredBatch]


class ModelMaps:
    """Decides how maps are made when it is made, and computes them batch by batch; see `MapSource`.

    Args:
        model: Path of a saved model, or a Keras model.
        inputs: As for `extract`.
        wanted: The maps.
        needs: What the model's file needs beside itself.
        options: Of `extract`.

    Raises:
        UsageError: They cannot be made of this model.
        LayerprobeError: As `extract`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Any,
        inputs: Inputs | Mapping[str, Inputs],
        wanted: Wanted,
        needs: ModelOptions,
        options: Mapping[str, Any],
    ) -> None:
        self._model, self._needs, self._wanted = model, needs, wanted
        self._output_text = wanted.output or "output"
        self._how, self._clock = read_options(options), Clock()
        self._sources = open_sources(inputs, self._how.limit)
        self._scores = self._find_scores()
        self._layer = wanted.layer or self._default_layer()
        exact = self._exact() if wanted.method in ("auto", "cam") else "another method was asked for"
        if isinstance(exact, str) and wanted.method == "cam":
            raise UsageError(f"CAM is not exact for {self._layer!r}: {exact}; take --method gradcam.")
        self._way = self._by_gradients() if isinstance(exact, str) else self._by_values(exact)
        self.found = self._describe(exact)

    @property
    def rows(self) -> int | None:
        """See `MapSource`."""
        return self._way.feeds.rows

    def keys(self) -> Sequence[str]:
        """See `MapSource`."""
        return [] if self.rows is None else self._way.feeds.keys()

    def close(self) -> None:
        """See `MapSource`."""
        self._way.probed.close()

    def batches(self) -> Iterator[MeasuredBatch]:
        """See `MapSource`."""
        return self._way.batches

    def _probe(self, texts: Sequence[str], engine: str) -> ProbedModel:
        cache = user_cache() if self._how.cache else None
        return ProbedModel(self._model, texts, self._needs, engine, self._how.device, cache)

    def _find_scores(self) -> Scores | None:
        """Where the scores come from; None where no file lists the layers."""
        if not isinstance(self._model, str | os.PathLike):
            return None
        with ModelFile(os.fspath(self._model), self._needs) as file:
            return scores_of(file, self._output_text)

    def _default_layer(self) -> str:
        if not isinstance(self._model, str | os.PathLike):
            raise UsageError("name the layer: that of a live model is not looked for.")
        needs = self._needs
        listed = list_layers(
            self._model,
            shapes=True,
            custom_objects=needs.custom_objects,
            weights=needs.weights,
            lambdas=needs.lambdas,
            max_memory=needs.max_memory,
        )
        return default_layer(listed, None if self._scores is None else self._scores.place.address)

    def _exact(self) -> Head | str:
        """What makes scores of the layer's values, or why nothing linear does."""
        if self._scores is None:
            return "no file lists the layers behind it"
        with closing(self._probe([self._layer], self._how.engine)) as probed:
            assert probed.file is not None
            tap = one_tap(probed.taps, probed.info.layers)
            feeds = find_feeds(probed, self._needed(probed), self._how, self._clock)
            (spec,) = probed.outline(feeds.specs, batch_size=1).outputs
            check_maps(self._layer, spec.shape)
            try:
                return find_head(self._scores, tap, probed.file.weights, spec)
            except NotLinear as reason:
                return str(reason)

    def _needed(self, probed: ProbedModel) -> dict[str, Source]:
        """The sources, without those for inputs that only the rest of the model takes."""
        taken = {spec.name for spec in probed.inputs}
        others = {spec.name for spec in probed.info.inputs} - taken
        return {name: source for name, source in self._sources.items() if name not in others}

    def _kept(self, probed: ProbedModel) -> tuple[dict[str, Source], KeptInputs]:
        """The sources that are needed, with the one that is drawn on kept."""
        sources = self._needed(probed)
        shapes = {spec.name: spec for spec in probed.inputs}
        # In the model's order: rows are called after the first images, and prepared as they are.
        names = [name for name in shapes if name in sources] or list(sources)
        images = [name for name in names if sources[name].kind == "images"]
        shaped = [name for name in names if name in shapes and takes_images(shapes[name])]
        drawn = [*images, *shaped, *names][0]
        kept = KeptInputs(sources[drawn])
        return {**sources, drawn: kept}, kept

    def _by_values(self, head: Head) -> _Way:
        """CAM: the model is run up to the layer, by any engine."""
        probed = self._probe([self._layer], self._how.engine)
        self._how = with_evidence(probed, self._sources, self._how)
        sources, kept = self._kept(probed)
        run = prepare_run(probed, sources, self._how, self._clock)
        (spec,) = run.engine.outputs

        def measured() -> Iterator[MeasuredBatch]:
            with closing(run.computed()) as computed:
                for batch, results in computed:
                    found = Exact(head, results[spec.name], spec.channel_axis) if batch.rows else None
                    yield _measured_batch(batch, kept, found)

        assert self._scores is not None
        return _Way(probed, run.feeds, "cam", self._scores.tap.name, run.engine.describe(), measured())

    def _by_gradients(self) -> _Way:
        """The other methods: Keras runs and differentiates the model."""
        if self._how.engine not in ("auto", "keras"):
            raise UsageError(f"gradients are Keras's: leave --engine {self._how.engine} out.")
        method = "gradcam" if self._wanted.method == "auto" else self._wanted.method
        scores = self._scores
        output = self._output_text if scores is None else scores.tap.name
        probed = self._probe([self._layer, output], "keras")
        one_tap(select([self._layer], probed.info.layers), probed.info.layers)
        self._how = with_evidence(probed, self._sources, self._how)
        sources, kept = self._kept(probed)
        feeds = find_feeds(probed, sources, self._how, self._clock)
        traced = probed.gradients([output], [self._layer], feeds.specs, before_activation=scores is None)
        output, shape = _only("the scores are", "with --output-layer", traced.shapes.items())
        layer = ((spec.name, spec) for spec in traced.layers)
        _, spec = _only("maps are of", "with --layer", layer)
        check_maps(self._layer, spec.shape)
        check_scores(output, shape)
        asked = self._how.batch_size if isinstance(self._how.batch_size, int) else BATCH
        size = probed.fixed_batch_size or asked
        activation = None if scores is None else scores.activation

        def measured() -> Iterator[MeasuredBatch]:
            with closing(batches(feeds, size, worker_threads(self._how, feeds))) as taken:
                for batch in taken:
                    found = (
                        ByGradients(method, traced, batch.inputs, activation, spec.channel_axis)
                        if batch.rows
                        else None
                    )
                    yield _measured_batch(batch, kept, found)

        engine = {"name": "keras", "backend": "tensorflow"}
        return _Way(probed, feeds, method, output, engine, measured())

    def _describe(self, exact: Head | str) -> Found:
        way = self._way
        notes = [] if self._wanted.layer else [f"layer {self._layer}: the last with feature maps"]
        if self._wanted.method == "auto":
            why = f"CAM is not exact here ({exact})" if isinstance(exact, str) else "it is exact here"
            notes.append(f"method {way.method}: {why}")
        if way.probed.note is not None and way.method == "cam":
            notes.append(way.probed.note)
        how = way.feeds.preprocessing
        if how is not None and how.reason != ASKED:
            notes.append(f"preprocess {how.preset}: {how.reason}")
        return Found(
            layer=self._layer,
            method=way.method,
            output=way.output,
            preprocessing=how,
            max_pixels=self._how.max_pixels,
            notes=tuple(notes),
            provenance={
                "model": way.probed.provenance(),
                "preprocessing": None if how is None else dataclasses.asdict(how),
                "engine": dict(way.engine),
                "versions": versions(way.engine),
            },
        )


def scores_of(file: ModelFile, output: str) -> Scores | None:
    """Where the scores of a model come from; None where its file does not list its layers.

    Args:
        file: The model.
        output: An address, as the user writes it.

    Raises:
        UsageError: It means no tensor, or several.
    """
    if not file.graph.layers:
        return None
    listed = describe_file(file).layers
    return find_scores(file.graph, one_tap(select([output], listed), listed))


def _only(what: str, how: str, tensors: Iterable[tuple[str, Any]]) -> tuple[str, Any]:
    """The one tensor that was recorded, by name; raises UsageError where there are several."""
    found = dict(tensors)
    if len(found) > 1:
        names = ", ".join(list(found)[:6])
        raise UsageError(f"{what} one tensor, and {len(found)} were recorded: name one of {names} {how}.")
    ((name, tensor),) = found.items()
    return name, tensor


def _measured_batch(batch: Batch, kept: KeptInputs, found: Measured | None) -> MeasuredBatch:
    for failure in batch.failures:
        kept.take(failure.index)
    return MeasuredBatch(
        rows=[batch.start + row for row in batch.rows],
        keys=[batch.keys[row] for row in batch.rows],
        pictures=[kept.take(batch.start + row) for row in batch.rows],
        measured=found,
        failures=batch.failures,
    )
