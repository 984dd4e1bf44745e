"""Nested lists, tuples and dicts of tensors, as calls and models have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerprobe.modelfile.graph import Reference


def flat(structure: Any) -> list[Any]:
    """The leaves of lists, tuples and dicts in Keras's order, which goes by a dict's sorted keys."""
    if isinstance(structure, Mapping):
        return [leaf for key in sorted(structure) for leaf in flat(structure[key])]
    if isinstance(structure, list | tuple):
        return [leaf for item in structure for leaf in flat(item)]
    return [structure]


def fill(structure: Any, tensor: Any) -> Any:
    """A structure with every `Reference` in it replaced by its tensor."""
    if isinstance(structure, Reference):
        return tensor(structure)
    if isinstance(structure, list | tuple):
        return type(structure)(fill(item, tensor) for item in structure)
    if isinstance(structure, dict):
        return {key: fill(item, tensor) for key, item in structure.items()}
    return structure
