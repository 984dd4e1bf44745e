"""Every layer class that the graph engine knows; a new family is one file and one line here."""

from __future__ import annotations

from layerprobe.engines.graph import (
    activations,
    attention,
    categories,
    convolution,
    dense,
    embedding,
    expressions,
    images,
    masks,
    merge,
    normalisation,
    pooling,
    recurrent,
    recurrent_convolution,
    shape,
    wrappers,
)
from layerprobe.engines.graph.layer import BuildLayer

LAYERS: dict[str, BuildLayer] = {
    **activations.LAYERS,
    **attention.LAYERS,
    **categories.LAYERS,
    **convolution.LAYERS,
    **dense.LAYERS,
    **embedding.LAYERS,
    **expressions.LAYERS,
    **images.LAYERS,
    **masks.LAYERS,
    **merge.LAYERS,
    **normalisation.LAYERS,
    **pooling.LAYERS,
    **recurrent.LAYERS,
    **recurrent_convolution.LAYERS,
    **shape.LAYERS,
    **wrappers.LAYERS,
}

_HEADS = ("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask")
FLAGS = ("use_causal_mask", "return_attention_scores")
"""Arguments of calls that are true or false."""

KEYWORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("AdditiveAttention", "Attention"), FLAGS),
    **dict.fromkeys(("GroupQueryAttention", "MultiHeadAttention"), (*_HEADS, *FLAGS)),
    **dict.fromkeys(("Bidirectional", "GRU", "LSTM", "RNN", "SimpleRNN"), ("initial_state",)),
}
"""The classes whose calls take more than inputs and a mask, and what."""

OTHER_TYPES: dict[str, tuple[str, ...]] = {"IntegerLookup": ("int64",)}
"""The classes whose own type may be another than float32, and which."""
