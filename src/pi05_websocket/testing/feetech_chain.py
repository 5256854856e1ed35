# SPDX-License-Identifier: Apache-2.0
"""Servos on one wire: bytes from the host in, the servos' replies out, with faults where a test wants them.

Pure; time is a parameter. `emulated_bus` puts it on a serial port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pi05_websocket.errors import ConfigError
from pi05_websocket.testing.feetech_protocol import (
    BROADCAST,
    MOST_PARAMETERS,
    Decoder,
    Instruction,
    Packet,
)
from pi05_websocket.testing.feetech_servo import Servo

__all__ = ["NO_FAULTS", "Faults", "Reply", "ServoChain"]

_MOST_GARBAGE = 64
_LONGEST_DELAY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What is wrong with the wire."""

    silent: frozenset[int] = frozenset()
    """Ids of servos that neither hear nor answer: behind a broken plug."""

    wrong_checksum: frozenset[int] = frozenset()
    """Ids of servos whose replies have a wrong checksum."""

    garbage: bytes = b""
    """What is on the wire before each reply, at most 64 bytes."""

    delay_s: float = 0.0
    """Seconds before each reply, at most 5."""

    replies: int | None = None
    """How many replies have a wrong checksum, garbage or a delay before it is well again; None: all."""

    def __post_init__(self) -> None:
        if len(self.garbage) > _MOST_GARBAGE:
            raise ConfigError(
                f"garbage is {len(self.garbage)} bytes: expected at most {_MOST_GARBAGE}"
            )
        if not 0.0 <= self.delay_s <= _LONGEST_DELAY_S:
            raise ConfigError(f"delay_s is {self.delay_s}: expected 0 to {_LONGEST_DELAY_S:g}")


NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes from a servo."""

    data: bytes

    delay_s: float = 0.0
    """How long they wait."""


class ServoChain:
    """Servos that share a wire.

    Args:
        servos: In the order in which they answer a ping to all.
        on_changed: Called after each packet that may have changed what drives a shaft.
    """

    def __init__(
        self, servos: Sequence[Servo], on_changed: Callable[[], None] | None = None
    ) -> None:
        self.servos = tuple(servos)
        self._on_changed = on_changed
        self._decoder = Decoder()
        self._faults = NO_FAULTS
        self._left: int | None = None
        self._baud_rate: int | None = None

    def __repr__(self) -> str:
        return f"<ServoChain {[servo.id for servo in self.servos]}>"

    @property
    def faults(self) -> Faults:
        """What is wrong with the wire now."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._left = faults.replies

    def receive(self, data: bytes, now: float, baud_rate: int | None = None) -> list[Reply]:
        """Take bytes from the host; return what the servos answer.

        Args:
            data: The bytes.
            now: When they came, seconds.
            baud_rate: At which they came, bits/s; None: every servo understands.
        """
        self._baud_rate = baud_rate
        replies: list[Reply] = []
        for packet in self._decoder.feed(data, now):
            replies += self._handle(packet, now)
        return replies

    def _handle(self, packet: Packet, now: float) -> list[Reply]:
        parameters = packet.parameters
        if packet.code == Instruction.SYNC_READ and len(parameters) >= 2:
            return self._read(parameters[2:], parameters[:2], now)
        if packet.code == Instruction.SYNC_WRITE and len(parameters) >= 2:
            self._sync_write(parameters, now)
            return []
        if packet.code == Instruction.READ and len(parameters) == 2:
            return [] if packet.id == BROADCAST else self._read((packet.id,), parameters, now)
        if packet.code == Instruction.PING:
            return [self._reply(servo) for servo in self._heard(packet.id)]
        return self._write(packet, now)

    def _write(self, packet: Packet, now: float) -> list[Reply]:
        """Handle what changes something and is answered with an empty reply, or not at all."""
        parameters = packet.parameters
        replies: list[Reply] = []
        changed = False
        for servo in self._heard(packet.id):
            # What the servo is called before the write: a new id is answered under the old one.
            answered = servo.answers_writes and packet.id != BROADCAST
            name = servo.id
            if packet.code == Instruction.WRITE and len(parameters) >= 2:
                servo.write(parameters[0], parameters[1:], now)
                changed = True
            elif packet.code == Instruction.REG_WRITE and len(parameters) >= 2:
                servo.prepare(parameters[0], parameters[1:])
            elif packet.code == Instruction.ACTION:
                servo.act(now)
                changed = True
            else:  # nothing a servo knows
                continue
            if answered:
                replies.append(self._reply(servo, name=name))
        if changed:
            self.tell_changed()
        return replies

    def _read(self, wanted: Iterable[int], place: bytes, now: float) -> list[Reply]:
        """Answer with registers; more than a reply holds is asked in vain."""
        address, length = place
        if length > MOST_PARAMETERS:
            return []
        return [
            self._reply(servo, servo.read(address, length, now))
            for servo_id in wanted
            for servo in self._heard(servo_id)
        ]

    def _sync_write(self, parameters: bytes, now: float) -> None:
        address, length = parameters[:2]
        rows = parameters[2:]
        for start in range(0, len(rows) - length, length + 1):
            for servo in self._heard(rows[start]):
                servo.write(address, rows[start + 1 : start + 1 + length], now)
        self.tell_changed()

    def _heard(self, wanted: int) -> list[Servo]:
        """Return the servos that hear a packet for this id."""
        return [
            servo
            for servo in self.servos
            if wanted in (servo.id, BROADCAST)
            and servo.id not in self._faults.silent
            and self._baud_rate in (servo.baud_rate, None)
        ]

    def tell_changed(self) -> None:
        """Say that servos may drive their shafts elsewhere now."""
        if self._on_changed is not None:
            self._on_changed()

    def _reply(self, servo: Servo, data: bytes = b"", *, name: int | None = None) -> Reply:
        number = servo.id if name is None else name
        frame = Packet(number, int(servo.errors), data).encode()
        faults = self._faults
        if self._left == 0:
            return Reply(frame)
        if self._left is not None:
            self._left -= 1
        if number in faults.wrong_checksum:
            frame = frame[:-1] + bytes((frame[-1] ^ 0xFF,))
        return Reply(faults.garbage + frame, faults.delay_s)
