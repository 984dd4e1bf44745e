"""Tensors on their way through the graph that is built, and the order of their axes.

Keras's images are channels-last, and OpenVINO's convolutions want channels-first: with a transpose around
each of them a network runs at a third of its speed. So a tensor that a convolution gave stays as it is,
`turned`, until something needs Keras's own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.modelfile.arrays import Unread

if TYPE_CHECKING:
    from layerprobe.records import Array

Node: TypeAlias = ov.Node | ov.Output
"""What OpenVINO's operations take and give."""

Mask: TypeAlias = ov.Output | None
"""A boolean node, or none where all steps count."""

FLOATS = "float32"
_LARGE = 1 << 12
"""Bytes of a constant that are worth a reference rather than a copy."""
INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor."""

    node: ov.Output
    turned: bool = False
    """Whether the node's axes are (B, C, ...) where Keras's are (B, ..., C)."""
    mask: Mask = None
    """Which steps of it count, in Keras's order of axes; see `masks`."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes in Keras's order; None where a size is not known."""
        sizes = dims(self.node)
        return (sizes[0], *sizes[2:], sizes[1]) if self.turned else sizes

    @property
    def rank(self) -> int:
        """How many axes, the batch's included."""
        return len(self.node.get_partial_shape())

    @property
    def dtype(self) -> str:
        """NumPy's name of the type."""
        return dtype_of(self.node)


def value(node: Node, turned: bool = False) -> Value:
    """A tensor of a node with one output."""
    return Value(node.output(0) if isinstance(node, ov.Node) else node, turned)


def dims(node: Node) -> tuple[int | None, ...]:
    """The sizes of a node's own axes; None where a size is not known."""
    output = node.output(0) if isinstance(node, ov.Node) else node
    return tuple(size.get_length() if size.is_static else None for size in output.get_partial_shape())


def dtype_of(node: Node) -> str:
    """NumPy's name of a node's type."""
    output = node.output(0) if isinstance(node, ov.Node) else node
    return str(np.dtype(output.get_element_type().to_dtype()))


def known(sizes: Sequence[int | None]) -> tuple[int, ...]:
    """The same sizes; raises where one is not known."""
    if None in sizes:
        raise Unsupported("a size that only a run can tell")
    return tuple(size for size in sizes if size is not None)


def constant(values: Any, dtype: Any = np.float32) -> ov.Node:
    """Numbers as a node, which keeps an array that is large as it is: nobody may write to it afterwards."""
    if isinstance(values, Unread) and values.nbytes >= _LARGE:
        return op.broadcast(op.constant(np.zeros((), dtype)), whole(values.shape))
    numbers = _contiguous(np.asarray(values, dtype))
    # OpenVINO shares no array that Python may not write to; those of SavedModels are such.
    return op.constant(numbers, shared_memory=numbers.nbytes >= _LARGE and numbers.flags.writeable)


def _contiguous(array: Array) -> Array:
    """The same array with its axes in order in memory.

    Copied in strips that fit into the processor's cache: NumPy, which goes through a kernel from end to end,
    takes two to four times as long to transpose it.
    """
    if array.flags.c_contiguous or array.ndim < 2 or array.nbytes < _LARGE:
        return np.ascontiguousarray(array).reshape(array.shape)
    axis = int(np.argsort(array.strides)[1])
    made, width = np.empty(array.shape, array.dtype), max(16, array.shape[axis] // 1000)
    for start in range(0, array.shape[axis], width):
        strip = (slice(None),) * axis + (slice(start, start + width),)
        made[strip] = array[strip]
    return made


def whole(values: Any) -> ov.Node:
    """Whole numbers, such as axes and shapes, as a node."""
    return op.constant(np.asarray(values, np.int64))


def in_keras_order(tensor: Value) -> ov.Output:
    """The node with Keras's order of axes."""
    if not tensor.turned:
        return tensor.node
    return op.transpose(tensor.node, whole([0, *range(2, tensor.rank), 1])).output(0)


def channels_first(tensor: Value) -> ov.Output:
    """The node as (B, C, ...), for a tensor that is (B, ..., C) in Keras."""
    if tensor.turned or tensor.rank < 3:
        return tensor.node
    return op.transpose(tensor.node, whole([0, tensor.rank - 1, *range(1, tensor.rank - 1)])).output(0)


def axis_of(tensor: Value, axis: int) -> int:
    """Where one of Keras's axes is among the node's own."""
    axis = axis + tensor.rank if axis < 0 else axis
    if not 0 <= axis < tensor.rank:
        raise Unsupported(f"axis {axis} of a tensor with {tensor.rank} axes")
    if not tensor.turned or axis == 0:
        return axis
    return 1 if axis == tensor.rank - 1 else axis + 1


def along(tensor: Value, axes: Sequence[int], numbers: Any) -> ov.Node:
    """Numbers shaped so that they broadcast against the node.

    Args:
        tensor: What they meet.
        axes: Those of Keras's axes that the numbers' own axes stand for, in order.
        numbers: Of as many axes.
    """
    numbers = np.asanyarray(numbers, np.float32)
    places = [axis_of(tensor, axis) for axis in axes]
    order = np.argsort(places)
    shape = [1] * tensor.rank
    for place, size in zip(places, numbers.shape, strict=True):
        shape[place] = size
    return constant(numbers.transpose(order).reshape(shape))


def converted(node: Node, dtype: str) -> Node:
    """The same values as another type, by NumPy's name of it."""
    return op.convert(node, ov.Type(np.dtype(dtype)).to_string())


def as_float(tensor: Value) -> Value:
    """Whole numbers as float32, which is what they become where they meet a layer's weights."""
    if tensor.dtype == FLOATS:
        return tensor
    if tensor.dtype not in INTEGERS:
        raise Unsupported(f"values of type {tensor.dtype}")
    return Value(converted(tensor.node, FLOATS).output(0), tensor.turned, tensor.mask)


def only_float(tensor: Value) -> Value:
    """The same tensor; raises where it does not hold float32."""
    if tensor.dtype != FLOATS:
        raise Unsupported(f"values of type {tensor.dtype}")
    return tensor
