# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own driver of the SO-101, and the SDK it uses, on the emulated servo bus."""

from __future__ import annotations

import json
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.motors.feetech.tables import (
    STS_SMS_SERIES_CONTROL_TABLE,
    STS_SMS_SERIES_ENCODINGS_TABLE,
)
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

from pi05_websocket.sim.arm import HOME, JOINTS, LOWER, UPPER
from pi05_websocket.testing import EmulatedBus, FakeClock, Faults
from pi05_websocket.testing.feetech_registers import REGISTERS
from pi05_websocket.testing.feetech_servo import ServoError
from pi05_websocket.testing.so101_calibration import (
    calibrated_servos,
    to_encoder,
    write_calibration,
)

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.usefixtures("patient_driver"),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]

TICK = 0.12
"""Degrees that one tick and LeRobot's 4095 ticks for a turn may cost."""

SERVOS = range(1, 7)


@pytest.fixture
def clock() -> FakeClock:
    """Return the time the shafts follow."""
    return FakeClock(100.0)


@pytest.fixture
def bus(clock: FakeClock) -> Iterator[EmulatedBus]:
    """Return a calibrated arm's servos, the arm at rest."""
    with EmulatedBus(calibrated_servos(), clock=clock) as made:
        yield made


@pytest.fixture
def make(bus: EmulatedBus, tmp_path: Path) -> Iterator[Callable[..., SO101Follower]]:
    """Return a function that makes LeRobot's robot, connected, with the emulated arm's calibration file."""
    robots: list[SO101Follower] = []

    def connected(**settings: Any) -> SO101Follower:
        write_calibration(tmp_path / "emulated.json")
        config = SO101FollowerConfig(
            port=bus.port, id="emulated", calibration_dir=tmp_path, **settings
        )
        robots.append(SO101Follower(config))
        robots[-1].connect()
        return robots[-1]

    yield connected
    for robot in robots:
        if robot.bus.port_handler.ser is not None:
            robot.bus.port_handler.ser.close()


def pose(robot: SO101Follower, **changed: float) -> dict[str, float]:
    """Return the measured joints as an action, with changes."""
    return {
        **robot.get_observation(),
        **{f"{joint}.pos": value for joint, value in changed.items()},
    }


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def torques(bus: EmulatedBus) -> list[int]:
    """Return which servos have torque."""
    return [bus.value(servo, "Torque_Enable") for servo in SERVOS]


class TestRegisters:
    def test_addresses_are_lerobots(self) -> None:
        """Every register LeRobot knows, where it looks for it; and no other."""
        theirs = {name.strip(): place for name, place in STS_SMS_SERIES_CONTROL_TABLE.items()}
        del theirs["Moving_Velocity"]  # a second name for the threshold
        assert {name: (one.address, one.size) for name, one in REGISTERS.items()} == theirs

    def test_signs_are_lerobots(self) -> None:
        """Every number with a sign bit; LeRobot does not decode the read-back of the goal."""
        signed = {name: one.sign_bit for name, one in REGISTERS.items() if one.sign_bit is not None}
        del signed["Goal_Position_2"]
        theirs = STS_SMS_SERIES_ENCODINGS_TABLE.items()
        assert signed == {name: bit for name, bit in theirs if name in REGISTERS}


