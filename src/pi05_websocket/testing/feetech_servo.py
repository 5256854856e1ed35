# SPDX-License-Identifier: Apache-2.0
"""One Feetech STS3215: what its registers mean for its shaft, and its shaft for its registers.

In: bytes written and read at addresses, the time, error flags. Out: bytes, and what drives the shaft. Pure.
Modes 0 (position) and 1 (velocity) move; 2 (PWM) and 3 (steps) are taken and do nothing.
Source: Feetech's memory table of the STS series. What it leaves open: a servo whose torque comes on holds its
place, which is what an SO-101 does when LeRobot connects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntFlag

from pi05_websocket.testing.feetech_registers import REGISTERS, Memory
from pi05_websocket.testing.feetech_shaft import LIMP, TICKS, Drive, MotorShaft, Shaft

__all__ = ["BAUD_RATES", "Servo", "ServoError"]

BAUD_RATES = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)
"""By the value of `Baud_Rate`."""

_MULTI_TURN = 0x10
"""In `Phase`: positions are not folded into one turn."""

_ACCELERATION_UNIT = 100.0
_TOP_SPEED_UNIT = 50.0
_CENTRE = 2048
"""What writing `_CENTRE_HERE` to `Torque_Enable` makes of the present position."""
_CENTRE_HERE = 128

_POSITION, _VELOCITY = 0, 1


class ServoError(IntFlag):
    """The error byte's bits."""

    VOLTAGE = 1
    SENSOR = 2
    TEMPERATURE = 4
    CURRENT = 8
    OVERLOAD = 32


class Servo:
    """One servo.

    Args:
        servo_id: Its number on the bus.
        shaft: What it turns; a motor without a load by default.
        eeprom: Registers that are not as shipped.
    """

    def __init__(
        self, servo_id: int, shaft: Shaft | None = None, eeprom: Mapping[str, int] | None = None
    ) -> None:
        self.memory = Memory({**(eeprom or {}), "ID": servo_id})
        self.shaft: Shaft = MotorShaft() if shaft is None else shaft
        self.drive = LIMP
        """What the shaft was told last."""
        self._errors = ServoError(0)
        self._pending: tuple[int, bytes] | None = None

    def __repr__(self) -> str:
        return f"<Servo {self.id} {self.drive.kind}>"

    @property
    def id(self) -> int:
        """Its number on the bus."""
        return self.memory["ID"]

    @property
    def baud_rate(self) -> int:
        """At which it listens, bits/s."""
        return BAUD_RATES[self.memory["Baud_Rate"] % len(BAUD_RATES)]

    @property
    def answers_writes(self) -> bool:
        """Whether instructions other than PING and READ are answered."""
        return self.memory["Response_Status_Level"] != 0

    @property
    def errors(self) -> ServoError:
        """The error byte. A flag that `Unloading_Condition` names takes the torque away while it is set."""
        return self._errors

    @errors.setter
    def errors(self, errors: ServoError) -> None:
        self._errors = errors
        self.memory["Status"] = int(errors)
        self._apply()

    @property
    def position(self) -> float:
        """Present position in the frame of the registers: encoder minus homing offset, not rounded."""
        position = self.shaft.position - self.memory["Homing_Offset"]
        return position if self.memory["Phase"] & _MULTI_TURN else position % TICKS

    def read(self, address: int, length: int, now: float) -> bytes:
        """Return registers as they are at `now`, seconds."""
        self._refresh(now)
        return self.memory.read(address, length)

    def write(self, address: int, data: bytes, now: float) -> None:
        """Take registers from the bus at `now`, seconds, and do what they say."""
        self.shaft.advance(now)
        torque = bool(self.memory["Torque_Enable"])
        self.memory.write(address, data)
        written = {
            name
            for name, register in REGISTERS.items()
            if register.address < address + len(data) and address < register.address + register.size
        }
        if "Torque_Enable" in written:
            self._switch(torque)
        self._apply(moved="Goal_Position" in written)

    def prepare(self, address: int, data: bytes) -> None:
        """Keep a write for `act`."""
        self._pending = (address, data)

    def act(self, now: float) -> None:
        """Do the write that was kept, if there is one."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self.write(*pending, now)

    def lose_power(self, now: float) -> None:
        """Go through a loss of power: no torque, volatile registers and errors as at the start."""
        self.shaft.advance(now)
        self.memory.power_cycle()
        self._pending = None
        self.errors = ServoError(0)

    def _switch(self, before: bool) -> None:
        wanted = self.memory["Torque_Enable"]
        if wanted == _CENTRE_HERE:
            offset = round(self.shaft.position) - _CENTRE
            self.memory["Homing_Offset"] = (offset + _CENTRE) % TICKS - _CENTRE
            self.memory["Torque_Enable"] = int(before)
        elif wanted == 1 and not before:
            self.memory["Goal_Position"] = round(self.position)

    def _apply(self, *, moved: bool = False) -> None:
        """Tell the shaft what the registers say.

        Args:
            moved: Whether the goal is a new one, which a `Goal_Time` counts from.
        """
        memory = self.memory
        unloaded = int(self._errors) & memory["Unloading_Condition"]
        if memory["Torque_Enable"] != 1 or unloaded:
            self.drive = LIMP
        elif memory["Operating_Mode"] == _POSITION:
            self.drive = self._to_position(moved)
        elif memory["Operating_Mode"] == _VELOCITY:
            self.drive = Drive(
                "velocity", memory["Goal_Velocity"], self._top_speed, self._acceleration
            )
        else:
            self.drive = Drive("velocity", 0.0, self._top_speed, self._acceleration)
        self.shaft.drive(self.drive)

    def _to_position(self, moved: bool) -> Drive:
        memory = self.memory
        goal = memory["Goal_Position"]
        low, high = memory["Min_Position_Limit"], memory["Max_Position_Limit"]
        if low < high:  # equal limits, both 0, stand for many turns
            goal = max(low, min(high, goal))
        present = self.position
        target = self.shaft.position + (goal - present)
        speed = float(abs(memory["Goal_Velocity"])) or self._top_speed
        if memory["Goal_Time"]:
            if not moved and self.drive.kind == "position":
                speed = self.drive.speed
            else:
                speed = max(1.0, abs(goal - present) * 1000.0 / memory["Goal_Time"])
        return Drive("position", target, min(speed, self._top_speed), self._acceleration)

    @property
    def _top_speed(self) -> float:
        return max(1, self.memory["Maximum_Velocity_Limit"]) * _TOP_SPEED_UNIT

    @property
    def _acceleration(self) -> float:
        most = max(1, self.memory["Maximum_Acceleration"])
        return min(self.memory["Acceleration"] or most, most) * _ACCELERATION_UNIT

    def _refresh(self, now: float) -> None:
        """Bring what is measured up to `now`."""
        self.shaft.advance(now)
        memory = self.memory
        position = math.floor(self.position + 0.5)
        memory["Present_Position"] = position if memory["Phase"] & _MULTI_TURN else position % TICKS
        memory["Present_Velocity"] = round(self.shaft.velocity)
        load = 0.0
        if self.drive.kind == "position":
            load = (self.drive.target - self.shaft.position) * memory["P_Coefficient"] / 4.0
        most = memory["Torque_Limit"]
        memory["Present_Load"] = round(max(-most, min(most, load)))
        memory["Present_Current"] = round(abs(memory["Present_Load"]) * 0.4)
        memory["Moving"] = int(abs(self.shaft.velocity) >= memory["Moving_Velocity_Threshold"])
        memory["Goal_Position_2"] = memory["Goal_Position"]
