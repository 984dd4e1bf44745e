"""Those operations of expressions that move values without computing with them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import openvino as ov
from openvino import opset13 as op

from layerprobe.engines.graph.unsupported import Unsupported
from layerprobe.engines.graph.values import Node, constant, dims, dtype_of, known, whole


class OpenSize:
    """The number of rows, where a run decides it: it may name a size, but not be computed with."""


def _shape(x: Node) -> tuple[int | OpenSize, ...]:
    first, *others = dims(x) or (1,)
    return (OpenSize() if first is None else first, *known(others)) if dims(x) else ()


def place_of(axis: int, rank: int) -> int:
    """An axis counted from the front; raises where there is none."""
    place = axis + rank if axis < 0 else axis
    if not 0 <= place < rank:
        raise Unsupported(f"axis {axis} of a tensor with {rank} axes")
    return place


def _reshape(x: Node, newshape: Any) -> Node:
    wanted = [newshape] if isinstance(newshape, int) else list(newshape)
    sizes = dims(x)
    if any(isinstance(size, OpenSize) for size in wanted[1:]) or not wanted:
        raise Unsupported("a reshape that moves the rows")
    if isinstance(wanted[0], OpenSize):
        wanted[0] = -1
        if -1 in wanted[1:]:
            rest = math.prod(size for size in wanted[1:] if size != -1)
            wanted[wanted.index(-1, 1)] = math.prod(known(sizes[1:])) // max(rest, 1)
    if not all(type(size) is int for size in wanted) or wanted.count(-1) > 1 or 0 in wanted:
        raise Unsupported("a reshape to sizes that are computed")
    return op.reshape(x, whole(wanted), False)


def _flatten(x: Node) -> Node:
    return op.reshape(x, whole([-1, math.prod(known(dims(x)[1:]))]), False)


def _transpose(x: Node, axes: Any) -> Node:
    rank = len(dims(x))
    order = range(rank - 1, -1, -1) if axes is None else [place_of(axis, rank) for axis in axes]
    return op.transpose(x, whole(order))


def _expand_dims(x: Node, axis: Any) -> Node:
    axes = [axis] if isinstance(axis, int) else list(axis)
    rank = len(dims(x)) + len(axes)
    return op.unsqueeze(x, whole([place_of(axis, rank) for axis in axes]))


def _squeeze(x: Node, axis: Any) -> Node:
    sizes = dims(x)
    if axis is None:
        axes = [place for place, size in enumerate(known(sizes)) if size == 1]
    else:
        axes = [place_of(one, len(sizes)) for one in ([axis] if isinstance(axis, int) else axis)]
    if any(sizes[place] != 1 for place in axes):
        raise Unsupported("a squeeze of an axis that is longer than 1")
    return op.squeeze(x, whole(axes)) if axes else x


def _alike(xs: Any) -> list[Node]:
    nodes = list(xs)
    if not nodes or not all(isinstance(x, ov.Node | ov.Output) for x in nodes):
        raise Unsupported("numbers among tensors")
    types = {dtype_of(x) for x in nodes}
    if len(types) != 1:
        raise Unsupported("tensors of several types")
    return nodes


def _concatenate(xs: Any, axis: int) -> Node:
    nodes = _alike(xs)
    return op.concat(nodes, place_of(axis, len(dims(nodes[0]))))


def _stack(xs: Any, axis: int) -> Node:
    nodes = _alike(xs)
    place = place_of(axis, len(dims(nodes[0])) + 1)
    return op.concat([op.unsqueeze(x, whole([place])) for x in nodes], place)


def cut(x: Node, place: int, start: int, stop: int) -> Node:
    """The positions from `start` to before `stop` along an axis."""
    return op.slice(x, whole([start]), whole([stop]), whole([1]), whole([place]))


def split(x: Node, sections: Any, axis: int) -> tuple[Node, ...]:
    """Into so many equal parts, or at the positions given."""
    place = place_of(axis, len(dims(x)))
    (size,) = known([dims(x)[place]])
    if isinstance(sections, int):
        if sections < 1 or size % sections:
            raise Unsupported(f"a split of {size} into {sections}")
        ends = list(range(size // sections, size, size // sections))
    else:
        ends = list(sections)
    bounds = [0, *ends, size]
    pairs = list(itertools.pairwise(bounds))
    if any(not first < last for first, last in pairs):
        raise Unsupported("a split with empty parts")
    return tuple(cut(x, place, first, last) for first, last in pairs)


def _unstack(x: Node, num: int | None, axis: int) -> tuple[Node, ...]:
    place = place_of(axis, len(dims(x)))
    (size,) = known([dims(x)[place]])
    return tuple(op.squeeze(cut(x, place, i, i + 1), whole([place])) for i in range(size))


def _tile(x: Node, repeats: Any) -> Node:
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    if not all(type(count) is int for count in counts):
        raise Unsupported("a tile of so many times the rows")
    return op.tile(x, whole(counts))


def taken(x: Node, places: Sequence[int], axis: int) -> Node:
    """Some of the positions along an axis, in the order given."""
    return op.gather(x, whole(list(places)), constant(axis, "int64"))


def _repeat(x: Node, repeats: int, axis: int | None) -> Node:
    if axis is None or type(repeats) is not int:
        raise Unsupported("a repeat of everything")
    place = place_of(axis, len(dims(x)))
    (size,) = known([dims(x)[place]])
    return taken(x, [i for i in range(size) for _ in range(repeats)], place)


def _flip(x: Node, axis: Any) -> Node:
    if axis is None:
        raise Unsupported("a flip of all axes")
    for one in [axis] if isinstance(axis, int) else axis:
        place = place_of(one, len(dims(x)))
        (size,) = known([dims(x)[place]])
        x = taken(x, range(size - 1, -1, -1), place)
    return x


def _take(x: Node, indices: Any, axis: int | None) -> Node:
    if axis is None or not isinstance(indices, int | tuple):
        raise Unsupported("a take by computed indices")
    place = place_of(axis, len(dims(x)))
    (size,) = known([dims(x)[place]])
    flat = [indices] if isinstance(indices, int) else list(indices)
    if not all(type(index) is int and -size <= index < size for index in flat):
        raise Unsupported("a take of places that are not there")
    node = taken(x, [index % size for index in flat], place)
    return op.squeeze(node, whole([place])) if isinstance(indices, int) else node


def _pad(x: Node, pad_width: Any, mode: str, constant_values: float) -> Node:
    rank = len(dims(x))
    pairs: list[Any] = [pad_width] * rank if isinstance(pad_width, int) else list(pad_width)
    pairs = [[pair, pair] if isinstance(pair, int) else list(pair) for pair in pairs]
    pairs = pairs * rank if len(pairs) == 1 else pairs
    if len(pairs) != rank or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise Unsupported(f"padding by {pad_width}")
    before, after = (whole([pair[end] for pair in pairs]) for end in (0, 1))
    kind = dtype_of(x)
    return op.pad(x, before, after, mode, constant(constant_values, kind))


def _index(x: Node, key: Any) -> Node:
    """`x[key]`, for whole numbers, slices, None and `...`."""
    keys = list(key) if isinstance(key, tuple) else [key]
    rank = len(dims(x))
    taking = sum(one is not None and one is not Ellipsis for one in keys)
    if Ellipsis in [one for one in keys if isinstance(one, type(...))]:
        at = next(place for place, one in enumerate(keys) if one is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (rank - taking)
    gone, added, axis, shown = [], [], 0, 0
    for one in keys:
        if one is None:
            added.append(shown)
            shown += 1
            continue
        x = _indexed(x, one, axis)
        if isinstance(one, int):
            gone.append(axis)
        else:
            shown += 1
        axis += 1
    x = op.squeeze(x, whole(gone)) if gone else x
    return op.unsqueeze(x, whole(added)) if added else x


def _indexed(x: Node, key: Any, axis: int) -> Node:
    """One entry of an index; a whole number leaves an axis of size 1."""
    if axis >= len(dims(x)):
        raise Unsupported("an index with too many entries")
    if key == slice(None):
        return x
    (size,) = known([dims(x)[axis]])
    if type(key) is int and -size <= key < size:
        return cut(x, axis, key % size, key % size + 1)
    if isinstance(key, slice) and all(part is None or type(part) is int for part in _parts(key)):
        places = range(*key.indices(size))
        if len(places):
            return cut(x, axis, places[0], places[-1] + 1) if places.step == 1 else taken(x, places, axis)
    raise Unsupported(f"the index {key!r}")


def _parts(key: slice) -> tuple[Any, Any, Any]:
    return key.start, key.stop, key.step


def _resize(x: Node, size: Sequence[int], interpolation: str, half_pixel_centers: bool) -> Node:
    for axis, length in zip((-3, -2), size, strict=True):
        x = resized(x, place_of(axis, len(dims(x))), length, interpolation, half_pixel_centers)
    return x


def resized(x: Node, axis: int, length: int, interpolation: str, half_pixel_centers: bool) -> Node:
    """One axis at another length; pixels lie at their centres, or in TensorFlow 1 at their corners."""
    (size,) = known([dims(x)[axis]])
    if type(length) is not int or length < 1:
        raise Unsupported("a resize to a size that is computed")
    shift = 0.5 if half_pixel_centers else 0.0
    if interpolation == "nearest":
        return taken(x, [min(int((i + shift) * size / length), size - 1) for i in range(length)], axis)
    places = [max((i + shift) * size / length - shift, 0.0) for i in range(length)]
    below = [min(int(place), size - 1) for place in places]
    low, high = taken(x, below, axis), taken(x, [min(b + 1, size - 1) for b in below], axis)
    shape = [length if dimension == axis else 1 for dimension in range(len(dims(x)))]
    share = constant([place - b for place, b in zip(places, below, strict=True)])
    share = op.reshape(share, whole(shape), False)
    return op.add(low, op.multiply(op.subtract(high, low), share))


def _depth_to_space(x: Node, block: int) -> Node:
    height, width, channels = known(dims(x)[1:])
    depth = channels // block**2
    apart = op.reshape(x, whole([-1, height, width, block, block, depth]), False)
    moved = op.transpose(apart, whole([0, 1, 3, 2, 4, 5]))
    return op.reshape(moved, whole([-1, height * block, width * block, depth]), False)


def _space_to_depth(x: Node, block: int) -> Node:
    height, width, channels = known(dims(x)[1:])
    rows, columns = height // block, width // block
    apart = op.reshape(x, whole([-1, rows, block, columns, block, channels]), False)
    moved = op.transpose(apart, whole([0, 1, 3, 2, 4, 5]))
    return op.reshape(moved, whole([-1, rows, columns, channels * block**2]), False)


REARRANGING: dict[str, Callable[..., Any]] = {
    "concatenate": _concatenate,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "flatten": _flatten,
    "flip": _flip,
    "index": _index,
    "ndim": lambda x: len(dims(x)),
    "pad": _pad,
    "repeat": _repeat,
    "reshape": _reshape,
    "resize": _resize,
    "shape": _shape,
    "space_to_depth": _space_to_depth,
    "split": split,
    "squeeze": _squeeze,
    "stack": _stack,
    "take": _take,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
