"""A saved model on its way to being listed or run: opened once, inspected once, its config read once."""

from __future__ import annotations

import weakref
from functools import cached_property
from types import TracebackType

from layerprobe.errors import ModelError
from layerprobe.modelfile.archive import open_archive
from layerprobe.modelfile.config import read_graph
from layerprobe.modelfile.digest import Digest
from layerprobe.modelfile.graph import Graph
from layerprobe.modelfile.naming import local_path
from layerprobe.modelfile.safety import inspect, refuse
from layerprobe.modelfile.safety.sizes import oversized
from layerprobe.modelfile.saved import read_version
from layerprobe.modelfile.weights import Weights
from layerprobe.options import ModelOptions


class ModelFile:
    """One opened model file; what lists it, runs it or hashes it takes what it needs from here.

    It stays open until `close`, the end of a `with` block, or the end of this object: whatever is read of
    it later is of the same file, also where its name went to another one meanwhile.

    Args:
        path: Of the model file or SavedModel folder, or another name of it; see `naming`.
        options: What it needs beside itself.
        refusing: Whether to raise where the inspection refuses it; a report about it wants to know why.

    Raises:
        NoInputError: There is no such file.
        AccessError: The system does not let us read it.
        ModelError: It is no saved model, or damaged, or refused.
        UnavailableError: It is to be fetched, and cannot be.
    """

    def __init__(self, path: str, options: ModelOptions, *, refusing: bool = True) -> None:
        self.path = path
        self.options = options
        weights = None if options.weights is None else local_path(options.weights)
        self.archive = open_archive(local_path(path), weights)
        self.close = weakref.finalize(self, self.archive.close)
        """Release the file; a second call does nothing."""
        try:
            self.findings = inspect(self.archive)
            """What the inspection noticed."""
            if refusing:
                refuse(self.findings)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def graph(self) -> Graph:
        """The whole model in normal form; without layers where only its own code knows them.

        Raises:
            ModelError: The config is damaged, or no Keras wrote it.
            UsageError: An expression was given for a Lambda layer that is not there.
        """
        return read_graph(self.archive, self.options.lambdas)

    @cached_property
    def weights(self) -> Weights:
        """Where the arrays of each layer are.

        Raises:
            ModelError: They are damaged, or those of another model.
        """
        return Weights(self.archive, self.graph)

    @property
    def lack(self) -> str | None:
        """What `check_weights` says; None where all is there."""
        try:
            self.check_weights()
        except ModelError as error:
            return str(error).rstrip(".")
        return None

    def weights_sha256(self) -> str | None:
        """Of the weights file that was given beside the model, as it was opened; None where none was.

        Raises:
            ModelError: It was changed since then.
        """
        if self.options.weights is None or self.archive.weights_source is None:
            return None
        found = Digest(self.archive.weights_source.descriptor, hashed=True).sha256()
        self.archive.check_unchanged()
        return found

    def check_weights(self) -> None:
        """Look whether the files that hold the weights are there, before any framework is imported.

        Raises:
            ModelError: One is not, so that no layer can give a value.
        """
        if not self.weights.present:
            raise ModelError(
                f"{self.archive.path} has no weights: give the file that holds them with --weights."
            )
        if self.archive.savedmodel is not None:
            self.archive.savedmodel.checkpoint.verify()

    @cached_property
    def masks_with_states(self) -> bool:
        """Whether a mask reaches a recurrent layer that is given its first state: Keras 3 drops it."""
        return read_version(self.archive.keras_version, self.archive.config()) < (3, 0)

    @cached_property
    def oversized(self) -> dict[str, str]:
        """Address -> why, for the layers that ask for more memory than they may."""
        return oversized(self.graph, self.weights.parameters, self.options.max_memory)
