# SPDX-License-Identifier: Apache-2.0
"""The control table of a Feetech STS3215: names, addresses, what survives without power, and who may write.

In: bytes at addresses, or values under the names that LeRobot uses. Out: the same. Pure.
Source: Feetech's memory table of the STS series; LeRobot's `motors/feetech/tables.py` for the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "MODEL_STS3215",
    "REGISTERS",
    "Memory",
    "Register",
    "from_sign_magnitude",
    "to_sign_magnitude",
]

MODEL_STS3215 = 777


@dataclass(frozen=True, slots=True)
class Register:
    """One value in the table."""

    address: int
    size: int = 1
    """Bytes, the low one first."""

    initial: int = 0
    """As shipped for EEPROM, after power comes on for the rest."""

    sign_bit: int | None = None
    """Which bit says minus; None for values without a sign."""

    writable: bool = True


def _fixed(address: int, size: int = 1, initial: int = 0, sign_bit: int | None = None) -> Register:
    return Register(address, size, initial, sign_bit, writable=False)


REGISTERS: dict[str, Register] = {
    "Firmware_Major_Version": _fixed(0, initial=3),
    "Firmware_Minor_Version": _fixed(1, initial=10),
    "Model_Number": _fixed(3, 2, MODEL_STS3215),
    # EEPROM
    "ID": Register(5, initial=1),
    "Baud_Rate": Register(6),
    "Return_Delay_Time": Register(7),
    "Response_Status_Level": Register(8, initial=1),
    "Min_Position_Limit": Register(9, 2),
    "Max_Position_Limit": Register(11, 2, 4095),
    "Max_Temperature_Limit": Register(13, initial=70),
    "Max_Voltage_Limit": Register(14, initial=140),
    "Min_Voltage_Limit": Register(15, initial=40),
    "Max_Torque_Limit": Register(16, 2, 1000),
    "Phase": Register(18, initial=12),
    "Unloading_Condition": Register(19, initial=44),
    "LED_Alarm_Condition": Register(20, initial=47),
    "P_Coefficient": Register(21, initial=32),
    "D_Coefficient": Register(22, initial=32),
    "I_Coefficient": Register(23),
    "Minimum_Startup_Force": Register(24, 2, 16),
    "CW_Dead_Zone": Register(26, initial=1),
    "CCW_Dead_Zone": Register(27, initial=1),
    "Protection_Current": Register(28, 2, 500),
    "Angular_Resolution": Register(30, initial=1),
    "Homing_Offset": Register(31, 2, sign_bit=11),
    "Operating_Mode": Register(33),
    "Protective_Torque": Register(34, initial=20),
    "Protection_Time": Register(35, initial=200),
    "Overload_Torque": Register(36, initial=80),
    "Velocity_closed_loop_P_proportional_coefficient": Register(37, initial=10),
    "Over_Current_Protection_Time": Register(38, initial=200),
    "Velocity_closed_loop_I_integral_coefficient": Register(39, initial=10),
    # SRAM
    "Torque_Enable": Register(40),
    "Acceleration": Register(41),
    "Goal_Position": Register(42, 2, sign_bit=15),
    "Goal_Time": Register(44, 2),
    "Goal_Velocity": Register(46, 2, sign_bit=15),
    "Torque_Limit": Register(48, 2, 1000),
    "Lock": Register(55, initial=1),
    "Present_Position": _fixed(56, 2, sign_bit=15),
    "Present_Velocity": _fixed(58, 2, sign_bit=15),
    "Present_Load": _fixed(60, 2, sign_bit=10),
    "Present_Voltage": _fixed(62, initial=120),
    "Present_Temperature": _fixed(63, initial=30),
    "Status": _fixed(65),
    "Moving": _fixed(66),
    "Present_Current": _fixed(69, 2),
    "Goal_Position_2": _fixed(71, 2, sign_bit=15),
    # Factory
    "Moving_Velocity_Threshold": Register(80, initial=1),
    "DTs": Register(81, initial=10),
    "Velocity_Unit_factor": Register(82, initial=1),
    "Hts": Register(83),
    "Maximum_Velocity_Limit": Register(84, initial=61),
    "Maximum_Acceleration": Register(85, initial=254),
    "Acceleration_Multiplier": Register(86, initial=1),
}
"""Name to register. 61 × 50 ticks/s is 45 turns a minute, the STS3215's speed without a load."""

_SIZE = 128
_SRAM = range(40, 80)


def to_sign_magnitude(value: int, sign_bit: int) -> int:
    """Return the register's bits for a value; what does not fit becomes the largest that does."""
    magnitude = min(abs(value), (1 << sign_bit) - 1)
    return magnitude | (1 << sign_bit if value < 0 else 0)


def from_sign_magnitude(bits: int, sign_bit: int) -> int:
    """Return the value of a register's bits."""
    magnitude = bits & ((1 << sign_bit) - 1)
    return -magnitude if bits >> sign_bit & 1 else magnitude


def _initial() -> bytearray:
    content = bytearray(_SIZE)
    for register in REGISTERS.values():
        end = register.address + register.size
        content[register.address : end] = register.initial.to_bytes(register.size, "little")
    return content


_WRITABLE = frozenset(
    address
    for register in REGISTERS.values()
    if register.writable
    for address in range(register.address, register.address + register.size)
)


class Memory:
    """One servo's table. What is written to the EEPROM counts at once, but lasts only if `Lock` is 0 then.

    Args:
        eeprom: Values that are not as shipped.
    """

    def __init__(self, eeprom: Mapping[str, int] | None = None) -> None:
        self._now = _initial()
        for name, value in (eeprom or {}).items():
            self[name] = value
        self._lasting = bytes(self._now)

    def __getitem__(self, name: str) -> int:
        register = REGISTERS[name]
        end = register.address + register.size
        bits = int.from_bytes(self._now[register.address : end], "little")
        return bits if register.sign_bit is None else from_sign_magnitude(bits, register.sign_bit)

    def __setitem__(self, name: str, value: int) -> None:
        """Set a value as the servo itself does, read-only ones too."""
        register = REGISTERS[name]
        if register.sign_bit is not None:
            value = to_sign_magnitude(value, register.sign_bit)
        end = register.address + register.size
        self._now[register.address : end] = value.to_bytes(register.size, "little")

    def read(self, address: int, length: int) -> bytes:
        """Return `length` bytes; zeros beyond the table."""
        return bytes(self._now[address : address + length]).ljust(length, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Take bytes from the bus; what is read-only or beyond the table stays."""
        lasting = bytearray(self._lasting)
        for offset, byte in enumerate(data):
            if address + offset in _WRITABLE:
                self._now[address + offset] = byte
                if address + offset not in _SRAM and not self["Lock"]:
                    lasting[address + offset] = byte
        self._lasting = bytes(lasting)

    def power_cycle(self) -> None:
        """Forget what only lasts while there is power."""
        fresh = _initial()
        for address in range(_SIZE):
            self._now[address] = fresh[address] if address in _SRAM else self._lasting[address]
        self["Torque_Limit"] = self["Max_Torque_Limit"]
