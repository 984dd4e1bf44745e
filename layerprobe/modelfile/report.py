"""What `layerprobe check` says of a model file: what it is, what it needs, what of it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layerprobe.modelfile.listing import describe_file
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.options import MAX_MEMORY, ModelOptions
from layerprobe.records import Finding, ModelInfo
from layerprobe.stores.urls import shown


@dataclass(frozen=True, slots=True)
class Report:
    """One model file, looked at without loading it."""

    path: str
    file_format: str
    keras_version: str | None
    sha256: str
    """Of the file's bytes, 64 hexadecimal digits."""
    info: ModelInfo | None
    """Its layers; None where the file as a whole is refused."""
    findings: tuple[Finding, ...]
    """Everything noticed, in the order of the file; migrations are notes."""
    weighted: bool = True
    """Whether the files that hold its weights are there, without which no layer gives a value."""

    @property
    def complete(self) -> bool:
        """Whether nothing is refused and every layer of `model.layers` can be extracted."""
        refused = any(finding.level == "refused" for finding in self.findings)
        if self.info is None or not self.weighted or refused:
            return False
        return bool(self.info.layers) and not any(
            layer.problem for layer in self.info.layers if "/" not in layer.address
        )


def check(
    path: str,
    weights: str | None = None,
    *,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> Report:
    """Inspect a model file; unlike `describe`, a refused one is reported too.

    Args:
        path: Of the model file or SavedModel folder.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions that the user gives for Lambda layers, by address or bare name.
        max_memory: Bytes that one argument of one layer may ask for.

    Raises:
        LayerprobeError: The file cannot be read, or is damaged.
    """
    options = ModelOptions(weights=weights, lambdas=lambdas or {}, max_memory=max_memory)
    with ModelFile(path, options, refusing=False) as file:
        file.archive.begin_reading(hashed=True)
        refused = any(finding.level == "refused" for finding in file.findings)
        info = None if refused else describe_file(file)
        return Report(
            path=shown(path),
            file_format=file.archive.file_format,
            keras_version=file.archive.keras_version,
            sha256=file.archive.sha256(),
            info=info,
            findings=info.findings if info is not None else file.findings,
            weighted=info is None or file.lack is None,
        )
