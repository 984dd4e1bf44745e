"""What is wrong with images or with a model's weights, a sentence for each: what, where, what to do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.diagnosis.divergence import Moments, pooled
from layerprobe.errors import ModelError
from layerprobe.modelfile.graph import walk
from layerprobe.records import Preprocessing

if TYPE_CHECKING:
    from layerprobe.diagnosis.norms import StoredNorm
    from layerprobe.diagnosis.sampling import Look
    from layerprobe.modelfile.model_file import ModelFile

MOSTLY = 0.5
"""More of the images than this is most of them."""
SMALL = 0.5
"""An image with sides less than so much of the model's is much smaller."""
FAR = 3.0
"""A mean so many standard deviations from the stored one, in the median over channels, is far outside."""


def of_images(looks: Sequence[Look], failed: int, how: Preprocessing) -> Iterator[str]:
    """What is wrong with images, before any model is asked.

    Args:
        looks: Of those that could be read.
        failed: How many could not.
        how: Size and channels that the model takes.
    """
    total = len(looks) + failed
    if failed > MOSTLY * total:
        yield f"{failed} of {total} images are broken: are these the files that you mean?"
    if not looks:
        return
    plain = sum(look.plain for look in looks)
    if plain > MOSTLY * len(looks):
        yield f"{plain} of {len(looks)} images are of one colour: look at the files"
    elif len(looks) > 1 and len({look.digest for look in looks}) == 1:
        yield f"all {len(looks)} images are the same: look at the files"
    height, width = how.size
    small = sum(_scale(look, how) < SMALL for look in looks)
    if small > MOSTLY * len(looks):
        sides = (statistics.median(look.size[axis] for look in looks) for axis in (0, 1))
        across, down = (round(side) for side in sides)
        yield (
            f"{small} of {len(looks)} images are much smaller than the model's {width} x {height} pixels "
            f"({across} x {down} in the middle): they are enlarged, and look like none it was trained on; "
            "give larger ones"
        )
    grey = sum(look.grey for look in looks)
    if how.channels == 3 and grey > MOSTLY * len(looks) and plain <= MOSTLY * len(looks):
        yield (
            f"{grey} of {len(looks)} images are grey, and the model takes colour: unless it was trained on "
            "such, give colour images"
        )


def _scale(look: Look, how: Preprocessing) -> float:
    """How large an image is, as part of what the model takes; of the side where it is more."""
    height, width = how.size
    return max(look.size[0] / width, look.size[1] / height)


def of_weights(file: ModelFile) -> Iterator[str]:
    """Which weights are not finite."""
    found = []
    for address, _ in walk(file.graph):
        try:
            arrays = file.weights.arrays(address)
        except ModelError:
            continue  # Whoever runs the model is told of it.
        found += [
            f"`{address}` ({name})"
            for name, array in arrays.items()
            if array.dtype.kind == "f" and not np.isfinite(array).all()
        ]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield (
            f"weights are NaN or infinite: {', '.join(found[:3])}{more}: training has failed; "
            "take an earlier checkpoint"
        )


def of_arrivals(arrived: Moments, norm: StoredNorm, preprocess: str) -> Iterator[str]:
    """Whether what arrives at a layer is far outside of what has arrived there in training.

    Args:
        arrived: There, of all images.
        norm: The layer.
        preprocess: How they were prepared, as options.
    """
    mean, variance = pooled(arrived)
    deviation = np.sqrt(norm.variance + norm.epsilon)
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        return  # That there are such values is told of the activations.
    away = float(np.median(np.abs(mean - norm.mean) / deviation))
    wider = float(np.median(np.sqrt(variance + norm.epsilon) / deviation))
    if away > FAR or wider > FAR:
        how = f"{away:.1f} standard deviations away" if away > FAR else f"{wider:.1f} times as wide"
        yield (
            f"what arrives at `{norm.address}` with {preprocess} is {how} of what has arrived there in "
            "training: these images, or this preprocessing, are not those of training"
        )
