"""Reads protocol buffers without their definitions: numbered fields, one after the other.

Enough for what a SavedModel says of itself, in a few lines and without TensorFlow.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from layerprobe.errors import ModelError

Value = int | memoryview


def fields(message: memoryview, place: str) -> Iterator[tuple[int, Value]]:
    """The fields of one message: number, and a whole number or the bytes of text or an inner message.

    Args:
        message: Its bytes.
        place: The file, for the errors.

    Raises:
        ModelError: The bytes are no message; a truncated file, most often.
    """
    position = 0
    while position < len(message):
        tag, position = varint(message, position, place)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise _damaged(place)
        if kind == 0:
            value, position = varint(message, position, place)
            yield number, value
            continue
        if kind == 2:
            size, position = varint(message, position, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _damaged(place)
        if position + size > len(message):
            raise _damaged(place)
        yield number, message[position : position + size]
        position += size


def messages(message: memoryview, number: int, place: str) -> Iterator[memoryview]:
    """The values of one repeated field that holds text or messages."""
    for found, value in fields(message, place):
        if found == number and isinstance(value, memoryview):
            yield value


def text(message: memoryview, number: int, place: str) -> str:
    """The last value of a text field, "" where it is not set."""
    value = ""
    for found in messages(message, number, place):
        value = bytes(found).decode("utf-8", "replace")
    return value


def number(message: memoryview, field: int, place: str) -> int:
    """The last value of a field that holds a whole number, 0 where it is not set."""
    value = 0
    for found, one in fields(message, place):
        if found == field and isinstance(one, int):
            value = one
    return value


def varint(message: memoryview, position: int, place: str) -> tuple[int, int]:
    """One number of variable length that begins at a position, and the position after it."""
    if position < len(message) and message[position] < 0x80:
        return message[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _damaged(place)
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _damaged(place)


def _damaged(place: str) -> ModelError:
    return ModelError(f"{place} is truncated or damaged: fetch or save it again.")
