"""Reads a marshalled code object of any CPython from 2.7 to 3.13 as plain data.

CPython's own `marshal.loads` reads only its own version, and is documented as unsafe on untrusted bytes.
This reader knows the few types that a lambda's code object is made of, builds nothing but numbers, text and
tuples, and stops at fixed limits. Format: Python/marshal.c, and Objects/codeobject.c for the order of fields.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1 << 16
"""Of one marshalled function; the largest Lambda found in published files has 800."""
_MAX_DEPTH = 20
_MAX_OBJECTS = 5_000


class BadCode(Exception):
    """The bytes are no code object of this Python version."""


@dataclass(frozen=True, slots=True)
class Code:
    """What decoding needs of a code object."""

    argument_count: int
    keyword_only_count: int
    stack_size: int
    flags: int
    code: bytes
    constants: tuple[Any, ...]
    names: tuple[str, ...]
    locals: tuple[str, ...]
    """Arguments first; from 3.11 on cell and free variables follow."""
    cells: tuple[str, ...]
    """Cell variables, then free variables; empty from 3.11 on."""
    free: tuple[str, ...]
    """Variables of an outer function, in the order of the closure."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """A constant that no expression can hold: nested code, a complex number, a set."""

    kind: str


def read_code(data: bytes, version: tuple[int, int]) -> Code:
    """Read one marshalled code object.

    Args:
        data: The whole of what `marshal.dumps(function.__code__)` gave.
        version: The Python that is supposed to have written it: (2, 7), (3, 4) ... (3, 13).

    Raises:
        BadCode: The bytes do not fit that version, or exceed the limits.
    """
    if len(data) > MAX_BYTES:
        raise BadCode(f"the byte code is larger than {MAX_BYTES} bytes")
    reader = _Reader(data, version)
    try:
        code = reader.object()
    except (struct.error, UnicodeDecodeError) as error:
        raise BadCode("the byte code is damaged") from error
    if not isinstance(code, Code) or reader.position != len(data):
        raise BadCode("the bytes are not one code object")
    return code


class _Reader:
    def __init__(self, data: bytes, version: tuple[int, int]) -> None:
        self.position = 0
        self._data = data
        self._version = version
        self._references: list[Any] = []
        self._interned: list[str] = []
        self._depth = 0
        self._objects = 0

    def object(self) -> Any:
        kind = self._take(1)[0]
        keep = bool(kind & 0x80)
        read = _TYPES.get(chr(kind & 0x7F))
        self._objects += 1
        self._depth += 1
        if read is None or (keep and self._version < (3, 4)):
            raise BadCode(f"type {kind:#x} does not occur in a function")
        if self._depth > _MAX_DEPTH or self._objects > _MAX_OBJECTS:
            raise BadCode("the byte code is nested too deep or holds too many objects")
        slot = len(self._references)
        if keep:
            self._references.append(Opaque("a reference to itself"))
        value = read(self)
        if keep:
            self._references[slot] = value
        self._depth -= 1
        return value

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self._data):
            raise BadCode("the byte code is truncated")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _unpack(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _bytes(self) -> bytes:
        return self._take(self._unpack("<i"))

    def _short_text(self) -> str:
        return self._take(self._unpack("<B")).decode("ascii")

    def _interned_text(self) -> str:
        text = self._bytes().decode("utf-8", "replace")
        self._interned.append(text)
        return text

    def _interned_reference(self) -> Any:
        return self._item(self._interned)

    def _reference(self) -> Any:
        return self._item(self._references)

    def _item(self, table: list[Any]) -> Any:
        index = self._unpack("<i")
        if not 0 <= index < len(table):
            raise BadCode("a reference points nowhere")
        return table[index]

    def _long(self) -> int:
        count: int = self._unpack("<i")
        if abs(count) > 8:
            raise BadCode("a number is too large")
        value: int = sum(self._unpack("<h") << 15 * place for place in range(abs(count)))
        return -value if count < 0 else value

    def _complex(self) -> Opaque:
        self._take(16)
        return Opaque("a complex number")

    def _items(self, count: int) -> tuple[Any, ...]:
        if not 0 <= count <= len(self._data) - self.position:
            raise BadCode("the byte code is truncated")
        return tuple(self.object() for _ in range(count))

    def _frozenset(self) -> Opaque:
        self._items(self._unpack("<i"))
        return Opaque("a set")

    def _texts(self) -> tuple[str, ...]:
        value = self.object()
        texts = tuple(v.decode("latin-1") if isinstance(v, bytes) else v for v in _as_tuple(value))
        if not all(isinstance(text, str) for text in texts):
            raise BadCode("a name is not text")
        return texts

    def _code(self) -> Code:
        version = self._version
        arguments = self._unpack("<i")
        if version >= (3, 8):
            self._take(4)  # Positional-only arguments are counted among the arguments.
        keyword_only = self._unpack("<i") if version >= (3, 0) else 0
        if version < (3, 11):
            self._take(4)  # Number of locals.
        stack_size, flags = self._unpack("<i"), self._unpack("<i")
        code = self.object()
        constants = _as_tuple(self.object())
        names, variables = self._texts(), self._texts()
        if version >= (3, 11):
            kinds = self.object()
            cells: tuple[str, ...] = ()
            free = _free_variables(variables, kinds)
        else:
            free, inner = self._texts(), self._texts()
            cells = inner + free
        for _ in range(3 if version >= (3, 11) else 2):  # File name, name, from 3.11 on qualified name.
            self.object()
        self._take(4)  # First line.
        for _ in range(2 if version >= (3, 11) else 1):  # Lines, from 3.11 on exceptions.
            self.object()
        if not isinstance(code, bytes) or not 0 <= arguments + keyword_only <= len(variables):
            raise BadCode("the code object is inconsistent")
        return Code(
            arguments, keyword_only, stack_size, flags, code, constants, names, variables, cells, free
        )


_FREE = 0x80
"""CO_FAST_FREE of CPython's internal/pycore_code.h."""


def _free_variables(variables: tuple[str, ...], kinds: Any) -> tuple[str, ...]:
    if not isinstance(kinds, bytes) or len(kinds) != len(variables):
        raise BadCode("the code object is inconsistent")
    return tuple(name for name, kind in zip(variables, kinds, strict=True) if kind & _FREE)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise BadCode("the code object is inconsistent")
    return value


_TYPES: dict[str, Callable[[_Reader], Any]] = {
    "N": lambda reader: None,
    "T": lambda reader: True,
    "F": lambda reader: False,
    ".": lambda reader: ...,
    "i": lambda reader: reader._unpack("<i"),
    "I": lambda reader: reader._unpack("<q"),
    "l": _Reader._long,
    "g": lambda reader: reader._unpack("<d"),
    "y": _Reader._complex,
    "s": _Reader._bytes,
    "t": _Reader._interned_text,
    "R": _Reader._interned_reference,
    "u": lambda reader: reader._bytes().decode("utf-8", "replace"),
    "a": lambda reader: reader._bytes().decode("ascii"),
    "A": lambda reader: reader._bytes().decode("ascii"),
    "z": _Reader._short_text,
    "Z": _Reader._short_text,
    "(": lambda reader: reader._items(reader._unpack("<i")),
    ")": lambda reader: reader._items(reader._unpack("<B")),
    ">": _Reader._frozenset,
    "r": _Reader._reference,
    "c": _Reader._code,
}
