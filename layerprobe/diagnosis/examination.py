"""`doctor`: which preprocessing a model was trained with, and whether anything is wrong."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

from layerprobe.diagnosis import complaints
from layerprobe.diagnosis.activations import Watch, softmax_layers
from layerprobe.diagnosis.comparison import Comparison, Running, compare_presets
from layerprobe.diagnosis.norms import remembered
from layerprobe.diagnosis.ranking import Ranked, command, rank
from layerprobe.diagnosis.sampling import SampledSource
from layerprobe.diagnosis.trials import ways_to_resize
from layerprobe.diagnosis.verdict import FITS, LEAST, judge_resizing
from layerprobe.engines.cache import user_cache
from layerprobe.errors import AllInputsFailedError, UsageError
from layerprobe.images.preprocess import preprocess_text
from layerprobe.images.presets import ASSUMED
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.options import MAX_MEMORY, ExtractOptions, ModelOptions
from layerprobe.records import Failure, Preprocessing, TensorSpec
from layerprobe.run.batches import threads
from layerprobe.run.clock import Clock
from layerprobe.run.lengths import length
from layerprobe.run.plan import choose_preprocessing, takes_images
from layerprobe.run.preparing import prepare_run
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.request import open_sources, read_options
from layerprobe.stores.urls import shown

SAMPLE = 64
"""Images that are looked at where nothing else is asked for."""
PROPORTIONS = 0.02
"""Images whose proportions differ by more from the model's are squashed or cut."""

