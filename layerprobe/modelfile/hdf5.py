"""HDF5 read with care: only what lies in the file itself, never through a link to somewhere else."""

from __future__ import annotations

from typing import Any

import h5py
from h5py import h5a, h5l, h5t

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
        try:
            link = found.id.links.get_info(step.encode()) if isinstance(found, h5py.Group) else None
        except KeyError:
            link = None
        if link is None:
            raise ModelError(f"{place} has no {found.name.rstrip('/')}/{step}: the file is incomplete.")
        if link.type != h5l.TYPE_HARD:
            raise UnsafeModelError(
                f"{place}: {found.name.rstrip('/')}/{step} is a link to elsewhere: refused."
            )
        found = found[step]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise UnsafeModelError(f"{place}: the numbers of {found.name} lie in another file: refused.")
    return found


def dataset(group: h5py.Group, name: str, place: str) -> h5py.Dataset:
    """The dataset at a path below `group`; the same arguments and errors as `child`."""
    found = child(group, name, place)
    if not isinstance(found, h5py.Dataset):
        raise ModelError(f"{place} is damaged: {found.name} is no array.")
    return found


def attribute(owner: h5py.Group, name: str, place: str) -> Any:
    """An attribute's text, numbers, or array of these; None where there is none of that name.

    The type is looked at first: HDF5 itself crashes on the types that damaged files come to have.

    Raises:
        ModelError: It is of another type, or larger than the file.
    """
    if not h5a.exists(owner.id, name.encode()):
        return None
    found = h5a.open(owner.id, name.encode())
    stored = found.get_type()
    count = found.get_space().get_simple_extent_npoints()
    known = stored.get_class() in (h5t.STRING, h5t.INTEGER, h5t.FLOAT)
    if not known or count * stored.get_size() > owner.file.id.get_filesize():
        raise ModelError(f"{place} is damaged: its attribute {name} is no text and no number.")
    return owner.attrs[name]


def names(group: h5py.Group, name: str) -> list[str]:
    """A list of names kept in an attribute, or in numbered ones where it was too long for one.

    https://github.com/keras-team/keras/blob/v3.8.0/keras/src/legacy/saving/legacy_h5_format.py
    """
    place = f"the HDF5 group {group.name}"
    stored = attribute(group, name, place)
    parts = [] if stored is None else [stored]
    while stored is None and (part := attribute(group, f"{name}{len(parts)}", place)) is not None:
        parts.append(part)
    values = [value for part in parts for value in part]
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
