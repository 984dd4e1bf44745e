"""The safety inspection: what in a model file could run code, read other files or exhaust the machine.

It runs before anything is built and before any weight is read, needs no framework, and looks at everything
that is stored, needed or not. What it refuses stays refused with every option. It can only find what is
known: where it finds nothing, that is all that can be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerprobe.errors import UnsafeModelError
from layerprobe.modelfile.archive import Archive, reading
from layerprobe.modelfile.safety.config import refused_construct
from layerprobe.modelfile.safety.hdf5 import inspect_hdf5
from layerprobe.modelfile.safety.savedmodel import inspect_savedmodel
from layerprobe.modelfile.safety.zipped import inspect_zip
from layerprobe.records import Finding


def inspect(archive: Archive) -> tuple[Finding, ...]:
    """Inspect the container of a model, and what its config names beside its layers.

    Layers that are refused are not here: each is marked in the graph, and the others can be used.

    Raises:
        ModelError: The file is damaged.
    """
    construct = refused_construct(_outermost(archive.config()))
    if construct is not None:
        return (Finding("refused", f"the model in {archive.path}", construct),)
    if archive.file_format == "savedmodel":
        return tuple(inspect_savedmodel(archive.path))
    if archive.zip is not None:
        findings = tuple(inspect_zip(archive.zip, archive.path))
        if findings:  # Its members are not to be unpacked then.
            return findings
    file = archive.hdf5()
    if file is None:
        return ()
    with reading(archive.weights_place):
        return tuple(inspect_hdf5(file, archive.weights_place))


def _outermost(document: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own entry without its layers, nor what was only needed to train it."""
    parts = ("class_name", "config", "module", "registered_name")
    return {key: document[key] for key in parts if key in document and not isinstance(document[key], list)}


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raise for the first finding that is refused.

    Raises:
        UnsafeModelError: There is one.
    """
    for finding in findings:
        if finding.level == "refused":
            raise UnsafeModelError(
                f"{finding.place} is refused: {finding.message}; get the model from someone you trust, "
                f"saved again by Keras."
            )
