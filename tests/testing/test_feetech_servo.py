# SPDX-License-Identifier: Apache-2.0
"""One servo: what its registers make of it."""

from __future__ import annotations

import pytest

from pi05_websocket.testing.feetech_registers import REGISTERS, to_sign_magnitude
from pi05_websocket.testing.feetech_servo import Servo, ServoError
from pi05_websocket.testing.feetech_shaft import MotorShaft


def put(servo: Servo, now: float = 0.0, **values: int) -> None:
    """Write registers as the bus does."""
    for name, value in values.items():
        register = REGISTERS[name]
        if register.sign_bit is not None:
            value = to_sign_magnitude(value, register.sign_bit)
        servo.write(register.address, value.to_bytes(register.size, "little"), now)


def got(servo: Servo, name: str, now: float) -> int:
    """Read a register as the bus does."""
    register = REGISTERS[name]
    servo.read(register.address, register.size, now)
    return servo.memory[name]


def test_goes_where_it_is_sent_and_says_so() -> None:
    """Position, speed, load and the moving flag on the way and at the end."""
    servo = Servo(1)
    put(servo, Torque_Enable=1, Goal_Position=3000)
    assert got(servo, "Moving", 0.1) == 1
    assert got(servo, "Present_Velocity", 0.1) > 1000
    assert got(servo, "Present_Load", 0.1) == 1000
    assert got(servo, "Present_Current", 0.1) == 400
    assert 2048 < got(servo, "Present_Position", 0.1) < 3000
    assert got(servo, "Present_Position", 2.0) == 3000
    assert [got(servo, name, 2.0) for name in ("Moving", "Present_Velocity", "Present_Load")] == [
        0
    ] * 3
    assert got(servo, "Goal_Position_2", 2.0) == 3000
    assert repr(servo) == "<Servo 1 position>"


def test_without_torque_a_goal_is_only_a_number() -> None:
    """It stays; torque that comes makes it hold its place, whatever goal was there."""
    servo = Servo(1)
    put(servo, Goal_Position=3000)
    assert got(servo, "Present_Position", 5.0) == 2048
    put(servo, 5.0, Torque_Enable=1)
    assert got(servo, "Present_Position", 10.0) == 2048
    assert servo.memory["Goal_Position"] == 2048


@pytest.mark.parametrize(("goal", "reached"), [(100, 1000), (4000, 3000), (2500, 2500)])
def test_limits_cut_the_goal(goal: int, reached: int) -> None:
    """The register keeps the goal; the shaft keeps to the limits."""
    servo = Servo(1, eeprom={"Min_Position_Limit": 1000, "Max_Position_Limit": 3000})
    put(servo, Torque_Enable=1, Goal_Position=goal)
    assert got(servo, "Present_Position", 9.0) == reached
    assert servo.memory["Goal_Position"] == goal


def test_equal_limits_are_none() -> None:
    """Both limits 0, and positions that are not folded: many turns."""
    servo = Servo(1, eeprom={"Max_Position_Limit": 0, "Phase": 28})
    put(servo, Torque_Enable=1, Goal_Position=-5000)
    assert got(servo, "Present_Position", 9.0) == -5000


@pytest.mark.parametrize(
    ("encoder", "offset", "phase", "position"),
    [
        (2048, 0, 12, 2048),
        (2048, 500, 12, 1548),
        (100, 500, 12, 3696),
        (4000, -500, 12, 404),
        (100, 500, 28, -400),
        (4095.7, 0, 12, 0),
    ],
)
def test_homing_offset(encoder: float, offset: int, phase: int, position: int) -> None:
    """Position is encoder minus offset, folded into a turn unless `Phase` says otherwise."""
    servo = Servo(1, MotorShaft(encoder), {"Homing_Offset": offset, "Phase": phase})
    assert got(servo, "Present_Position", 0.0) == position


