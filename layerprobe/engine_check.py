"""Every engine that can run a model against Keras, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from layerprobe.engines.agreement import limit, relative_difference
from layerprobe.errors import UnavailableError, UsageError
from layerprobe.modelfile.listing import describe
from layerprobe.options import ExtractOptions, ModelOptions
from layerprobe.records import TensorSpec
from layerprobe.run.batches import batches
from layerprobe.run.clock import Clock
from layerprobe.run.plan import takes_images
from layerprobe.run.preparing import prepare_run
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.request import open_sources

if TYPE_CHECKING:
    from layerprobe.protocols import Engine
    from layerprobe.records import Array

COMPARED = ("graph", "converted")
ROWS = 4
"""Of the random input, where none is given."""


@dataclass(slots=True)
class EngineCheck:
    """How far the engines are from Keras."""

    limit: float
    """What a layer's relative difference may be."""
    rows: int = 0
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    """Engine -> layer -> the largest relative difference; infinite where values cannot be compared."""
    problems: dict[str, str] = field(default_factory=dict)
    """Engine -> why it does not run the model."""

    distrusted: list[str] = field(default_factory=list)
    """Engines that compared themselves with Keras, and were given up for that."""

    @property
    def agreed(self) -> bool:
        """Whether every engine that runs the model computes what Keras computes."""
        found = (one for layers in self.differences.values() for one in layers.values())
        return not self.distrusted and all(difference <= self.limit for difference in found)


def check_engines(model: str, inputs: Sequence[str], options: ModelOptions) -> EngineCheck:
    """Run every engine over the same inputs, and compare all layers with Keras's.

    Args:
        model: Path of a saved model.
        inputs: Images or arrays; none: random numbers, the same in each call.
        options: What the file needs beside itself.

    Raises:
        UsageError: No input is given for a model of free size, or none that can be compared.
        LayerprobeError: Keras cannot run the model, as `extract` raises.
    """
    info = describe(model, options.weights, lambdas=options.lambdas, max_memory=options.max_memory)
    names = [layer.address for layer in info.layers if layer.problem is None]
    result = EngineCheck(limit(len(info.layers)))
    with closing(ProbedModel(model, names, options, "keras")) as keras:
        given = _given(keras, inputs) if inputs else _random(keras)
        engines: dict[str, Engine] = {}
        for batch in given:
            if not engines:
                specs = [
                    TensorSpec(spec.name, array.shape[1:], spec.dtype)
                    for spec, array in zip(keras.inputs, batch, strict=True)
                ]
                engines = _built(model, names, options, specs, result)
                reference = keras.engine(specs, batch_size=keras.fixed_batch_size)
            wanted = reference.run(batch)
            result.rows += len(batch[0])
            for name, engine in list(engines.items()):
                try:
                    found = engine.run(batch)
                except UnavailableError as error:  # The converted engine compares for itself.
                    result.problems[name] = str(error)
                    result.distrusted.append(name)
                    del engines[name]
                    continue
                worst = result.differences.setdefault(name, dict.fromkeys(wanted, 0.0))
                for layer, values in wanted.items():
                    worst[layer] = max(worst[layer], relative_difference(found[layer], values))
    if not result.rows:
        raise UsageError("no input can be used, so nothing was compared: give others.")
    return result


def _built(
    model: str, names: Sequence[str], options: ModelOptions, specs: Sequence[TensorSpec], result: EngineCheck
) -> dict[str, Engine]:
    engines = {}
    for name in COMPARED:
        try:
            probed = ProbedModel(model, names, options, name)
            engines[name] = probed.engine(specs, batch_size=probed.fixed_batch_size)
        except UnavailableError as error:
            result.problems[name] = str(error)
    return engines


def _given(keras: ProbedModel, inputs: Sequence[str]) -> Iterator[list[Array]]:
    """The rows of the inputs that can be read, a batch at a time."""
    run = prepare_run(keras, open_sources(inputs, None), ExtractOptions(engine="keras"), Clock())
    with closing(batches(run.feeds, run.engine.batch_size, workers=2)) as taken:
        for batch in taken:
            if batch.rows:
                yield list(batch.inputs)


def _random(keras: ProbedModel) -> Iterator[list[Array]]:
    """One batch of numbers such as models take: pixels, measures, and indices that every table has."""
    random = np.random.default_rng(0)
    rows = keras.fixed_batch_size or ROWS
    arrays: list[Array] = []
    for spec in keras.inputs:
        if None in spec.shape:
            raise UsageError(f"input {spec.name!r} takes any size: give images or arrays.")
        shape = (rows, *(size or 0 for size in spec.shape))
        if "float" not in spec.dtype:
            arrays.append(random.integers(0, 2, shape).astype(spec.dtype))
        elif takes_images(spec):
            arrays.append(random.uniform(0, 255, shape).astype(spec.dtype))
        else:
            arrays.append(random.normal(size=shape).astype(spec.dtype))
    yield arrays
