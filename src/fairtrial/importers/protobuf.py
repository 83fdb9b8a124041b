"""Read messages in the wire format of Protocol Buffers, by the numbers of their fields.

Event files and W&B's run files consist of them. Their own libraries weigh a hundred megabytes, and each of their
versions fits only some versions of protobuf. The format: https://protobuf.dev/programming-guides/encoding
"""

import struct
from collections.abc import Iterator

#: The wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and value: an integer, or the bytes of text, a message within it, or a fixed number.

    Raises:
        ValueError: the message is damaged.

    Example:
        >>> list(fields(bytes([0x10, 0x96, 0x01, 0x0A, 0x02]) + b"hi"))
        [(2, 150), (1, b'hi')]
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("a field of unknown type")
        if at + size > len(message):
            raise ValueError("a field is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def of_field(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the values of one field that holds bytes: text, or messages within this one."""
    for key, value in fields(message):
        if key == number and isinstance(value, bytes):
            yield value


def text(value: int | bytes) -> str:
    """Decode a field of text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def signed(value: int | bytes) -> int:
    """Read a varint as a signed integer of 64 bits."""
    if not isinstance(value, int):
        raise ValueError("a number was expected")  # noqa: TRY004  (damage, as elsewhere)
    return value - 2**64 if value >= 2**63 else value


def floats(value: int | bytes, size: int = 4) -> list[float]:
    """Read fixed numbers of 4 or 8 bytes, one or several packed in a field."""
    if not isinstance(value, bytes) or len(value) % size:
        raise ValueError("a number was expected")
    return list(struct.unpack(f"<{len(value) // size}{'f' if size == 4 else 'd'}", value))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
