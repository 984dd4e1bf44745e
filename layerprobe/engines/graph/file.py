"""A model file that the graph engine may run: opened, inspected, and cut down to what the taps need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerprobe import registry
from layerprobe.engines.graph.structure import flat
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.modelfile.archive import Archive, open_archive
from layerprobe.modelfile.config import read_graph
from layerprobe.modelfile.graph import Graph
from layerprobe.modelfile.reach import keep_ancestors, problems
from layerprobe.modelfile.safety import inspect, refuse
from layerprobe.modelfile.safety.sizes import oversized
from layerprobe.modelfile.weights import Weights
from layerprobe.records import ModelOptions, Tap, TensorSpec

if TYPE_CHECKING:
    from layerprobe.protocols import Engine


class GraphFile:
    """A model file and the taps that are wanted of it.

    Args:
        path: Of the model.
        taps: What to record, in order.
        options: What the file needs beside itself.

    Raises:
        Unsupported: The graph engine cannot run it, for all that the file says.
        ModelError: The file is refused.
    """

    def __init__(self, path: str, taps: Sequence[Tap], options: ModelOptions) -> None:
        self._path, self._taps, self._options = path, taps, options
        with self._opened() as (_, graph, _):
            nodes = [graph.layer(reference.layer) for reference in flat(graph.inputs)]
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

    def engine(self, inputs: Sequence[TensorSpec], batch_size: int | None) -> Engine:
        """Build the engine for inputs with every size known.

        Raises:
            Unsupported: Something that the taps need is not in the graph engine.
        """
        make = registry.find(registry.ENGINES, "graph", "engine")
        with self._opened() as (archive, graph, weights):
            archive.verify()
            engine: Engine = make(
                graph,
                weights,
                self._taps,
                inputs=inputs,
                batch_size=batch_size,
                max_memory=self._options.max_memory,
            )
        return engine

    @contextmanager
    def _opened(self) -> Iterator[tuple[Archive, Graph, Weights]]:
        with open_archive(self._path, self._options.weights) as archive:
            refuse(inspect(archive))
            whole = read_graph(archive, self._options.lambdas)
            if not whole.layers:
                raise Unsupported(f"{whole.class_name}, whose layers the file does not list")
            weights = Weights(archive, whole)
            graph = keep_ancestors(whole, {tap.address for tap in self._taps})
            found = problems(graph, (), oversized(whole, weights.parameters, self._options.max_memory))
            if found or not weights.present:
                raise Unsupported(next(iter(found.values()), "a model without weights"))
            yield archive, graph, weights
