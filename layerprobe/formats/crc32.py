"""CRC-32 of bytes from the CRC-32 of their parts, as zlib's `crc32_combine`, which Python does not offer.

A CRC is a polynomial over GF(2) modulo that of zlib, its highest power in the lowest bit. To append n zero
bytes multiplies it by x^(8n); see `crc32_combine_gen` in https://github.com/madler/zlib/blob/develop/crc32.c.
"""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
_X = 1 << 30


def combine(first: int, second: int, length: int) -> int:
    """Give the CRC-32 of two parts together.

    Args:
        first: CRC-32 of the first part.
        second: CRC-32 of the second part.
        length: Of the second part, in bytes.
    """
    return _multiply(_zeros(length), first) ^ second


@cache
def _zeros(length: int) -> int:
    """x^(8 * length)."""
    product, power = _ONE, 3
    while length:
        if length & 1:
            product = _multiply(_squares()[power % 32], product)
        length >>= 1
        power += 1
    return product


@cache
def _squares() -> tuple[int, ...]:
    """x^(2^n) for n = 0 to 31, after which they repeat."""
    squares = [_X]
    while len(squares) < 32:
        squares.append(_multiply(squares[-1], squares[-1]))
    return tuple(squares)


def _multiply(first: int, second: int) -> int:
    """The product of two polynomials."""
    product = 0
    while first:
        if first & _ONE:
            product ^= second
        first = (first << 1) & 0xFFFFFFFF
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product