class TestConnect:
    def test_calibration_file_round_trip(self, make, bus, tmp_path) -> None:
        """The file is the servos' own calibration: nothing is asked, and LeRobot writes the same file back."""
        robot = make()

        assert robot.is_calibrated
        assert robot.bus.read_calibration() == robot.calibration
        before = json.loads((tmp_path / "emulated.json").read_text())
        robot._save_calibration()
        assert json.loads((tmp_path / "emulated.json").read_text()) == before

    def test_configures_the_servos(self, make, bus) -> None:
        """What LeRobot wants of them is in their registers, and the arm stands still with torque."""
        make(position_p_coefficient=20)

        assert torques(bus) == [1] * 6
        assert bus.value(1, "P_Coefficient") == 20
        assert bus.value(6, "Max_Torque_Limit") == 500
        assert bus.value(1, "Moving") == 0

    def test_foreign_servos_are_asked_about_and_written(self, make, monkeypatch) -> None:
        """As shipped they do not fit the file; ENTER at LeRobot's question writes the file to them."""
        asked: list[str] = []
        monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "")
        with EmulatedBus() as shipped:
            robot = SO101Follower(
                SO101FollowerConfig(
                    port=shipped.port, id="emulated", calibration_dir=make().calibration_dir
                )
            )
            robot.connect()
            assert len(asked) == 1
            assert robot.is_calibrated
            robot.disconnect()

    def test_whole_calibration_by_hand(self, bus, tmp_path, monkeypatch) -> None:
        """Without a file LeRobot asks for mid-pose and both ends of every joint; it finds the same values."""
        write_calibration(tmp_path / "emulated.json")
        expected = json.loads((tmp_path / "emulated.json").read_text())
        middle = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 50.0])
        hand = {"joints": HOME}

        def turn(joints: np.ndarray) -> None:
            for servo, ticks in zip(
                SERVOS, to_encoder(joints) - to_encoder(hand["joints"]), strict=True
            ):
                bus.turn(servo, ticks)
            hand["joints"] = joints

        def into_the_middle(question: str) -> str:
            assert "middle of its range" in question
            turn(middle)
            return ""

        ends = iter((LOWER, UPPER, middle))

        def to_the_next_end() -> bool:
            joints = next(ends, None)
            if joints is not None:
                turn(np.where(np.arange(6) == 4, 0.0, joints))
            return joints is None

        monkeypatch.setattr("builtins.input", into_the_middle)
        monkeypatch.setattr("lerobot.motors.motors_bus.enter_pressed", to_the_next_end)
        robot = SO101Follower(
            SO101FollowerConfig(port=bus.port, id="new", calibration_dir=tmp_path)
        )
        robot.connect()
        seen = robot.get_observation()
        robot.disconnect()

        found = json.loads((tmp_path / "new.json").read_text())
        assert {name: list(one) for name, one in found.items()} == {
            name: list(one) for name, one in expected.items()
        }
        for name, one in expected.items():
            assert found[name] == pytest.approx(one, abs=1)
        assert list(seen.values()) == pytest.approx(middle.tolist(), abs=2 * TICK)

    def test_half_turn_homing_finds_the_offsets(self, make, bus, clock) -> None:
        """LeRobot's own calibration in mid-pose: the offsets of the file."""
        robot = make()
        wanted = {name: one.homing_offset for name, one in robot.calibration.items()}
        robot.send_action(
            dict.fromkeys((f"{joint}.pos" for joint in JOINTS), 0.0) | {"gripper.pos": 50}
        )
        robot.get_observation()  # a sync write is not answered; this is, after it
        clock.sleep(5.0)
        robot.bus.disable_torque()

        found = robot.bus.set_half_turn_homings()

        assert found == pytest.approx(wanted, abs=1)

    def test_a_missing_servo_is_named(self, make, bus) -> None:
        """Its plug is out: LeRobot says which."""
        bus.faults = Faults(silent=frozenset({3}))
        with pytest.raises(RuntimeError, match=r"Missing motor IDs:\s+- 3 "):
            make()

    @pytest.mark.parametrize(("rate", "found"), [(1_000_000, {1: 777}), (115_200, None)])
    def test_servos_are_found_at_their_speed(self, rate, found) -> None:
        """LeRobot's search for a servo of unknown id."""
        with EmulatedBus(calibrated_servos()[:1]) as one:
            searching = FeetechMotorsBus(one.port, {})
            searching.connect(handshake=False)
            searching.set_baudrate(rate)
            assert searching.broadcast_ping() == found
            searching.disconnect(disable_torque=False)


class TestMotion:
    @pytest.mark.parametrize(
        "joints",
        [
            HOME,
            np.array([0.0, 0.0, 0.0, 0.0, 0.0, 50.0]),
            np.array([-80.0, -30.5, 45.25, -60.0, 150.0, 100.0]),
            np.array([109.0, 99.0, -96.0, 94.0, -157.0, 3.0]),
        ],
    )
    def test_observation_is_the_pose_in_degrees(self, make, bus, joints) -> None:
        """Turned by hand: encoder, homing offset, register, wire, LeRobot's calibration, degrees."""
        robot = make()
        robot.bus.disable_torque()
        for servo, ticks in zip(SERVOS, to_encoder(joints) - to_encoder(HOME), strict=True):
            bus.turn(servo, ticks)

        seen = robot.get_observation()

        assert list(seen.values()) == pytest.approx(joints.tolist(), abs=TICK)

    def test_action_moves_it(self, make, bus, clock) -> None:
        """On its way after 50 ms, there after a second, and the observation says so."""
        robot = make()
        action = pose(robot, shoulder_pan=30.0, elbow_flex=60.0, gripper=40.0)

        assert robot.send_action(action) == action
        wait_until(lambda: bus.value(1, "Goal_Position") > 2047)
        clock.sleep(0.05)
        assert 0.5 < robot.get_observation()["shoulder_pan.pos"] < 20
        assert bus.value(1, "Moving") == 1
        clock.sleep(1.0)
        assert robot.get_observation() == pytest.approx(action, abs=TICK)

    def test_limits_are_the_servos(self, make, bus, clock) -> None:
        """LeRobot sends any number of degrees; the servo stops at its limit."""
        robot = make()

        sent = robot.send_action(pose(robot, shoulder_pan=170.0))
        robot.get_observation()
        clock.sleep(3.0)

        assert sent["shoulder_pan.pos"] == 170.0
        assert robot.get_observation()["shoulder_pan.pos"] == pytest.approx(110.0, abs=TICK)

    def test_max_relative_target_cuts_each_step(self, make, bus, clock) -> None:
        """Ten degrees beyond where it is, whatever is asked, and so on from there."""
        robot = make(max_relative_target=10.0)

        sent = robot.send_action(pose(robot, shoulder_pan=90.0, gripper=4.0))
        robot.get_observation()
        clock.sleep(1.0)
        further = robot.send_action(pose(robot, shoulder_pan=90.0))

        assert sent["shoulder_pan.pos"] == pytest.approx(10.0)
        assert sent["gripper.pos"] == pytest.approx(4.0)
        assert further["shoulder_pan.pos"] == pytest.approx(20.0, abs=TICK)

    @pytest.mark.parametrize("disable", [True, False])
    def test_torque_after_disconnect(self, make, bus, disable) -> None:
        """Off, unless the config keeps it."""
        robot = make(disable_torque_on_disconnect=disable)
        robot.disconnect()
        assert torques(bus) == [0 if disable else 1] * 6


