"""The structure of an HDF5 file: every link and dataset, before any number is read.

A link, external storage or a virtual dataset lets one file read another; a filter that is not built in makes
HDF5 load a library; a dataset can claim terabytes in a few bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import h5py
from h5py import h5d, h5g, h5l, h5o, h5t, h5z

from layerprobe.records import Finding

MAX_OBJECTS = 50_000
"""A large architecture, saved with its optimizer, has 10,000."""
MAX_RATIO = 100
"""Claimed bytes for each byte in the file, beyond `FREE_BYTES`."""
FREE_BYTES = 64 << 20

_FILTERS = (
    h5z.FILTER_DEFLATE,
    h5z.FILTER_SHUFFLE,
    h5z.FILTER_FLETCHER32,
    h5z.FILTER_SZIP,
    h5z.FILTER_NBIT,
    h5z.FILTER_SCALEOFFSET,
    h5z.FILTER_LZF,
)
_TYPES = (h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM, h5t.BITFIELD, h5t.OPAQUE)


@dataclass(slots=True)
class _Links:
    """What a walk over all links found; the walk never follows a soft or external one."""

    datasets: dict[bytes, h5d.DatasetID] = field(default_factory=dict)
    refused: list[tuple[bytes, str]] = field(default_factory=list)
    count: int = 0


def inspect_hdf5(file: h5py.File, place: str) -> Iterator[Finding]:
    """Look for links, foreign storage, unknown filters and claims out of proportion.

    Args:
        file: Opened for reading.
        place: The file, for the findings.
    """
    size = file.id.get_filesize()
    links = _walk(file)
    for name, reason in links.refused:
        yield _finding(place, name, reason)
    if links.count > MAX_OBJECTS:
        yield Finding("refused", place, f"the HDF5 file has more than {MAX_OBJECTS} objects")
    if links.refused or links.count > MAX_OBJECTS:
        return
    total = 0
    for name, dataset in links.datasets.items():
        excess = _reason(dataset, size)
        if excess is not None:
            yield _finding(place, name, excess)
        total += _claimed(dataset)
    if total > MAX_RATIO * size + FREE_BYTES:
        yield Finding("refused", place, f"its datasets claim {_gib(total)} in a file of {size} bytes")


def _walk(file: h5py.File) -> _Links:
    """Every link, each group once, however the groups are tied together."""
    links = _Links()
    seen: set[int] = set()  # Places of objects: several links can lead to one.

    def visit(name: bytes, info: h5l.LinkInfo) -> bool | None:
        links.count += 1
        if links.count > MAX_OBJECTS:
            return True
        if info.type != h5l.TYPE_HARD:
            link = "a soft link" if info.type == h5l.TYPE_SOFT else "an external link"
            links.refused.append((name, f"it is {link} to {_target(file, name)}"))
            return None
        try:
            found = h5o.open(file.id, name) if info.u not in seen else None
        except (RuntimeError, OSError, KeyError, ValueError) as error:  # HDF5 must not see it pass.
            links.refused.append((name, f"it is damaged ({error})"))
            return True
        seen.add(info.u)
        if isinstance(found, h5d.DatasetID):
            links.datasets[name] = found
        elif found is not None and not isinstance(found, h5g.GroupID):
            links.refused.append((name, "it is neither a group nor a dataset"))
        return None

    file.id.links.visit(visit, info=True)
    return links


def _target(file: h5py.File, name: bytes) -> str:
    try:
        value = file.id.links.get_val(name)
    except (RuntimeError, OSError, ValueError, KeyError):
        return "elsewhere"
    parts = value if isinstance(value, tuple) else (value,)
    return ":".join(_text(part) for part in parts)[:200]


def _reason(dataset: h5d.DatasetID, size: int) -> str | None:
    """Why a dataset is refused; None where it is in order."""
    creation = dataset.get_create_plist()
    if creation.get_layout() == h5d.VIRTUAL:
        return "it is a virtual dataset, made of parts of other files"
    if creation.get_layout() == h5d.CONTIGUOUS and creation.get_external_count():
        return f"its numbers lie in another file, {_text(creation.get_external(0)[0])[:200]}"
    filters = [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
    unknown = [number for number in filters if number not in _FILTERS]
    if unknown:
        return f"it needs the HDF5 filter {unknown[0]}, which would be a library loaded from this machine"
    if dataset.get_type().get_class() not in _TYPES:
        return "it holds no plain numbers or text"
    claimed, stored = _claimed(dataset), dataset.get_storage_size()
    if stored > size or claimed > MAX_RATIO * stored + FREE_BYTES:
        return f"it claims {_gib(claimed)}, of which the file of {size} bytes stores {min(stored, size)}"
    if creation.get_layout() == h5d.CHUNKED:
        chunk = math.prod(creation.get_chunk()) * dataset.get_type().get_size()
        if chunk > claimed + FREE_BYTES:
            return f"its chunks claim {_gib(chunk)} each"
    return None


def _claimed(dataset: h5d.DatasetID) -> int:
    """Bytes that reading it whole would take."""
    points: int = dataset.get_space().get_simple_extent_npoints()
    itemsize: int = dataset.get_type().get_size()
    return points * itemsize


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _finding(place: str, name: bytes, reason: str) -> Finding:
    return Finding("refused", f"{place}:/{_text(name)[:300]}", reason)
