"""Where the numbers of an output come from, as far as a run knows it."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from layerprobe.feeds import Feeds
from layerprobe.probed_model import ProbedModel
from layerprobe.records import ExtractOptions, Provenance, TensorSpec
from layerprobe.version import __version__

if TYPE_CHECKING:
    from layerprobe.protocols import Engine


def provenance(
    probed: ProbedModel,
    feeds: Feeds,
    engine: Engine,
    stored: Sequence[TensorSpec],
    how: ExtractOptions,
    *,
    failed: int,
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
            "several_frames": feeds.animated,
            "specs": [dataclasses.asdict(spec) for spec in feeds.specs],
        },
        preprocessing=None if preprocessing is None else dataclasses.asdict(preprocessing),
        options=dataclasses.asdict(how),
        engine={**engine.describe(), "batch_size": engine.batch_size},
        versions=_versions(engine.describe()),
        started=started,
        run=run,
    )


_PACKAGES = {
    "jax": ("jax", "jaxlib", "keras"),
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow", "keras"),
}
"""An engine's backend -> the packages that its numbers come from."""
_MODULES = {"pillow": "PIL"}
"""Package -> what to import, where the two names differ."""


def _versions(engine: Mapping[str, object]) -> dict[str, str]:
    """Of everything that had a part in the numbers."""
    packages = [*_PACKAGES.get(str(engine.get("backend")), ()), "numpy", "pillow", "h5py"]
    if engine["name"] == "converted":  # TensorFlow traced what OpenVINO computes.
        packages += _PACKAGES["tensorflow"]
    return {"layerprobe": __version__, "python": platform.python_version()} | {
        package: _version(package) for package in packages
    }


def _version(package: str) -> str:
    """As the loaded module says it: what pip says takes as long to find as a batch to compute."""
    module = sys.modules.get(_MODULES.get(package, package))
    return metadata.version(package) if module is None else str(module.__version__)
