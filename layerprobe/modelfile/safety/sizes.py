"""Numbers in a config that would allocate more than the machine should give."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from layerprobe.modelfile.graph import Graph, LayerNode, walk_layer
from layerprobe.options import MAX_MEMORY

_WEIGHTS = {
    "Dense": ("units",),
    "Embedding": ("input_dim", "output_dim"),
    "LayerScale": ("projection_dim",),
    "MultiHeadAttention": ("num_heads", "key_dim"),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), ("filters", "kernel_size")),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), ("filters", "kernel_size")),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), ("filters", "kernel_size")),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), ("kernel_size", "depth_multiplier")),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), ("filters",)),
    **dict.fromkeys(("GRU", "GRUCell", "LSTM", "LSTMCell", "SimpleRNN", "SimpleRNNCell"), ("units",)),
}
"""Class -> arguments whose product its weights cannot have fewer numbers than."""

_OUTPUTS = (
    *(("batch_shape",), ("depth_multiplier",), ("dilation_rate",), ("fft_length",), ("height", "width")),
    *(("max_tokens",), ("n",), ("num_bins",), ("num_tokens",), ("padding",), ("size",), ("target_shape",)),
)
"""Arguments whose product a tensor of the layer cannot be smaller than."""


def oversized(
    graph: Graph, parameters: Callable[[str], int | None], max_memory: int = MAX_MEMORY
) -> dict[str, str]:
    """Find the layers that ask for more memory than they could have been trained with.

    Args:
        graph: The whole model.
        parameters: Address -> numbers in the layer's stored weights; None where that is not known.
        max_memory: Bytes that one layer may ask for.

    Returns:
        Address -> why, for those layers.
    """
    found = {}
    for outer in graph.layers:
        for address, node in walk_layer(outer):
            stored = parameters(address) if node.class_name in _WEIGHTS else None
            reason = _reason(node, stored, max_memory)
            if reason is not None:
                found[address] = reason
    return found


def _reason(node: LayerNode, stored: int | None, max_memory: int) -> str | None:
    arguments = _WEIGHTS.get(node.class_name, ())
    numbers = math.prod(_product(node.config.get(name)) for name in arguments)
    shown = _shown(node, arguments)
    if arguments and stored and numbers > stored:
        return f"its {shown} ask for {numbers} numbers, but its stored weights have {stored}"
    if not stored and 4 * numbers > max_memory:
        return f"its {shown} would need {_gib(4 * numbers)}, more than {_gib(max_memory)}"
    transposed = (("strides",),) if node.class_name.endswith("Transpose") else ()
    for names in (*_OUTPUTS, *transposed):
        size = 4 * math.prod(_product(node.config.get(name)) for name in names)
        if size > max_memory:
            return f"its {_shown(node, names)} would need {_gib(size)}, more than {_gib(max_memory)}"
    return None


def _product(value: Any) -> int:
    """The whole numbers of an argument multiplied, signs and zeros aside."""
    if type(value) is int:
        return max(1, abs(value))
    if isinstance(value, list | tuple):
        return math.prod(_product(item) for item in value)
    return 1


def _shown(node: LayerNode, arguments: tuple[str, ...]) -> str:
    given = (name for name in arguments if name in node.config)
    return ", ".join(f"{name}={str(node.config[name])[:60]}" for name in given)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
