"""What makes two runs the same: all that decides what the rows hold, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layerprobe.records import ExtractOptions, TensorSpec
from layerprobe.run.feeds import Feeds

if TYPE_CHECKING:
    from layerprobe.protocols import LoadedModel, Outline


def signature(
    probed: LoadedModel, feeds: Feeds, engine: Outline, stored: Sequence[TensorSpec], how: ExtractOptions
) -> dict[str, Any]:
    """Describe a run as plain JSON.

    Versions of packages and the kind of processor, on which the last bits depend, are no part of it: a job
    that is preempted goes on wherever it can.

    Args:
        probed: The model; waits until it is hashed.
        feeds: Its inputs.
        engine: What computes.
        stored: What is stored of each layer.
        how: The user's options.
    """
    preprocessing = feeds.preprocessing
    if preprocessing is not None:
        preprocessing = dataclasses.replace(preprocessing, reason="")
    described = {
        **probed.signature(),
        "layers": [spec.name for spec in stored],
        "shapes": [f"{spec.dtype} {spec.shape}" for spec in stored],
        "pool": how.pool,
        "preprocessing": None if preprocessing is None else dataclasses.asdict(preprocessing),
        "max_pixels": how.max_pixels,
        "number_of_inputs": feeds.listed,
        "list_of_inputs": feeds.digest,
        "rows": [feeds.place.start, feeds.place.stop],
        "engine": dict(engine.describe()),
        "batch_size": engine.batch_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain
