"""`layers`: what a saved model consists of, and what each layer gives."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from layerprobe.engines.keras_model import load, output_shapes
from layerprobe.engines.openvino_import import import_openvino
from layerprobe.modelfile.listing import describe_file
from layerprobe.modelfile.model_file import ModelFile
from layerprobe.options import MAX_MEMORY, ModelOptions
from layerprobe.records import LayerInfo
from layerprobe.run.probed_model import describe_live

if TYPE_CHECKING:
    from layerprobe.engines.graph.shapes import Shapes


def layers(
    path: str | os.PathLike[str],
    *,
    shapes: bool = False,
    custom_objects: Mapping[str, Any] | None = None,
    weights: str | None = None,
    lambdas: Mapping[str, str] | None = None,
    max_memory: int = MAX_MEMORY,
) -> tuple[LayerInfo, ...]:
    """The layers of a saved model, from its file alone: its weights are not read, and no Keras is needed.

    Args:
        path: The model.
        shapes: Load the model with Keras for the shapes that the file alone does not tell, if there are any:
            those of layers that the graph engine cannot compute.
        custom_objects: The user's own classes and functions, by name; with them a model is loaded whose file
            lists no layers.
        weights: Of an HDF5 file with the weights, for a model that came without them.
        lambdas: Expressions for Lambda layers, by address or bare name.
        max_memory: Bytes that one layer may ask for beyond the file's weights, or one tensor of one row.

    Returns:
        An outer layer before its inner ones; empty for a subclassed model that was not loaded.
    """
    options = ModelOptions(custom_objects or {}, weights, lambdas or {}, max_memory)
    with ModelFile(os.fspath(path), options) as file:
        info = describe_file(file)
        found = _with_shapes(file, info.layers)
        reachable = [layer.address for layer in found if layer.problem is None]
        missing = shapes and any(layer.problem is None and layer.shapes is None for layer in found)
        if not missing and (found or not custom_objects):
            return found
        model = load(file, set(reachable) if found else None)
    live = describe_live(model, info)
    found = found or tuple(replace(layer, engine="keras") for layer in live.layers)
    if not shapes:
        return found

    known = output_shapes(model, reachable or [layer.address for layer in found], live.inputs)
    return tuple(_known(layer, known.get(layer.address)) for layer in found)


def _with_shapes(file: ModelFile, found: Sequence[LayerInfo]) -> tuple[LayerInfo, ...]:
    """The layers with the first engine that computes each, and its shapes where that is the graph engine."""
    shapes = _graph_shapes(file, found)

    def engine(layer: LayerInfo) -> Literal["graph", "keras"] | None:
        if layer.problem is not None or not file.weights.present:
            return None
        return "graph" if layer.address in shapes and not file.options.custom_objects else "keras"

    return tuple(replace(_known(layer, shapes.get(layer.address)), engine=engine(layer)) for layer in found)


def _graph_shapes(file: ModelFile, found: Sequence[LayerInfo]) -> dict[str, Shapes]:
    import_openvino()
    try:
        from layerprobe.engines.graph.shapes import layer_shapes
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        return {}
    return layer_shapes(file, found)


def _known(layer: LayerInfo, shapes: Shapes | None) -> LayerInfo:
    """A layer with what its shapes tell."""
    if shapes is None:
        return layer
    sizes = [size for shape in shapes for size in shape]
    numbers = None if None in sizes else sum(math.prod(size or 0 for size in shape) for shape in shapes)
    return replace(layer, shapes=shapes, row_bytes=None if numbers is None else 4 * numbers)