class TestFaults:
    def test_one_silent_servo_ends_the_reading(self, make, bus) -> None:
        """Three tries, then LeRobot's error; a command alone goes unnoticed."""
        robot = make()
        action = pose(robot)
        bus.faults = Faults(silent=frozenset({4}))

        robot.send_action(action)
        with pytest.raises(ConnectionError, match=r"after 3 tries.*no status packet"):
            robot.get_observation()

    @pytest.mark.parametrize(
        "fault",
        [
            {"wrong_checksum": frozenset({5}), "replies": 5},
            {"garbage": b"\x00\xff\x13"},
            {"garbage": b"\xff\xff\xff"},
        ],
        ids=["one wrong checksum", "garbage", "half a header"],
    )
    def test_what_lerobot_bears(self, make, bus, fault) -> None:
        """A broken packet is asked for again, bytes between packets are passed over."""
        robot = make()
        bus.faults = Faults(**fault)
        assert list(robot.get_observation().values()) == pytest.approx(HOME.tolist(), abs=TICK)

    def test_wrong_checksums_forever(self, make, bus) -> None:
        """LeRobot gives up after its tries."""
        robot = make()
        bus.faults = Faults(wrong_checksum=frozenset({2}))
        with pytest.raises(ConnectionError, match="Incorrect status packet"):
            robot.get_observation()

    def test_late_replies_are_taken_for_the_next_ones(self, tmp_path) -> None:
        """LeRobot empties no buffer before it asks: after one late reply it sees the past, for good."""
        write_calibration(tmp_path / "emulated.json")
        with EmulatedBus(calibrated_servos()) as bus:
            config = SO101FollowerConfig(
                port=bus.port, id="emulated", calibration_dir=tmp_path, num_read_retries=0
            )
            robot = SO101Follower(config)
            robot.connect()
            bus.faults = Faults(delay_s=1.0, replies=6)
            with pytest.raises(ConnectionError, match="no status packet"):
                robot.get_observation()
            robot.send_action({"shoulder_pan.pos": 20.0})
            wait_until(lambda: bus.value(1, "Present_Position") == 2047 + 227)
            wait_until(lambda: robot.bus.port_handler.ser.in_waiting == 48)  # they are there now

            seen = [robot.get_observation()["shoulder_pan.pos"] for _ in range(2)]

            assert seen == pytest.approx([0.0, 20.0], abs=TICK)
            robot.bus.port_handler.ser.close()

    def test_overload_is_not_seen_in_motion(self, make, bus) -> None:
        """Reads and commands to all servos ignore the error byte; letting go raises, and stops there."""
        robot = make()
        bus.set_errors(2, ServoError.OVERLOAD)

        robot.send_action(pose(robot, shoulder_pan=5.0))
        with pytest.raises(RuntimeError, match="Overload error"):
            robot.disconnect()

        assert torques(bus) == [0, 0, 1, 1, 1, 1]
        assert robot.is_connected

    def test_lost_power_is_not_seen(self, make, bus, clock) -> None:
        """The servos come back without torque: LeRobot reads and commands on, and nothing moves."""
        robot = make()
        bus.lose_power()

        robot.send_action(pose(robot, shoulder_pan=30.0))
        clock.sleep(3.0)

        assert robot.get_observation()["shoulder_pan.pos"] == pytest.approx(0.0, abs=TICK)
        assert torques(bus) == [0] * 6

    def test_pulled_cable(self, make, bus, clock) -> None:
        """LeRobot passes on what the terminal says, from disconnecting too; the servos hold their goal."""
        robot = make()
        robot.send_action(pose(robot, shoulder_pan=40.0))
        robot.get_observation()
        clock.sleep(0.05)

        bus.pull_cable()

        with pytest.raises(termios.error, match="Input/output"):
            robot.get_observation()
        with pytest.raises(termios.error, match="Input/output"):
            robot.disconnect()
        assert robot.is_connected
        clock.sleep(2.0)
        assert torques(bus) == [1] * 6
        assert bus.value(1, "Present_Position") == 2047 + 455
