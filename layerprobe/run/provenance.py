"""Where the numbers of an output come from, as far as a run knows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerprobe.options import ExtractOptions
from layerprobe.records import Provenance, TensorSpec
from layerprobe.run.feeds import Feeds
from layerprobe.run.package_versions import versions

if TYPE_CHECKING:
    from layerprobe.protocols import LoadedModel
    from layerprobe.run.fitting import FittingEngine
    from layerprobe.run.tally import Tally


def preprocessing_text(how: Mapping[str, Any] | None) -> str:
    """Say in words what a `Preprocessing`, as a dict, is."""
    if how is None:
        return "none: arrays were fed as they are"
    height, width = how["size"]
    fast = ", fast decode" if how.get("fast_decode") else ""
    return f"{height}x{width} {how['resize']}, crop {how['crop']}{fast}, {how['preset']} ({how['reason']})"


_OF_ONE_GO = ("overwrite", "restart", "resume")
"""Options that are not recorded: an interrupted run shall write what an uninterrupted one does."""


def describe_run(
    probed: LoadedModel,
    feeds: Feeds,
    engine: FittingEngine,
    stored: Sequence[TensorSpec],
    how: ExtractOptions,
    *,
    failed: int,
    tally: Tally,
    started: str,
    run: Mapping[str, Any],
) -> Provenance:
    """Describe a run that has ended.

    Args:
        probed: The model.
        feeds: Its inputs.
        engine: What computed.
        stored: What is stored of each layer.
        how: The user's options.
        failed: How many rows failed.
        tally: What else was counted of them.
        started: UTC, ISO 8601.
        run: Its id and signature.
    """
    classes = {layer.address: layer.class_name for layer in probed.info.layers}
    preprocessing = feeds.preprocessing
    return Provenance(
        model=probed.provenance(),
        layers=[
            {
                "name": spec.name,
                "layer": spec.layer,
                "class_name": classes.get(spec.layer, probed.info.class_name),
                "shape": list(spec.shape),
                "channel_axis": spec.channel_axis,
                "dtype": spec.dtype,
            }
            for spec in stored
        ],
        inputs={
            "rows": len(feeds),
            "part": feeds.part(how.shard),
            "failed": failed,
            "several_frames": tally.several_frames,
            "overflows": dict(tally.overflows),
            "specs": [dataclasses.asdict(spec) for spec in feeds.specs],
        },
        preprocessing=None if preprocessing is None else dataclasses.asdict(preprocessing),
        options={name: value for name, value in dataclasses.asdict(how).items() if name not in _OF_ONE_GO},
        engine={**engine.describe(), "batch_size": engine.at_once},
        versions=versions(engine.describe()),
        started=started,
        run=run,
    )
