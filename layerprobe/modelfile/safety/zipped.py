"""The zip of the `.keras` format: what its list of members claims, before any member is unpacked."""

from __future__ import annotations

import stat
import zipfile
from collections import Counter
from collections.abc import Iterator

from layerprobe.records import Finding

MAX_MEMBERS = 10_000
MAX_RATIO = 100
"""Unpacked bytes for each packed one, for members larger than `FREE_BYTES`; trained weights reach 1.3."""
FREE_BYTES = 16 << 20
_REGULAR = (0, stat.S_IFREG, stat.S_IFDIR)


def inspect_zip(archive: zipfile.ZipFile, place: str) -> Iterator[Finding]:
    """Look for members that point elsewhere, hide something, or unpack to far more than they take.

    Args:
        archive: Opened; nothing is read but its directory, which is in memory already.
        place: The file, for the findings.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        yield _refused(place, f"the zip has {len(members)} members: a .keras model needs fewer than 10")
        return
    for name, count in Counter(member.orig_filename for member in members).items():
        if count > 1:
            yield _refused(f"{place}:{name[:200]}", "the zip has two members of this name")
    for member in members:
        reason = _reason(member)
        if reason is not None:
            yield _refused(f"{place}:{member.orig_filename[:200]}", reason)


def _reason(member: zipfile.ZipInfo) -> str | None:
    """Why a member is refused; None where it is in order."""
    name = member.orig_filename
    if name.startswith("/") or name[1:2] == ":":
        return "the zip member has an absolute path"
    if "\\" in name or "\0" in name or ".." in name.split("/"):
        return "the zip member's name leads out of the model: it has '..', a backslash or a NUL in it"
    if stat.S_IFMT(member.external_attr >> 16) not in _REGULAR:
        return "the zip member is a link or a device, not a file"
    if member.flag_bits & 1:
        return "the zip member is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"the zip member is compressed by method {member.compress_type}, which Keras never uses"
    if name.lower().endswith((".npz", ".npy", ".pkl", ".pickle")):
        return "the zip member can hold pickled Python objects, which run code"
    if member.file_size > FREE_BYTES and member.file_size > MAX_RATIO * member.compress_size:
        size, packed = member.file_size / 2**20, member.compress_size / 2**20
        return f"the zip member unpacks from {packed:.1f} to {size:.0f} MiB, out of all proportion"
    return None


def _refused(place: str, message: str) -> Finding:
    return Finding("refused", place, message)
