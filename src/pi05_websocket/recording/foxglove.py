# SPDX-License-Identifier: Apache-2.0
"""Two of Foxglove's message schemas in Protobuf: the form in which both Foxglove and Rerun show them. Pure.

In: a JPEG or a sentence, and when. Out: the bytes of a `foxglove.CompressedImage` or `foxglove.Log`, and the
`FileDescriptorSet` that a viewer reads them by. Four field types are all they take, so they are written here
instead of with a Protobuf library.

Source: https://github.com/foxglove/foxglove-sdk/tree/main/schemas/proto, field numbers of both messages.
"""

from __future__ import annotations

from typing import Final

__all__ = ["IMAGE_SCHEMA", "LEVELS", "LOG_SCHEMA", "compressed_image", "descriptors", "log_line"]

IMAGE_SCHEMA: Final = "foxglove.CompressedImage"
LOG_SCHEMA: Final = "foxglove.Log"

LEVELS: Final = {"DEBUG": 1, "INFO": 2, "WARNING": 3, "ERROR": 4, "FATAL": 5}
"""`foxglove.Log.Level`."""

_NS: Final = 1_000_000_000
_INT64, _UINT32, _STRING, _BYTES, _MESSAGE, _ENUM, _INT32 = 3, 13, 9, 12, 11, 14, 5
"""`FieldDescriptorProto.Type`."""


def compressed_image(time_ns: int, jpeg: bytes, camera: str) -> bytes:
    """Return a JPEG as a message.

    Args:
        time_ns: Unix time in nanoseconds.
        jpeg: The file.
        camera: What to call where it was seen from.
    """
    return _bytes(1, _timestamp(time_ns)) + _bytes(2, jpeg) + _text(3, "jpeg") + _text(4, camera)


def log_line(time_ns: int, level: str, text: str, name: str) -> bytes:
    """Return a sentence as a message; `level` as in `LEVELS`."""
    return (
        _bytes(1, _timestamp(time_ns)) + _number(2, LEVELS[level]) + _text(3, text) + _text(4, name)
    )


def descriptors(schema: str) -> bytes:
    """Return the serialized `google.protobuf.FileDescriptorSet` of one of the two."""
    timestamp = ("timestamp", 1, _MESSAGE, ".google.protobuf.Timestamp")
    if schema == IMAGE_SCHEMA:
        fields = [timestamp, ("data", 2, _BYTES, ""), ("format", 3, _STRING, "")]
        message = _message("CompressedImage", [*fields, ("frame_id", 4, _STRING, "")])
    else:
        names = [("message", 3, _STRING, ""), ("name", 4, _STRING, ""), ("file", 5, _STRING, "")]
        level = ("level", 2, _ENUM, ".foxglove.Log.Level")
        message = _message("Log", [timestamp, level, *names, ("line", 6, _UINT32, "")])
        values = {"UNKNOWN": 0, **LEVELS}
        said = b"".join(_bytes(2, _text(1, name) + _number(2, n)) for name, n in values.items())
        message += _bytes(4, _text(1, "Level") + said)
    time = _message("Timestamp", [("seconds", 1, _INT64, ""), ("nanos", 2, _INT32, "")])
    known = "google/protobuf/timestamp.proto"
    own = f"{schema.replace('.', '/')}.proto"
    return _bytes(1, _file(known, "google.protobuf", [], time)) + _bytes(
        1, _file(own, "foxglove", [known], message)
    )


def _file(name: str, package: str, imports: list[str], message: bytes) -> bytes:
    """Return a `FileDescriptorProto`."""
    imported = b"".join(_text(3, path) for path in imports)
    return _text(1, name) + _text(2, package) + imported + _bytes(4, message) + _text(12, "proto3")


def _message(name: str, fields: list[tuple[str, int, int, str]]) -> bytes:
    """Return a `DescriptorProto`; every field optional, as in proto3."""
    said = _text(1, name)
    for field, number, kind, type_name in fields:
        one = _text(1, field) + _number(3, number) + _number(4, 1) + _number(5, kind)
        said += _bytes(2, one + (_text(6, type_name) if type_name else b""))
    return said


def _timestamp(time_ns: int) -> bytes:
    return _number(1, time_ns // _NS) + _number(2, time_ns % _NS)


def _varint(value: int) -> bytes:
    said = bytearray()
    while value > 0x7F:
        said.append(value & 0x7F | 0x80)
        value >>= 7
    said.append(value)
    return bytes(said)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8", "replace"))
