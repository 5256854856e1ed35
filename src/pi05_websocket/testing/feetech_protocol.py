# SPDX-License-Identifier: Apache-2.0
"""The frames of Feetech's servo bus: bytes in, whole packets out, and back.

A frame is `FF FF id length code parameters checksum`. From the host `code` is an instruction, from a servo the
error byte. Pure; time is a parameter.
Source: Feetech's "Communication Protocol User Manual" for SCS and STS servos, and LeRobot's `scservo_sdk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "BROADCAST",
    "MOST_PARAMETERS",
    "PAUSE_S",
    "Decoder",
    "Instruction",
    "Packet",
    "checksum",
]

BROADCAST = 0xFE
"""Every servo hears it, none answers, but for a ping."""

PAUSE_S = 0.05
"""A frame that is interrupted for longer is given up, seconds. LeRobot asks again after a little more."""

_HEADER = b"\xff\xff"
_SHORTEST = 6
"""Bytes of a frame without parameters."""
MOST_PARAMETERS = 250
"""Bytes of parameters that a frame holds."""


class Instruction(IntEnum):
    """What the host asks for."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


def checksum(body: bytes) -> int:
    """Return the checksum of `id length code parameters`: the inverted sum's low byte."""
    return ~sum(body) & 0xFF


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame's content."""

    id: int
    """Of the servo, or `BROADCAST`."""

    code: int
    """Instruction, or error byte of a servo."""

    parameters: bytes = b""

    def encode(self) -> bytes:
        """Return the frame.

        Raises:
            ValueError: More than 250 parameters.
        """
        if len(self.parameters) > MOST_PARAMETERS:
            raise ValueError(f"{len(self.parameters)} parameters: a frame holds {MOST_PARAMETERS}")
        body = bytes((self.id, len(self.parameters) + 2, self.code)) + self.parameters
        return _HEADER + body + bytes((checksum(body),))


class Decoder:
    """Finds frames in a stream of bytes. Holds less than one frame; what fits none is dropped."""

    def __init__(self) -> None:
        self._rest = b""
        self._fed_s = 0.0

    def __repr__(self) -> str:
        return f"<Decoder {len(self._rest)} bytes of a frame>"

    def feed(self, data: bytes, now: float) -> list[Packet]:
        """Take bytes that came at `now` (seconds); return the packets they complete.

        A frame with a wrong checksum is passed over without a word, as a servo does.
        """
        if now - self._fed_s > PAUSE_S:
            self._rest = b""
        self._fed_s = now
        rest = self._rest + data
        packets: list[Packet] = []
        while (start := rest.find(_HEADER)) >= 0:
            rest = rest[start:]
            if len(rest) < _SHORTEST:
                break
            size = rest[3] + 4
            if rest[2] == 0xFF or size < _SHORTEST:  # the header began later, or never
                rest = rest[1:]
            elif len(rest) < size:
                break
            elif checksum(rest[2 : size - 1]) != rest[size - 1]:
                rest = rest[1:]
            else:
                packets.append(Packet(rest[2], rest[4], rest[5 : size - 1]))
                rest = rest[size:]
        else:
            rest = rest[-1:] if rest.endswith(b"\xff") else b""
        self._rest = rest
        return packets