Evidence = Literal["statistics", "model", "none"]


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `doctor` found."""

    model: str
    listed: int
    """Images that were given."""
    images: int
    """Of these so many were looked at, spread over the list, and could be read."""
    failures: tuple[Failure, ...]
    """Those among the ones looked at that could not; `index` is the place in the list."""
    layers: tuple[str, ...]
    """The BatchNormalization layers whose statistics were compared."""
    presets: tuple[Ranked, ...]
    """Every preset with bilinear resizing, the best first; empty where nothing could be compared."""
    resizing: tuple[Ranked, ...]
    """Every filter, and where it matters crop, with the preset below."""
    evidence: Evidence
    """What `preprocessing` rests on: the statistics of `layers`; the model's own layers, as for
    `--preprocess auto`; or nothing, so that it is only assumed."""
    preprocessing: Preprocessing
    """What to use; its `reason` says why."""
    ties: tuple[str, ...]
    """Options that cannot be told from those of `command`, each beside the others."""
    notes: tuple[str, ...]
    """What was not looked at, or does not matter, and why."""
    warnings: tuple[str, ...]
    """What is wrong: what, where, what to do."""

    @property
    def command(self) -> str:
        """The options of `extract` that ask for `preprocessing`."""
        return command(self.preprocessing)


def doctor(
    model: str | os.PathLike[str],
    inputs: str | Sequence[str],
    *,
    limit: int = SAMPLE,
    size: str | int | tuple[int, int] | None = None,
    engine: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> Diagnosis:
    """Find out which preprocessing a model was trained with, and what is wrong with it or its images.

    BatchNormalization layers remember the mean and variance of what arrived there in training. Images are
    prepared in every way that is common, and what arrives is compared with that.

    Args:
        model: Path of a saved model.
        inputs: Image files, folders, globs and tar files, such as it was trained on.
        limit: So many of them are looked at, spread evenly over their list.
        size: Height and width of the images, "224" or "224x192"; None: the model's.
        engine: "auto", "graph", "converted" or "keras", as for `extract`.
        device: As for `extract`.
        workers: Threads that decode; None: one per processor.
        custom_objects: Classes and functions that the model needs and Keras does not have, by name.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.

    Raises:
        UsageError: The inputs are no images, or a stream, or the model takes none.
        NoInputError: There is not one image.
        AllInputsFailedError: Not one image that was looked at can be read.
        LayerprobeError: As `extract`, for a model that is refused.
    """
    how = read_options({"size": size, "engine": engine, "device": device, "workers": workers, "limit": limit})
    needs = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    source = open_sources(inputs, None)[""]
    rows = length(source)
    if source.kind != "images" or rows is None:
        raise UsageError("doctor looks at images, some of them twice: give files, folders or lists of such.")
    examination = _Examination(os.fspath(model), SampledSource(source, rows, limit), needs, how)
    with closing(examination.model):
        return examination.diagnosis(rows)


class _Examination:
    """One model and a sample of images."""

    def __init__(self, path: str, sample: SampledSource, needs: ModelOptions, how: ExtractOptions) -> None:
        self._sample, self._how = sample, how
        with ModelFile(path, needs) as file:
            known = remembered(file)
            self._softmax = softmax_layers(file.graph)
            self._of_weights = list(complaints.of_weights(file))
        cache = user_cache()
        self.model = ProbedModel(path, ["**"], needs, how.engine, how.device, cache)
        spec = _image_input(self.model.inputs, known.norms[0].inputs if known.norms else ())
        self._like = choose_preprocessing(how, spec, self.model.info.layers)
        running = Running(needs, how.engine, how.device, cache, threads(how, sample.far))
        self._compared: Comparison = compare_presets(path, known, sample, self._like, running)
        tried = self._compared.tried
        if not tried.looks:
            first = tried.failures[0]
            raise AllInputsFailedError(f"no image can be read, the first {first.key!r}: {first.reason}.")

    def diagnosis(self, listed: int) -> Diagnosis:
        """Put it together."""
        compared, tried = self._compared, self._compared.tried
        evidence, chosen, ties = self._preset()
        resizing, chosen, resize_ties, notes = self._resizing(chosen)
        return Diagnosis(
            model=shown(self.model.path),
            listed=listed,
            images=len(tried.looks),
            failures=tuple(
                dataclasses.replace(failure, index=self._sample.places[failure.index])
                for failure in tried.failures
            ),
            layers=tuple(norm.address for norm in compared.norms),
            presets=compared.ranked,
            resizing=resizing,
            evidence=evidence,
            preprocessing=chosen,
            ties=(*ties, *resize_ties),
            notes=(*self._about_norms(), *notes, *self._about_inputs()),
            warnings=tuple(self._warnings(chosen)),
        )

    def _preset(self) -> tuple[Evidence, Preprocessing, tuple[str, ...]]:
        """What the preset rests on, and what it is: the model's own layers count more than statistics."""
        verdict = self._compared.verdict
        if self._like.reason != ASSUMED:
            return "model", self._like, ()
        if verdict.preprocessing is None:
            reason = f"assumed, for there is no evidence: {verdict.reason}"
            return "none", dataclasses.replace(self._like, reason=reason), ()
        chosen = dataclasses.replace(verdict.preprocessing, reason=verdict.reason)
        return "statistics", chosen, tuple(f"--preprocess {one.preset}" for one in verdict.ties)

    def _resizing(
        self, chosen: Preprocessing
    ) -> tuple[tuple[Ranked, ...], Preprocessing, tuple[str, ...], tuple[str, ...]]:
        """Try every filter with the chosen preset: ranks, what to use, ties, notes."""
        compared, looks = self._compared, self._compared.tried.looks
        height, width = chosen.size
        if not compared.norms or len(looks) < LEAST:
            return (), chosen, (), ()
        if all(look.size == (width, height) for look in looks):
            return (), chosen, (), ("the images have the model's size: no filter is needed",)
        fit = [one for one in compared.ranked if one.preset == preprocess_text(chosen)]
        if not fit or not fit[0].divergence <= FITS:
            return (), chosen, (), ()
        other = sum(abs(look.size[0] * height / (look.size[1] * width) - 1) > PROPORTIONS for look in looks)
        ways = ways_to_resize(chosen, crops=2 * other > len(looks))
        ranked = rank(ways, compared.trials.run(self._sample, ways).found, compared.norms)
        verdict = judge_resizing(ranked, chosen)
        assert verdict.preprocessing is not None
        return ranked, verdict.preprocessing, tuple(_resized(one) for one in verdict.ties), (verdict.reason,)

    def _about_norms(self) -> Iterator[str]:
        for norm in self._compared.norms:
            if norm.frozen:
                yield (
                    f"`{norm.address}` was frozen: what it remembers may be of images that it saw before "
                    "this training"
                )
        if self._like.reason != ASSUMED and not self._compared.norms:
            yield f"nothing could be compared: {self._compared.verdict.reason}"

    def _about_inputs(self) -> Iterator[str]:
        if len(self.model.inputs) > 1:
            yield "its layers were not looked at, for the model takes more than one input"

    def _warnings(self, chosen: Preprocessing) -> Iterator[str]:
        tried, verdict = self._compared.tried, self._compared.verdict
        yield from complaints.of_images(tried.looks, len(tried.failures), chosen)
        yield from self._of_weights
        best = verdict.preprocessing
        own = preprocess_text(chosen)
        if self._like.reason != ASSUMED and best is not None and preprocess_text(best) != own:
            yield (
                f"--preprocess {own} is what the model asks for ({self._like.reason}), but "
                f"{verdict.reason}: it may have been trained with --preprocess {preprocess_text(best)}"
            )
        arrived = tried.of(chosen)
        if self._compared.norms and arrived is not None:
            norm = self._compared.norms[0]
            yield from complaints.of_arrivals(arrived[norm.address], norm, command(chosen))
        yield from self._of_activations(chosen)

    def _of_activations(self, chosen: Preprocessing) -> Iterator[str]:
        """Run the whole model over the sample, and see what its layers give."""
        if len(self.model.inputs) > 1:
            return
        how = dataclasses.replace(
            self._how,
            preprocess=preprocess_text(chosen),
            resize=chosen.resize,
            crop=chosen.crop,
            size=chosen.size,
            limit=None,
        )
        run = prepare_run(self.model, {"": self._sample}, how, Clock())
        inputs = {layer.address for layer in self.model.info.layers if layer.class_name == "InputLayer"}
        watch = Watch(self._softmax, inputs)
        with closing(run.computed()) as computed:
            for batch, results in computed:
                if batch.rows:
                    watch.add(run.engine.outputs, results, len(batch.rows))
        alike = len({look.digest for look in self._compared.tried.looks}) == 1
        yield from watch.complaints(command(chosen), alike)


def _resized(one: Ranked) -> str:
    """The options that ask for its filter and crop."""
    how = one.preprocessing
    return f"--resize {how.resize}{'' if how.crop == 'none' else f' --crop {how.crop}'}"


def _image_input(inputs: Sequence[TensorSpec], names: Sequence[str]) -> TensorSpec:
    """The input that takes the images: of several, one that the BatchNormalization layers depend on."""
    images = [spec for spec in inputs if takes_images(spec)]
    found = [spec for spec in images if spec.name in names] or images
    if not found:
        raise UsageError("doctor is about images, and the model takes none.")
    return found[0]
