"""A model file that the graph engine may run, cut down to what the taps need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from layerprobe import registry
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.openvino_import import import_openvino
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.modelfile.reach import keep_ancestors, problems
from layerprobe.options import INFERENCE, Computing
from layerprobe.records import Tap, TensorSpec

if TYPE_CHECKING:
    from layerprobe.engines.planned import Planned
    from layerprobe.protocols import Engine

USUAL, MOST = 8, 64
"""Rows computed at once, where nothing else is asked for."""
BATCH_BYTES = 2**20
"""Of a batch, as far as it is in memory at once, that more rows than `USUAL` are taken for."""


class GraphFile:
    """A model file and the taps that are wanted of it; see `protocols.Runnable`.

    Args:
        file: The model.
        taps: What to record, in order.

    Raises:
        Unsupported: The graph engine cannot run it, for all that the file says.
        ModelError: The file is damaged.
    """

    note: str | None = None

    def __init__(self, file: ModelFile, taps: Sequence[Tap]) -> None:
        self._file, self._taps = file, taps
        if not file.graph.layers:
            raise Unsupported(f"{file.graph.class_name}, whose layers the file does not list")
        self._graph = keep_ancestors(file.graph, {tap.address for tap in taps})
        found = problems(self._graph, (), file.oversized)
        if found or not file.weights.present:
            raise Unsupported(next(iter(found.values()), "a model without weights"))
        nodes = [self._graph.layer(reference.layer) for reference in flat(self._graph.inputs)]
        for node in nodes:
            if node.config["batch_shape"] is None:
                raise Unsupported(f"input {node.name!r}, whose shape the file does not say")
        self.inputs = tuple(
            TensorSpec(node.name, tuple(node.config["batch_shape"][1:]), node.config["dtype"])
            for node in nodes
        )
        """The inputs that are needed, in the model's order; free sizes are None."""
        sizes = {node.config["batch_shape"][0] for node in nodes} - {None}
        self.fixed_batch_size: int | None = sizes.pop() if sizes else None
        """The batch size that is part of the model's input shape, if one is."""

    @cached_property
    def usual_batch_size(self) -> int:
        """8 use the processor's caches best; of tiny rows a batch has a megabyte, and at most 64."""
        shapes = [spec.shape for spec in self.inputs]
        if any(None in shape for shape in shapes):
            return USUAL
        given = sum(4 * math.prod(cast(tuple[int, ...], shape)) for shape in shapes)
        if USUAL * given > BATCH_BYTES:  # Most models are known by their inputs alone.
            return USUAL
        try:
            alive = self.outline(self.inputs, 1, INFERENCE).alive
        except Unsupported:
            return USUAL
        return max(USUAL, min(MOST, BATCH_BYTES // max(1, alive)))

    def engine(self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing) -> Engine:
        """Build the engine for inputs with every size known.

        Raises:
            Unsupported: Something that the taps need is not in the graph engine.
        """
        import_openvino()
        engine: Engine = registry.find(registry.ENGINES, "graph", "engine")(
            self._graph,
            self._file.weights,
            self._taps,
            finish=how.finish,
            **self._options(inputs, batch_size, how),
        )
        return engine

    def outline(self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing) -> Planned:
        """Tell what `engine` would build; weights are not read."""
        import_openvino()
        registry.find(registry.ENGINES, "graph", "engine")  # says what to install
        from layerprobe.engines.graph.outline import outline

        return outline(self._graph, self._file.weights, self._taps, **self._options(inputs, batch_size, how))

    def _options(
        self, inputs: Sequence[TensorSpec], batch_size: int | None, how: Computing
    ) -> dict[str, Any]:
        return {
            "inputs": inputs,
            "batch_size": batch_size,
            "precision": how.precision,
            "max_memory": self._file.options.max_memory,
            "masks_with_states": self._file.masks_with_states,
        }
