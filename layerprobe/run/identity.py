"""What makes two runs the same: all that decides what the rows hold, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerprobe.options import ExtractOptions
from layerprobe.records import TensorSpec
from layerprobe.run.feeds import Feeds

if TYPE_CHECKING:
    from layerprobe.protocols import LoadedModel, Outline


OF_A_STREAM = {"number_of_inputs": "open: a stream", "list_of_inputs": None, "rows": None}
"""What is said of the inputs of a stream, before it has ended."""


def signature(
    probed: LoadedModel,
    feeds: Feeds,
    engine: Outline,
    stored: Sequence[TensorSpec],
    how: ExtractOptions,
    *,
    ended: bool = False,
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
        ended: The run is through, so that it is known of a stream too what came.
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
        **(_inputs(feeds) if ended or feeds.rows is not None else OF_A_STREAM),
        "engine": dict(engine.describe()),
        "batch_size": engine.batch_size,
        "compress": how.compress,
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def _inputs(feeds: Feeds) -> dict[str, Any]:
    return {
        "number_of_inputs": feeds.listed,
        "list_of_inputs": feeds.digest,
        "rows": [feeds.place.start, feeds.place.stop],
    }


def difference(
    earlier: Mapping[str, Any], now: Mapping[str, Any], within: str = ""
) -> tuple[str, str, str] | None:
    """Say where two signatures differ first; None where they do not.

    Args:
        earlier: Of one run.
        now: Of the other.
        within: What the two are a part of.

    Returns:
        What differs, and what that is in each, in words.
    """
    for name in dict.fromkeys([*earlier, *now]):
        before, after = earlier.get(name), now.get(name)
        if before == after:
            continue
        full = f"{within} {name}".strip().replace("_", " ")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            return difference(before, after, full)
        return full, _short(before), _short(after)
    return None


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
