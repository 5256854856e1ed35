# SPDX-License-Identifier: Apache-2.0
"""What a gateway must know of a request that it passes on, without decoding it; and what it changes in it.

In: a robot's message. Out: what it says under `_rt`, whether it holds encoded images; the message for an
upstream that reads fewer words, or with its age brought up to date. Pure.

Only the names at the top and the lengths behind them are read: half a microsecond for a megabyte. What is not
looked at is not checked either: the upstream does that, as for any client of its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from pi05_websocket.errors import DecodeError
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import decode_images
from pi05_websocket.wire.limits import DecodeLimits
from pi05_websocket.wire.realtime import (
    REALTIME_KEY,
    RealtimeRequest,
    split_realtime,
    with_realtime,
)

__all__ = ["LONGEST_SKIMMED", "Skimmed", "normalised", "skim"]

LONGEST_SKIMMED: Final = 4 * 1024 * 1024
"""Longer messages are decoded beside the event loop: a million numbers in lists take milliseconds to skip."""

_MOST_ENTRIES: Final = 256
_ENTRIES: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_ENCODED_IMAGE: Final = b"__image__"
_RAW_ARRAY: Final = b"\x84\xc4\x0b__ndarray__"
"""How an array begins that OpenPI's packer or ours has written; most of a message is that."""

_REALTIME_KEY: Final = b"\xa3" + REALTIME_KEY.encode()
_AGE: Final = b"\xa6age_ms\xcb"
_AGE_AT: Final = -8
"""Where a message of our client ends in its age: the last entry of its last entry, a float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Skimmed:
    """A message and what stands at its top. The message stays the caller's, who must not resize it."""

    message: bytes | bytearray
    entries: dict[str, msgspec.Raw]

    @property
    def encoded_images(self) -> bool:
        """Whether there may be images as JPEG in it. Rarely yes where there are none; never the other way."""
        values = (memoryview(raw) for raw in self.entries.values())
        return any(
            _ENCODED_IMAGE in bytes(value)
            for value in values
            if bytes(value[: len(_RAW_ARRAY)]) != _RAW_ARRAY
        )

    def realtime(self, limits: DecodeLimits) -> RealtimeRequest | None:
        """Return what the robot says under `_rt`; None when it says nothing.

        Raises:
            DecodeError: It is not what it should be.
        """
        raw = self.entries.get(REALTIME_KEY)
        if raw is None:
            return None
        return split_realtime({REALTIME_KEY: codec.decode(memoryview(raw), limits)})[1]

    def without_realtime(self) -> bytes:
        """Return the message without `_rt`."""
        return _written({key: raw for key, raw in self.entries.items() if key != REALTIME_KEY})

    def aged(self, said: RealtimeRequest, age_ms: float) -> bytes | bytearray:
        """Return the message with another age of its observation.

        In place where it is a message of our client; calling it again with another age is all right.
        """
        message = self.message
        raw = memoryview(self.entries[REALTIME_KEY])
        key_at = len(message) - len(raw) - len(_REALTIME_KEY)
        if (
            isinstance(message, bytearray)
            and message[key_at : key_at + len(_REALTIME_KEY)] == _REALTIME_KEY
            and raw == memoryview(message)[-len(raw) :]
            and message.endswith(_AGE, 0, len(message) + _AGE_AT)
        ):
            struct.pack_into(">d", message, len(message) + _AGE_AT, age_ms)
            return message
        said = replace(said, age_ms=age_ms)
        renewed = codec.encode(with_realtime({}, said)[REALTIME_KEY])
        return _written({**self.entries, REALTIME_KEY: msgspec.Raw(renewed)})


def skim(message: bytes | bytearray) -> Skimmed | None:
    """Read the top of a message; None: it has to be decoded, if only to say what is wrong with it."""
    if len(message) > LONGEST_SKIMMED or not 0 <= _count(message) <= _MOST_ENTRIES:
        return None
    try:
        return Skimmed(message, _ENTRIES.decode(message))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def normalised(message: bytes | bytearray, limits: DecodeLimits, images: bool) -> Skimmed:
    """Return the same request as our encoder writes it, every bound checked.

    Args:
        images: Whether to put arrays in the place of encoded images.

    Raises:
        DecodeError: As `ServerProtocol.request`.
    """
    observation = codec.decode(message, limits)
    if not isinstance(observation, dict):
        raise DecodeError(f"expected an observation (a map), got {type(observation).__name__}")
    if images:
        observation = decode_images(observation, limits)
    written = bytearray(codec.encode(observation))
    return Skimmed(written, _ENTRIES.decode(written))


def _count(message: bytes | bytearray) -> int:
    """Return how many entries a map says it has; -1: it is none."""
    tag = message[0] if message else 0
    if 0x80 <= tag <= 0x8F:
        return tag & 0x0F
    if tag in (0xDE, 0xDF):
        return int.from_bytes(message[1 : 3 if tag == 0xDE else 5], "big")
    return -1


def _written(entries: dict[str, msgspec.Raw]) -> bytes:
    return msgspec.msgpack.encode(entries)
