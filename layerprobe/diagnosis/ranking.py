"""Ways to prepare images, in the order in which a model's statistics speak for them, and how clearly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.diagnosis.divergence import Moments, divergence, pooled, without_each
from layerprobe.images.preprocess import preprocess_text
from layerprobe.records import Preprocessing

if TYPE_CHECKING:
    from layerprobe.diagnosis.norms import StoredNorm
    from layerprobe.records import Array

SHARES = (0.0, *(0.7**step for step in range(15)))
"""Of what may be left in a layer of what it began with: the best one is taken."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One way to prepare images, and how well it fits what the model remembers."""

    preprocessing: Preprocessing
    divergence: float
    """Of what arrives at the layers from what arrived there in training: 0 is the same."""
    times: float
    """Divergence over that of the best way; 1 for the best itself."""
    errors: float
    """How many standard errors it is above the best, as the images differ; 0 for the best."""
    layers: Mapping[str, float]
    """The divergence at each layer, by address."""

    @property
    def command(self) -> str:
        """The options that ask for it, those that are so by default left out."""
        return command(self.preprocessing)

    @property
    def preset(self) -> str:
        """What `--preprocess` takes."""
        return preprocess_text(self.preprocessing)

    @property
    def family(self) -> str:
        """The same without the order of its colours."""
        return self.preset.rpartition(":")[2]


def command(how: Preprocessing) -> str:
    """The options that ask for a preprocessing, those that are so by default left out."""
    resize = "" if how.resize == "bilinear" else f" --resize {how.resize}"
    crop = "" if how.crop == "none" else f" --crop {how.crop}"
    return f"--preprocess {preprocess_text(how)}{resize}{crop}"


def rank(
    ways: Sequence[Preprocessing], found: Sequence[Mapping[str, Moments]], norms: Sequence[StoredNorm]
) -> tuple[Ranked, ...]:
    """Order ways to prepare images by the divergence at the layers.

    Args:
        ways: The ways.
        found: What arrived at each layer for each, of the same images.
        norms: The layers.

    Returns:
        The best first; of equal ones, in the order of `ways`.
    """
    scores = [_score(each, norms) for each in found]
    best = min(scores, key=lambda score: score.whole)
    ranked = [
        Ranked(
            way,
            score.whole,
            score.whole / best.whole if best.whole > 0 else 1.0 if score.whole == best.whole else math.inf,
            _errors(score, best),
            score.layers,
        )
        for way, score in zip(ways, scores, strict=True)
    ]
    return tuple(sorted(ranked, key=lambda one: one.divergence))


@dataclass(frozen=True, slots=True)
class _Score:
    whole: float
    layers: Mapping[str, float]
    without: Array
    """(n,) what `whole` is without each of the images."""


def _score(found: Mapping[str, Moments], norms: Sequence[StoredNorm]) -> _Score:
    """The divergence of one way, the mean over channels and layers."""

    def at_all(share: float) -> float:
        return float(np.mean([at_layer(norm, *pooled(found[norm.address]), share) for norm in norms]))

    share = min(SHARES, key=at_all)
    layers = {norm.address: float(at_layer(norm, *pooled(found[norm.address]), share)) for norm in norms}
    without = [at_layer(norm, *without_each(found[norm.address]), share) for norm in norms]
    return _Score(float(np.mean(list(layers.values()))), layers, np.mean(without, axis=0))


def at_layer(norm: StoredNorm, mean: Array, variance: Array, share: float = 0.0) -> Array:
    """The mean divergence over the channels of one layer.

    Args:
        norm: The layer.
        mean: (..., C) of what arrives.
        variance: (..., C).
        share: Of what may be left in the layer of its first variance, 1.

    Returns:
        (...).
    """
    # What the layer adds to variances keeps channels that hold next to nothing from deciding all.
    more = norm.epsilon + share * norm.remaining
    apart = divergence(mean, variance + more, norm.mean, norm.variance + norm.epsilon)
    return np.asarray(apart.mean(-1))


def _errors(score: _Score, best: _Score) -> float:
    """How many standard errors lie between two divergences, by the jackknife.

    Both are of the same images, so that what these have in common does not count (B. Efron, "The Jackknife,
    the Bootstrap and Other Resampling Plans", 1982).
    """
    distance = score.whole - best.whole
    if score is best or distance <= 0:
        return 0.0
    apart = score.without - best.without
    count = len(apart)
    if count < 2:
        return 0.0
    error = math.sqrt((count - 1) / count * float(np.square(apart - apart.mean()).sum()))
    return distance / error if error > 0 else math.inf
