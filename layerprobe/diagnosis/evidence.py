"""`--preprocess auto` where a model's layers do not say how its images were prepared: what it remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from layerprobe.diagnosis.comparison import Running, compare_presets
from layerprobe.diagnosis.norms import remembered
from layerprobe.diagnosis.sampling import SampledSource
from layerprobe.diagnosis.verdict import LEAST
from layerprobe.errors import LayerprobeError
from layerprobe.images.preprocess import preprocess_text
from layerprobe.images.presets import ASSUMED
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.run.batches import threads
from layerprobe.run.lengths import length
from layerprobe.run.plan import choose_preprocessing, takes_images

if TYPE_CHECKING:
    from layerprobe.options import ExtractOptions
    from layerprobe.protocols import Source
    from layerprobe.records import Preprocessing
    from layerprobe.run.probed_model import ProbedModel

SAMPLE = 64
"""Images that are looked at, spread over the whole list, whatever part of it a run computes."""


def with_evidence(probed: ProbedModel, sources: Mapping[str, Source], how: ExtractOptions) -> ExtractOptions:
    """Decide `preprocess` by what a model remembers of training, where it would otherwise be assumed.

    The answer follows from the model's file and the list of images alone, so that all shards, processes and
    resumed runs have the same. Only the graph engine is asked, which needs no framework.

    Args:
        probed: The model.
        sources: Its inputs by name; "" where it has only one.
        how: The user's options.

    Returns:
        The options: with `preprocess` and the reason for it, where it was looked for; else as they were.
    """
    like = _assumed(probed, sources, how)
    if like is None:
        return how
    source = sources[""]
    rows = min(len(source), how.limit or len(source))
    sample = SampledSource(source, rows, SAMPLE)
    running = Running(probed.options, "graph", "cpu", None, threads(how, sample.far), how.max_pixels)
    try:
        with ModelFile(probed.path, probed.options) as file:
            known = remembered(file)
        if not known.norms:
            return _because(how, "raw", f"{ASSUMED}; {known.reason}")
        verdict = compare_presets(probed.path, known, sample, like, running).verdict
    except LayerprobeError as error:  # Where it matters for the run itself, that will say so.
        return _because(how, "raw", f"{ASSUMED}; {str(error).rstrip('.')}")
    if verdict.preprocessing is None:
        return _because(how, "raw", f"{ASSUMED}; {verdict.reason}")
    looked = f"({len(sample)} of {rows} images looked at)"
    return _because(how, preprocess_text(verdict.preprocessing), f"{verdict.reason} {looked}")


def _assumed(probed: ProbedModel, sources: Mapping[str, Source], how: ExtractOptions) -> Preprocessing | None:
    """What would be assumed; None where it is not up to statistics, or there can be none."""
    if how.preprocess != "auto" or not probed.path or set(sources) != {""}:
        return None
    rows = length(sources[""])
    if sources[""].kind != "images" or rows is None or min(rows, how.limit or rows) < LEAST:
        return None
    if not any(layer.class_name == "BatchNormalization" for layer in probed.info.layers):
        return None
    inputs = probed.info.inputs
    if len(inputs) != 1 or not takes_images(inputs[0]):
        return None
    like = choose_preprocessing(how, inputs[0], probed.info.layers)
    return like if like.reason == ASSUMED else None


def _because(how: ExtractOptions, preprocess: str, reason: str) -> ExtractOptions:
    return dataclasses.replace(how, preprocess=preprocess, preprocess_reason=reason)
