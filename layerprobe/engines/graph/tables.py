"""Every layer class that the graph engine knows; a new family is one file and one line here."""

from __future__ import annotations

from layerprobe.engines.graph import (
    activations,
    categories,
    convolution,
    dense,
    embedding,
    expressions,
    images,
    merge,
    normalisation,
    pooling,
    recurrent,
    shape,
)
from layerprobe.engines.graph.layer import BuildLayer

LAYERS: dict[str, BuildLayer] = {
    **activations.LAYERS,
    **categories.LAYERS,
    **convolution.LAYERS,
    **dense.LAYERS,
    **embedding.LAYERS,
    **expressions.LAYERS,
    **images.LAYERS,
    **merge.LAYERS,
    **normalisation.LAYERS,
    **pooling.LAYERS,
    **recurrent.LAYERS,
    **shape.LAYERS,
}

MASK_READERS = (
    "Bidirectional",
    "GRU",
    "GlobalAveragePooling1D",
    "LSTM",
    "Multiply",
    "SimpleRNN",
    "Softmax",
    "TimeDistributed",
)
"""The classes whose values depend on a mask, as far as they are among `LAYERS`."""

KEYWORDS: dict[str, tuple[str, ...]] = dict.fromkeys(("GRU", "LSTM", "SimpleRNN"), ("initial_state",))
"""The classes whose calls take more than inputs, and what."""

OTHER_TYPES: dict[str, tuple[str, ...]] = {"IntegerLookup": ("int64",)}
"""The classes whose own type may be another than float32, and which."""