@pytest.mark.parametrize("encoder", [300, 2048, 4000])
@pytest.mark.parametrize("torque", [0, 1])
def test_centre_here(encoder: int, torque: int) -> None:
    """128 in `Torque_Enable` calls the present position 2048, and leaves the torque as it was."""
    servo = Servo(1, MotorShaft(float(encoder)))
    put(servo, Torque_Enable=torque)
    put(servo, Torque_Enable=128)
    assert got(servo, "Present_Position", 0.0) == 2048
    assert servo.memory["Torque_Enable"] == torque


@pytest.mark.parametrize(
    ("registers", "position"),
    [
        ({}, 3000),
        ({"Goal_Velocity": 100}, 2148),
        ({"Goal_Time": 4000}, 2286),
        ({"Acceleration": 1}, 2098),
        ({"Maximum_Velocity_Limit": 4}, 2248),
    ],
)
def test_how_fast(registers: dict[str, int], position: int) -> None:
    """One second on the way from 2048 to 3000."""
    servo = Servo(1)
    put(servo, Torque_Enable=1, **registers)
    put(servo, Goal_Position=3000)
    assert got(servo, "Present_Position", 1.0) == pytest.approx(position, abs=6)


def test_goal_time_counts_from_the_goal() -> None:
    """Another register written on the way does not stretch it."""
    servo = Servo(1)
    put(servo, Torque_Enable=1, Goal_Time=1000, Goal_Position=3048)
    put(servo, 0.5, P_Coefficient=16)
    assert got(servo, "Present_Position", 1.05) == 3048


def test_velocity_mode() -> None:
    """It turns until it is told otherwise; modes that are not emulated stand still."""
    servo = Servo(1)
    put(servo, Torque_Enable=1, Operating_Mode=1, Goal_Velocity=-500)
    got(servo, "Present_Position", 2.0)
    assert got(servo, "Present_Velocity", 2.0) == -500
    put(servo, 2.0, Operating_Mode=2)
    assert got(servo, "Present_Velocity", 3.0) == 0


@pytest.mark.parametrize(
    ("error", "torque"), [(ServoError.OVERLOAD, False), (ServoError.VOLTAGE, True)]
)
def test_errors(error: ServoError, torque: bool) -> None:
    """Flags are in `Status`; those of `Unloading_Condition` take the torque."""
    servo = Servo(1)
    put(servo, Torque_Enable=1, Goal_Position=3000)
    servo.errors = error
    assert got(servo, "Status", 0.0) == int(error)
    assert (got(servo, "Present_Position", 2.0) == 3000) is torque
    servo.errors = ServoError(0)
    assert got(servo, "Present_Position", 4.0) == 3000


def test_a_write_can_wait() -> None:
    """REG_WRITE and ACTION; a second ACTION does nothing."""
    servo = Servo(1)
    put(servo, Torque_Enable=1)
    servo.prepare(REGISTERS["Goal_Position"].address, b"\x00\x0a")
    assert servo.memory["Goal_Position"] == 2048
    servo.act(1.0)
    assert servo.memory["Goal_Position"] == 2560
    put(servo, 1.0, Goal_Position=2000)
    servo.act(1.0)
    assert servo.memory["Goal_Position"] == 2000


def test_power_loss() -> None:
    """No torque, no error, and what was prepared is forgotten."""
    servo = Servo(4, eeprom={"Homing_Offset": 12})
    put(servo, Torque_Enable=1, Goal_Position=3000)
    servo.prepare(0, b"\x00")
    servo.errors = ServoError.OVERLOAD
    servo.lose_power(0.1)
    stopped = got(servo, "Present_Position", 0.1)
    assert got(servo, "Present_Position", 3.0) == stopped < 3000
    assert [servo.memory[name] for name in ("Torque_Enable", "Status", "ID", "Homing_Offset")] == [
        0, 0, 4, 12,
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "rate"), [(0, 1_000_000), (4, 115_200), (9, 500_000)])
def test_baud_rate(code: int, rate: int) -> None:
    """By its register."""
    assert Servo(1, eeprom={"Baud_Rate": code}).baud_rate == rate
