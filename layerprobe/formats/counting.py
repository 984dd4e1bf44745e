"""How often each of many texts came, in little memory: there may be one for each of millions of rows."""

from __future__ import annotations

from array import array
from hashlib import blake2b

_FIRST = 1024
"""Places for hashes at the beginning; a power of 2."""


class Counted:
    """Counts texts by a hash of 64 bits, 12 to 24 bytes for each that came once.

    Of ten million texts two have the same hash once in some hundred thousand times; then the second counts
    as one that came before. The hash is the same in every process.
    """

    def __init__(self) -> None:
        self._hashes = array("Q", bytes(8 * _FIRST))
        """At the place that its last bits say, or at the next free one after it; 0 is free."""
        self._different = 0
        self._often: dict[int, int] = {}
        """How often those came that came more than once."""

    def add(self, text: str) -> int:
        """Count a text, and say how often it came by now."""
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "little") or 1
        place = self._place(number)
        if self._hashes[place]:
            count = self._often[number] = self._often.get(number, 1) + 1
            return count
        self._hashes[place] = number
        self._different += 1
        if 3 * self._different > 2 * len(self._hashes):
            self._grow()
        return 1

    def _place(self, number: int) -> int:
        """Where a hash stands, or would."""
        hashes, last = self._hashes, len(self._hashes) - 1
        place = number & last
        while hashes[place] not in (0, number):
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        before, self._hashes = self._hashes, array("Q", bytes(16 * len(self._hashes)))
        for number in before:
            if number:
                self._hashes[self._place(number)] = number
