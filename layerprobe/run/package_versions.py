"""The versions of everything that has a part in an output's numbers."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib import metadata

from layerprobe.version import __version__

_PACKAGES = {
    "jax": ("jax", "jaxlib", "keras"),
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow", "keras"),
}
"""An engine's backend -> the packages that its numbers come from."""
_MODULES = {"pillow": "PIL"}
"""Package -> what to import, where the two names differ."""


def versions(engine: Mapping[str, object]) -> dict[str, str]:
    """By package.

    Args:
        engine: What it says of itself; see `protocols.Engine`.
    """
    packages = [*_PACKAGES.get(str(engine.get("backend")), ()), "numpy", "pillow", "h5py"]
    if engine["name"] == "converted":  # TensorFlow traced what OpenVINO computes.
        packages += _PACKAGES["tensorflow"]
    return {"layerprobe": __version__, "python": platform.python_version()} | {
        package: _version(package) for package in packages
    }


def _version(package: str) -> str:
    """As the loaded module says it: what pip says takes as long to find as a batch to compute."""
    module = sys.modules.get(_MODULES.get(package, package))
    if module is None:  # as in the process of a run whose workers compute
        return metadata.version(package)
    return str(module.__version__).partition("-")[0]  # OpenVINO says its build, too
