"""The bytes around the members of a zip archive, for an archive whose members have their places first.

After the format's description, APPNOTE.TXT 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT),
sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end) and 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""Members begin at multiples of this, as `.npy` data does, so that they can be memory-mapped."""
MANY_BYTES = 0xFFFFFFFF
MANY_MEMBERS = 0xFFFF
"""From these on, numbers stand in the 64-bit records, and all ones in their usual place."""
_ONES_32 = 0xFFFFFFFF
_ONES_16 = 0xFFFF

STORED = 0
DEFLATED = 8
_NAMES_ARE_UTF8 = 0x800
_ZIP64_VERSION = 45
_EPOCH = (0, 0x21)
"""1980-01-01: outputs do not depend on the clock."""
_UNIX = 3
_READABLE = 0o100644 << 16
_ZIP64_EXTRA = 1
_PADDING_EXTRA = 0xD935
"""Registered by Android for padding; readers skip it."""


@dataclass(slots=True)
class Member:
    """One file of an archive."""

    name: bytes
    """UTF-8."""
    place: int
    """Offset of its local header."""
    size: int
    """Bytes of what it holds."""
    method: int = STORED
    stored_size: int = 0
    """Bytes that it takes: `size` when it is stored as it is."""
    crc: int = 0

    @property
    def data_place(self) -> int:
        """Offset of its first byte, a multiple of `ALIGNMENT`."""
        header = self.place + 30 + len(self.name) + (20 if self.size >= MANY_BYTES else 0)
        # At least 4 more bytes, for the padding is a record with a header of its own.
        return (header + 4 + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

    @property
    def end(self) -> int:
        """Offset after its last byte."""
        return self.data_place + self.stored_size


def local_header(member: Member) -> bytes:
    """Write what stands before a member, `data_place - place` bytes."""
    large = member.size >= MANY_BYTES
    sizes = (_ONES_32, _ONES_32) if large else (member.stored_size, member.size)
    extra = struct.pack("<HHQQ", _ZIP64_EXTRA, 16, member.size, member.stored_size) if large else b""
    padding = member.data_place - member.place - 30 - len(member.name) - len(extra)
    extra += struct.pack("<HH", _PADDING_EXTRA, padding - 4) + bytes(padding - 4)
    fixed = struct.pack(
        "<4s5H3I2H",
        b"PK\x03\x04",
        _ZIP64_VERSION,
        _NAMES_ARE_UTF8,
        member.method,
        *_EPOCH,
        member.crc,
        *sizes,
        len(member.name),
        len(extra),
    )
    return fixed + member.name + extra


def central_directory(members: Sequence[Member], place: int) -> bytes:
    """Write the list of members that ends an archive, to stand at offset `place`."""
    entries = b"".join(_central_entry(member) for member in members)
    count, size, end = len(members), len(entries), place + len(entries)
    tail = b""
    if count >= MANY_MEMBERS or max(size, place) >= MANY_BYTES:
        versions = (_UNIX << 8 | _ZIP64_VERSION, _ZIP64_VERSION)
        tail += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, *versions, 0, 0, count, count, size, place)
        tail += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        count, size, place = _ONES_16, _ONES_32, _ONES_32
    return entries + tail + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, size, place, 0)


def _central_entry(member: Member) -> bytes:
    large = member.size >= MANY_BYTES
    sizes = (_ONES_32, _ONES_32) if large else (member.stored_size, member.size)
    numbers = [member.size, member.stored_size] if large else []
    if member.place >= MANY_BYTES:
        numbers.append(member.place)
    extra = struct.pack(f"<HH{len(numbers)}Q", _ZIP64_EXTRA, 8 * len(numbers), *numbers) if numbers else b""
    fixed = struct.pack(
        "<4s6H3I5H2I",
        b"PK\x01\x02",
        _UNIX << 8 | _ZIP64_VERSION,
        _ZIP64_VERSION,
        _NAMES_ARE_UTF8,
        member.method,
        *_EPOCH,
        member.crc,
        *sizes,
        len(member.name),
        len(extra),
        0,
        0,
        0,
        _READABLE,
        _ONES_32 if member.place >= MANY_BYTES else member.place,
    )
    return fixed + member.name + extra
