"""HDF5 read with care: only what lies in the file itself, never through a link to somewhere else."""

from __future__ import annotations

from typing import Any

import h5py

from layerprobe.errors import ModelError, UnsafeModelError


def child(group: h5py.Group, name: str, place: str) -> Any:
    """The group or dataset at a path below `group`.

    Args:
        group: Where to begin.
        name: One name, or several with "/" between them.
        place: The file, for the errors.

    Raises:
        ModelError: There is nothing of that name.
        UnsafeModelError: It is a link, or a dataset whose numbers lie in another file.
    """
    found = group
    for step in name.split("/"):
        if not step:
            continue
        link = found.get(step, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise ModelError(f"{place} has no {found.name.rstrip('/')}/{step}: the file is incomplete.")
        if not isinstance(link, h5py.HardLink):
            raise UnsafeModelError(
                f"{place}: {found.name.rstrip('/')}/{step} is a link to elsewhere: refused."
            )
        found = found[step]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise UnsafeModelError(f"{place}: the numbers of {found.name} lie in another file: refused.")
    return found


def names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names kept in an attribute, or in numbered ones where it was too long for one.

    https://github.com/keras-team/keras/blob/v3.8.0/keras/src/legacy/saving/legacy_h5_format.py
    """
    attributes = group.attrs
    if attribute in attributes:
        values = list(attributes[attribute])
    else:
        values, chunk = [], 0
        while f"{attribute}{chunk}" in attributes:
            values += list(attributes[f"{attribute}{chunk}"])
            chunk += 1
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
