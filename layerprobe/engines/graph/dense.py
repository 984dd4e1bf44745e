"""Dense layers."""

from __future__ import annotations

import string
from collections.abc import Sequence

from openvino import opset13 as op

from layerprobe.engines.graph.activations import activate
from layerprobe.engines.graph.layer import BuildLayer, Layer
from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import (
    Value,
    as_float,
    constant,
    in_keras_order,
    known,
    value,
)


def _dense(layer: Layer, inputs: Sequence[Value]) -> Value:
    (tensor,) = inputs
    (size,) = known(tensor.shape[-1:])
    units = layer.config["units"]
    bias = {"bias": (units,)} if layer.config["use_bias"] else {}
    arrays = layer.arrays(kernel=(size, units), **bias)
    node = op.matmul(in_keras_order(as_float(tensor)), constant(arrays["kernel"]), False, False)
    if "bias" in arrays:
        node = op.add(node, constant(arrays["bias"]))
    return activate(layer, value(node))


def _einsum_dense(layer: Layer, inputs: Sequence[Value]) -> Value:
    """A sum of products over the axes that an equation such as "ab,bc->ac" names."""
    (tensor,) = inputs
    given, kernel_axes, made = named_axes(layer.config["equation"], [tensor.rank])
    sizes = dict(zip(given, tensor.shape, strict=True))
    units = layer.config["output_shape"]
    units = [units] if isinstance(units, int) else list(units)
    # The sizes that are asked for stand for the result's axes after the batch's, from where the file counts.
    first = len(made) - len(units) if layer.config["equation"].startswith("...") else 1
    for axis, size in zip(made[first:], units, strict=False):
        sizes[axis] = sizes.get(axis) if size is None else size
    shape = known([sizes[axis] for axis in kernel_axes])
    bias_axes = layer.config["bias_axes"] or ""
    bias_shape = tuple(sizes[axis] or 0 if axis in bias_axes else 1 for axis in made)
    bias = {"bias": bias_shape[min(map(made.index, bias_axes)) :]} if bias_axes else {}
    arrays = layer.arrays(kernel=shape, **bias)
    equation = f"{given},{kernel_axes}->{made}"
    node = op.einsum([in_keras_order(as_float(tensor)), constant(arrays["kernel"])], equation)
    if "bias" in arrays:
        node = op.add(node, constant(arrays["bias"]))
    return activate(layer, value(node))


def named_axes(equation: str, ranks: Sequence[int]) -> tuple[str, ...]:
    """The axes of an equation's operands and result, with a letter for each that "..." stands for.

    Args:
        equation: Such as "...x,xy->...y".
        ranks: Of the operands before the last; what "..." stands for is taken from the first that has it.
    """
    left, _, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = 0
    for operand, rank in zip(operands, ranks, strict=False):
        if "..." in operand:
            hidden = max(hidden, rank - len(operand) + 3)
    letters = "".join(free[:hidden])
    if not right or hidden < 0 or hidden > len(free):
        raise Unsupported(f"the equation {equation}")
    return tuple(operand.replace("...", letters) for operand in (*operands, right))


LAYERS: dict[str, BuildLayer] = {"Dense": _dense, "EinsumDense": _einsum_dense}
