# SPDX-License-Identifier: Apache-2.0
"""The control table: what is where, what lasts, and numbers with a sign bit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.testing.feetech_registers import (
    REGISTERS,
    Memory,
    from_sign_magnitude,
    to_sign_magnitude,
)


def test_no_two_registers_share_an_address() -> None:
    """Every byte has one meaning."""
    taken = [
        address
        for register in REGISTERS.values()
        for address in range(register.address, register.address + register.size)
    ]
    assert len(taken) == len(set(taken))


@pytest.mark.parametrize(
    ("value", "sign_bit", "bits"),
    [
        (0, 11, 0),
        (5, 11, 5),
        (-5, 11, 0x805),
        (-2047, 11, 0xFFF),
        (9999, 10, 1023),
        (-1, 15, 0x8001),
    ],
)
def test_sign_magnitude(value: int, sign_bit: int, bits: int) -> None:
    """Not two's complement; what does not fit is the largest that does."""
    assert to_sign_magnitude(value, sign_bit) == bits


@given(value=st.integers(-2047, 2047))
def test_sign_magnitude_round_trip(value: int) -> None:
    """What fits comes back."""
    assert from_sign_magnitude(to_sign_magnitude(value, 11), 11) == value


@given(
    name=st.sampled_from(sorted(name for name, one in REGISTERS.items() if one.writable)),
    data=st.binary(min_size=2, max_size=2),
)
def test_bytes_and_values_agree(name: str, data: bytes) -> None:
    """What the bus writes is what the servo reads, and the other way round."""
    register = REGISTERS[name]
    memory = Memory()
    memory.write(register.address, data[: register.size])
    assert memory.read(register.address, register.size) == data[: register.size]
    memory[name] = memory[name]
    expected = int.from_bytes(data[: register.size], "little")
    if register.sign_bit is not None:
        expected = from_sign_magnitude(expected, register.sign_bit)
    assert memory[name] == expected


def test_read_only_registers_stay() -> None:
    """A write over everything changes what may be changed."""
    memory = Memory()
    before = memory["Model_Number"], memory["Present_Voltage"]
    memory.write(0, bytes(200))
    assert (memory["Model_Number"], memory["Present_Voltage"]) == before
    assert memory["Max_Position_Limit"] == 0


def test_reading_beyond_the_table_gives_zeros() -> None:
    """As many bytes as were asked for."""
    assert Memory().read(120, 20) == bytes(20)


@pytest.mark.parametrize(("lock", "after"), [(1, 0), (0, 77)])
def test_eeprom_lasts_only_if_it_was_unlocked(lock: int, after: int) -> None:
    """A locked write counts at once, until the power is lost."""
    memory = Memory()
    memory.write(REGISTERS["Lock"].address, bytes((lock,)))
    memory.write(REGISTERS["Homing_Offset"].address, b"\x4d\x00")
    assert memory["Homing_Offset"] == 77

    memory.power_cycle()

    assert memory["Homing_Offset"] == after


def test_power_cycle_forgets_the_rest() -> None:
    """Torque is off, the lock is on, the torque limit is the lasting one."""
    memory = Memory({"Max_Torque_Limit": 500})
    for name in ("Torque_Enable", "Lock", "Torque_Limit"):
        memory.write(REGISTERS[name].address, bytes(REGISTERS[name].size - 1) + b"\x01")

    memory.power_cycle()

    assert [memory[name] for name in ("Torque_Enable", "Lock", "Torque_Limit")] == [0, 1, 500]
