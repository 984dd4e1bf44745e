"""What runs a model: what an engine, and a model before it has one, must offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from layerprobe.options import Computing, Finish
    from layerprobe.records import Array, ModelInfo, TensorSpec


class Outline(Protocol):
    """What is known of an engine before it is built: what decides the rows, but for the numbers in them."""

    batch_size: int
    """B: every batch is padded to this."""

    outputs: tuple[TensorSpec, ...]
    """What the layers give, in the order asked for and not finished; shapes of one row, all sizes known."""

    @property
    def finish(self) -> Finish | None:
        """What it finishes its results with; None: they are the layers' own."""
        ...

    @property
    def overflowed(self) -> Mapping[str, int]:
        """How many values of the last collected batch its cast made infinite, by name; not those of none."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, device and precision, for the provenance."""
        ...


class Engine(Outline, Protocol):
    """What runs a model. Built once for its taps and its batch size.

    An engine is told when it is built what its results are to be finished with (`reductions.finished`). It
    does that where they lie on a device, before it copies them, or where it is faster at it than NumPy; or it
    leaves that to who runs it.
    """

    def run(self, inputs: Sequence[Array]) -> dict[str, Array]:
        """Compute the wanted activations of one batch.

        Args:
            inputs: One (n, ...) array per input of the model, in the model's order, 1 <= n <= B.

        Returns:
            (n, ...) arrays by name, in the order of `outputs`; they are the caller's.

        Raises:
            UsageError: The model cannot compute with some of the rows, such as an index that a table lacks.
            ResourceError: There is not enough memory for so many rows.
        """
        ...

    def start(self, inputs: Sequence[Array]) -> Collect:
        """Begin to compute one batch; one more may be begun, and `run` be called, before it is collected.

        Args:
            inputs: As for `run`; they must stay as they are until the results are collected.

        Returns:
            What waits for the results, and raises what `run` would. They are the engine's, not to be written
            to, and their memory is used again when `start` is called for the second time after.
        """
        ...


Collect = Callable[[], "dict[str, Array]"]
"""Waits for a batch that is being computed, and gives its activations by name; may be called again."""


class Runnable(Protocol):
    """A model as one engine takes it, before the engine is built for certain sizes.

    What cannot be run so raises `Unsupported` (`engines/graph/unsupported.py`), and the next engine is tried.
    """

    note: str | None
    """Why its numbers are trusted, where that is not the same for every model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the taps need, in the model's order; free sizes are None."""
        ...

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size that is part of the model's input shape, if one is."""
        ...

    @property
    def usual_batch_size(self) -> int:
        """B where nothing else is asked for."""
        ...

    def engine(self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing) -> Engine:
        """Build the engine for inputs with every size known; None takes any number of rows."""
        ...

    def outline(self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing) -> Outline:
        """Tell what `engine` would build, reading as little of the model as that takes."""
        ...


class LoadedModel(Protocol):
    """The model of a run, which knows its layers, and what runs it: here, or in another process."""

    path: str
    """Of its file; "" where it came from none."""

    info: ModelInfo

    @property
    def note(self) -> str | None:
        """Which engine runs the model and why, where that is not the same for every model."""
        ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the taps need, in the model's order; free sizes are None."""
        ...

    @property
    def fixed_batch_size(self) -> int | None:
        """The only B that there is, if there is only one."""
        ...

    @property
    def usual_batch_size(self) -> int:
        """B where nothing else is asked for."""
        ...

    def prepare(self) -> None:
        """Load what has to be known of the inputs."""
        ...

    def engine(self, inputs: Sequence[TensorSpec], *, batch_size: int | None, how: Computing = ...) -> Engine:
        """Build the engine for inputs with every size known; None takes any number of rows."""
        ...

    @property
    def takes_long_to_load(self) -> bool:
        """Whether the weights are so large that it pays to find out all sizes before they are read."""
        ...

    def outline(
        self, inputs: Sequence[TensorSpec], *, batch_size: int | None, how: Computing = ...
    ) -> Outline:
        """Tell what `engine` would build, as far as that is known before; it reads as little as it can."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Which model this is."""
        ...

    def signature(self) -> dict[str, Any]:
        """What of the model decides its values."""
        ...
