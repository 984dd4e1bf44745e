"""Byte code -> instructions, for every CPython from 2.7 to 3.13; xdis knows the numbers of the opcodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from layerprobe.modelfile.lambdas.unmarshal import BadCode

VERSIONS = ((2, 7), *((3, minor) for minor in range(4, 14)))
"""What may have saved a Lambda layer: nothing in the file says which."""

MAX_INSTRUCTIONS = 2_000

_CACHES = {
    (3, 11): {
        "BINARY_OP": 1,
        "BINARY_SUBSCR": 4,
        "CALL": 4,
        "COMPARE_OP": 2,
        "LOAD_ATTR": 4,
        "LOAD_GLOBAL": 5,
        "LOAD_METHOD": 10,
        "PRECALL": 1,
        "UNPACK_SEQUENCE": 1,
    },
    (3, 12): {
        "BINARY_OP": 1,
        "BINARY_SUBSCR": 1,
        "CALL": 3,
        "COMPARE_OP": 1,
        "LOAD_ATTR": 9,
        "LOAD_GLOBAL": 4,
        "UNPACK_SEQUENCE": 1,
    },
}
_CACHES[3, 13] = _CACHES[3, 12]
"""Code units that the interpreter keeps for itself behind an instruction: Lib/opcode.py of that version."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation of the stack machine."""

    name: str
    argument: int


def instructions(code: bytes, version: tuple[int, int]) -> Iterator[Instruction]:
    """Split byte code into instructions, long arguments put together, caches left out.

    Raises:
        BadCode: An opcode that this version does not have, a cut instruction, caches at the wrong places.
    """
    names, have_argument = _opcodes(version)
    caches = _CACHES.get(version, {})
    extended = expected_caches = 0
    for opcode, argument in _units(code, version, have_argument):
        name = names.get(opcode)
        if name is None:
            raise BadCode(f"opcode {opcode} does not exist in Python {version[0]}.{version[1]}")
        if (name == "CACHE") != (expected_caches > 0):
            raise BadCode("the byte code is inconsistent")
        if expected_caches:
            expected_caches -= 1
            continue
        argument |= extended
        extended = 0
        if name == "EXTENDED_ARG":
            if argument >= 1 << 16:
                raise BadCode("an argument is too large")
            extended = argument << (8 if version >= (3, 6) else 16)
            continue
        expected_caches = caches.get(name, 0)
        yield Instruction(name, argument)
    if extended or expected_caches:
        raise BadCode("the byte code is truncated")


def _units(code: bytes, version: tuple[int, int], have_argument: int) -> Iterator[tuple[int, int]]:
    """Pairs of opcode and argument: two bytes each from 3.6 on, one or three bytes before."""
    if len(code) > 8 * MAX_INSTRUCTIONS:
        raise BadCode(f"more than {MAX_INSTRUCTIONS} instructions")
    if version >= (3, 6):
        if len(code) % 2:
            raise BadCode("the byte code is truncated")
        yield from zip(code[::2], code[1::2], strict=True)
        return
    position = 0
    while position < len(code):
        opcode = code[position]
        size = 3 if opcode >= have_argument else 1
        if position + size > len(code):
            raise BadCode("the byte code is truncated")
        yield opcode, int.from_bytes(code[position + 1 : position + size], "little")
        position += size


@cache
def _opcodes(version: tuple[int, int]) -> tuple[dict[int, str], int]:
    major, minor = version
    module = import_module(f"xdis.opcodes.opcode_{major}x.opcode_{major}{minor}")
    return {number: name for name, number in module.opmap.items()}, module.HAVE_ARGUMENT
