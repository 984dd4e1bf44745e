"""HDF5 read with care: only what lies in the file itself, never through a link to somewhere else."""

from __future__ import annotations

from typing import Any

import h5py
from h5py import h5a, h5d, h5g, h5i, h5l, h5o, h5t

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
    # By HDF5's own handles: h5py's objects take three times as long, and a model has hundreds of weights.
    found = group.id
    for step in filter(None, name.split("/")):
        try:
            link = found.links.get_info(step.encode()) if isinstance(found, h5g.GroupID) else None
        except KeyError:
            link = None
        if link is None:
            raise ModelError(f"{place} has no {_path(found)}/{step}: the file is incomplete.")
        if link.type != h5l.TYPE_HARD:
            raise UnsafeModelError(f"{place}: {_path(found)}/{step} is a link to elsewhere: refused.")
        found = h5o.open(found, step.encode())
    if isinstance(found, h5g.GroupID):
        return h5py.Group(found)
    if not isinstance(found, h5d.DatasetID):
        return h5py.Datatype(found)
    creation = found.get_create_plist()
    layout = creation.get_layout()
    if layout == h5d.VIRTUAL or (layout == h5d.CONTIGUOUS and creation.get_external_count()):
        raise UnsafeModelError(f"{place}: the numbers of {_path(found)} lie in another file: refused.")
    return h5py.Dataset(found)


def _path(found: Any) -> str:
    """Where a group or dataset is in its file."""
    name = h5i.get_name(found) or b""
    return str(name.decode("utf-8", "replace")).rstrip("/")


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
    if not known or count * stored.get_size() > h5i.get_file_id(owner.id).get_filesize():
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
