"""The presets held against what a model remembers, for `doctor` and for `--preprocess auto`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerprobe.diagnosis.ranking import Ranked, rank
from layerprobe.diagnosis.trials import Trials, Tried, presets
from layerprobe.diagnosis.verdict import Verdict, judge_presets
from layerprobe.errors import UnavailableError, UnrecordableLayerError
from layerprobe.run.plan import takes_images
from layerprobe.run.probed_model import ProbedModel

if TYPE_CHECKING:
    from layerprobe.diagnosis.norms import Remembered, StoredNorm
    from layerprobe.diagnosis.sampling import SampledSource
    from layerprobe.engines.cache import Cache
    from layerprobe.options import ModelOptions
    from layerprobe.records import Preprocessing, TensorSpec


@dataclass(frozen=True, slots=True)
class Comparison:
    """How well each preset fits what a model remembers."""

    norms: tuple[StoredNorm, ...]
    """The layers that were compared; none where nothing could be."""
    tried: Tried
    ranked: tuple[Ranked, ...]
    """The best first; empty where nothing could be compared."""
    verdict: Verdict
    trials: Trials
    """For more of them."""


@dataclass(frozen=True, slots=True)
class Running:
    """How the first layers are run."""

    needs: ModelOptions
    engine: str
    device: str
    cache: Cache | None
    workers: int
    max_pixels: int | None = None


def compare_presets(
    path: str, known: Remembered, sample: SampledSource, like: Preprocessing, running: Running
) -> Comparison:
    """Prepare a sample with every preset, and see which fits what the model remembers.

    Args:
        path: Of the model.
        known: What it remembers.
        sample: Of its images.
        like: All that is not the preset's: size, filter and so on.
        running: The engine.
    """
    norms, reason = known.norms, known.reason
    probed = None
    if norms:
        taps = [f"in:{norm.address}" for norm in norms]
        try:
            probed = ProbedModel(path, taps, running.needs, running.engine, running.device, running.cache)
            reason = _unfit(probed.inputs) or ""
            if not reason:
                trials = Trials(probed, norms, like, running.workers, running.max_pixels)
        except (UnavailableError, UnrecordableLayerError) as error:
            reason = str(error).rstrip(".")
        finally:
            if probed is not None:
                probed.close()
    if reason:
        trials = Trials(None, (), like, running.workers, running.max_pixels)
        return Comparison((), trials.run(sample, [like]), (), Verdict(False, None, (), reason), trials)
    tried = trials.run(sample, presets(like))
    if not tried.looks:
        return Comparison((), tried, (), Verdict(False, None, (), "no image can be read"), trials)
    ranked = rank(tried.ways, tried.found, norms)
    return Comparison(norms, tried, ranked, judge_presets(ranked, norms, len(tried.looks)), trials)


def _unfit(inputs: Sequence[TensorSpec]) -> str | None:
    """Why these inputs cannot all be given the same images."""
    for spec in inputs:
        if not takes_images(spec):
            return (
                f"its BatchNormalization layers depend on the input `{spec.name}` too, which takes no images"
            )
    if len({spec.shape for spec in inputs}) != 1:
        return "its BatchNormalization layers depend on images of several sizes"
    return None
