# SPDX-License-Identifier: Apache-2.0
"""What the conformance kit reads of the server or client it examines: frames, HTTP heads, messages to judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fuzz.mutation import of_bytes, of_msgpack
from fuzz.target import Broken, Target
from fuzz.targets.wire import vectors
from pi05_websocket.conformance.encoding import encoding_faults, is_openpis_bytes
from pi05_websocket.conformance.frames import (
    Frame,
    FrameReader,
    frame_bytes,
    read_close,
    read_head,
    request_head,
    response_head,
)
from pi05_websocket.conformance.judging import actions_fault, request_faults
from pi05_websocket.wire.dialects import OPENPI

__all__ = ["TARGETS"]

_EACH_BYTE: Final = 2048
"""Bytes that a byte of a message may become: a fault has a sentence with a path in it."""


def _frames(data: bytes) -> str:
    reader = FrameReader(1024)
    reader.feed(data)
    count = 0
    while (frame := reader.next()) is not None:
        count += 1
        read_close(frame.payload)
        if len(frame.payload) > min(1024, len(data)):
            raise Broken("a frame has more bytes than came")
    return "too long" if reader.too_long else f"{min(count, 2)} frames"


def _some_frames() -> Iterator[bytes]:
    for kind, payload in ((2, b"\x80"), (1, b"text"), (8, b"\x03\xe8bye"), (9, bytes(200))):
        frame = Frame(kind=kind, payload=payload)
        yield frame_bytes(frame) + frame_bytes(frame, b"mask")


def _head(data: bytes) -> str:
    try:
        found = read_head(data)
    except ValueError:
        return "ValueError"
    if found is None:
        return "more is needed"
    head, rest = found
    if not (head.status >= 0 and data.endswith(rest)):
        raise Broken(f"an impossible head: {head}")
    return "a response" if head.status else f"a request of {head.path[:1]}"


def _heads() -> Iterator[bytes]:
    yield request_head("/", "localhost", "k", {"Authorization": "Api-Key x"})
    yield response_head("101 Switching Protocols", {"Upgrade": "websocket"}, b"\x82\x01\x80")


def _judged(data: bytes) -> str:
    faults = encoding_faults(data)
    if is_openpis_bytes(data) and faults:
        raise Broken(f"OpenPI's bytes have faults: {faults[:3]}")
    request_faults(data, {})
    wrong = actions_fault(OPENPI, data)
    if faults:
        return faults[0].clause
    return "no actions" if wrong else "an answer"


TARGETS: Final = (
    Target(
        name="examined_frames",
        check=_frames,
        seeds=_some_frames,
        mutate=of_bytes,
        most_memory=lambda size: 64 * 1024 + 16 * size,
    ),
    Target(
        name="examined_head",
        check=_head,
        seeds=_heads,
        mutate=of_bytes,
        most_memory=lambda size: 64 * 1024 + 256 * size,
    ),
    Target(
        name="examined_message",
        check=_judged,
        seeds=vectors,
        mutate=of_msgpack,
        most_memory=lambda size: 256 * 1024 + _EACH_BYTE * size,
    ),
)
