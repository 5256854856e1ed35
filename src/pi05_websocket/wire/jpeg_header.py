# SPDX-License-Identifier: Apache-2.0
"""What a JPEG says of itself before any of its pixels is decoded.

In: bytes from a peer nobody has to trust. Out: its size and components, or `Malformed`. Pure.
A header of a dozen bytes can announce four billion pixels, and a progressive JPEG can ask for thousands of
passes over them: so size and kind are known, and refused, before a decoder sees the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pi05_websocket.wire.arrays import Malformed

__all__ = ["JpegHeader", "read_jpeg_header"]

# Markers of ITU-T T.81, table B.1.
_SOI: Final = b"\xff\xd8"
_SOF0: Final = 0xC0
_TABLES: Final = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Huffman and quantisation tables, restart interval, comment, application data: may stand before the frame."""

_MOST_SEGMENTS: Final = 64
"""Before the frame; encoders write three to ten."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What the frame header announces."""

    rows: int
    columns: int
    components: int


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Return what a baseline JPEG announces: one pass, eight bits. Nothing is decoded.

    Raises:
        Malformed: It is no JPEG, ends before its frame header, or is of another kind.
    """
    if data[:2] != _SOI:
        raise Malformed(f"expected a JPEG, got bytes that begin with {data[:4].hex() or 'nothing'}")
    at = 2
    for _ in range(_MOST_SEGMENTS):
        head = data[at : at + 4]
        if len(head) < 4:
            raise Malformed(f"expected a JPEG's frame header, got its end after {len(data)} bytes")
        marker, length = head[1], int.from_bytes(head[2:])
        if head[0] != 0xFF or length < 2:
            raise Malformed(f"expected a JPEG segment at byte {at}, got {head.hex()}")
        if marker == _SOF0:
            return _frame(data[at + 4 : at + 2 + length])
        if marker not in _TABLES:
            raise Malformed(f"expected a baseline JPEG, got the marker ff{marker:02x} at byte {at}")
        at += 2 + length
    raise Malformed(f"expected a JPEG's frame header, got {_MOST_SEGMENTS} other segments")


def _frame(frame: bytes) -> JpegHeader:
    """Read SOF0: precision, rows, columns, components, and three bytes for each of these."""
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5]:
        raise Malformed(f"expected a JPEG's frame header, got {len(frame)} bytes of one")
    if frame[0] != 8:
        raise Malformed(f"expected a JPEG of 8 bits, got {frame[0]}")
    return JpegHeader(
        rows=int.from_bytes(frame[1:3]), columns=int.from_bytes(frame[3:5]), components=frame[5]
    )
