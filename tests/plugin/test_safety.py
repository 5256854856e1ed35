# SPDX-License-Identifier: Apache-2.0
"""Pauses, resumes and limits as people set them: from flat settings, LeRobot's files and robots to the arm."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.lerobot, pytest.mark.filterwarnings("default")]

from fake_lerobot import JOINTS, FakeArm, FakeArmConfig  # noqa: E402
from lerobot.motors.motors_bus import Motor, MotorCalibration, MotorNormMode  # noqa: E402

from lerobot_policy_pi05_websocket import (  # noqa: E402
    PI05WebSocketConfig,
    SO101Sim,
    SO101SimConfig,
    make_policy,
)
from lerobot_policy_pi05_websocket.modeling_pi05_websocket import (  # noqa: E402
    PI05WebSocketPolicy,
)
from lerobot_policy_pi05_websocket.rtc_engine import bounded  # noqa: E402
from pi05_websocket.chunks.hold import HoldConfig  # noqa: E402
from pi05_websocket.chunks.resume import ResumeConfig  # noqa: E402
from pi05_websocket.cli import main  # noqa: E402
from pi05_websocket.errors import ConfigError, ConnectionLost, ObservationError  # noqa: E402
from pi05_websocket.robot.limits import Limits, LimitsConfig  # noqa: E402
from pi05_websocket.robot.settings import (  # noqa: E402
    hold_config,
    joint_ranges,
    ranges_of_robot,
    resume_config,
)

TURN = {"range_min": 1000, "range_max": 3000}
REACH = 1000 * 360 / 4095
"""Half of that range, degrees."""


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    """A calibration file as LeRobot writes it."""
    path = tmp_path / "my_arm.json"
    path.write_text(json.dumps({name: {"id": 1, **TURN} for name in JOINTS}))
    return str(path)


@pytest.fixture
def closing() -> Iterator[list[PI05WebSocketPolicy]]:
    """Policies that are closed at the end."""
    policies: list[PI05WebSocketPolicy] = []
    yield policies
    for policy in policies:
        policy.close()


@pytest.mark.parametrize(
    ("coast", "auto_resume", "expected"),
    [
        (1.0, 10.0, HoldConfig(coast_ticks=20, auto_resume_ticks=200)),
        (0.0, 0.0, HoldConfig(coast_ticks=0, auto_resume_ticks=0)),
        (None, None, HoldConfig(coast_ticks=None, auto_resume_ticks=None)),
    ],
)
def test_seconds_become_ticks(coast: Any, auto_resume: Any, expected: HoldConfig):
    """At the control rate; null is never."""
    made = hold_config(pose="commanded", coast=coast, auto_resume=auto_resume, control_hz=20)

    assert made == expected


def test_speeds_become_steps():
    """Degrees per second become degrees per tick, and the way to a plan takes a second at most."""
    made = resume_config(jump=2.0, velocity=60.0, control_hz=20)

    assert made == ResumeConfig(max_jump=(2.0,), max_velocity=(3.0,), max_ticks=20)


def test_named_limits_win_over_the_calibration(calibration: str):
    """A person may narrow what the arm could do."""
    ranges = joint_ranges(
        joint_limits={"elbow_flex.pos": [-45, 45]},
        calibration_file=calibration,
        joints=[f"{joint}.pos" for joint in JOINTS],
        units=["degrees"] * 5 + ["percent"],
    )

    assert ranges is not None
    assert ranges[2] == (-45, 45)
    assert ranges[0] == pytest.approx((-REACH, REACH))
    assert ranges[-1] == (0, 100)


def test_joints_without_a_limit_have_none():
    """Only what was named is limited; nothing named is no limit at all."""
    only = joint_ranges(
        joint_limits={"b": [0, 1]},
        calibration_file=None,
        joints=["a.pos", "b"],
        units=["degrees", "degrees"],
    )

    assert only == ((-np.inf, np.inf), (0, 1))
    nothing = joint_ranges(joint_limits={}, calibration_file=None, joints=["a"], units=["degrees"])
    assert nothing is None


@pytest.mark.parametrize(
    ("system", "pan", "gripper"),
    [
        ("", (-REACH, REACH), (0, 100)),
        ("lerobot_normalized", (-100, 100), (0, 100)),
        ("radians", (-math.radians(REACH), math.radians(REACH)), None),
        ("radians_fraction", (-math.radians(REACH), math.radians(REACH)), (0, 1)),
    ],
)
def test_a_calibration_in_the_robots_own_units(
    system: str, pan: Any, gripper: Any, calibration: str
):
    """Whatever it is driven in, the range is the arm's."""
    config = PI05WebSocketConfig(
        robot_units=system, policy_units=system, calibration_file=calibration
    )
    limits = config.player_config(tick_source="wall", key_map=config.key_map()).limits

    assert limits.low is not None
    assert limits.high is not None
    assert (limits.low[0], limits.high[0]) == pytest.approx(pan)
    assert (limits.low[-1], limits.high[-1]) == pytest.approx(gripper or pan)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"joint_limits": {"knee": [0, 1]}}, "no joint 'knee'; there are shoulder_pan"),
        ({"joint_limits": {"elbow_flex": [0]}}, r"elbow_flex: expected \[smallest, largest\]"),
        ({"joint_limits": {"elbow_flex": [5, -5]}}, "expected low < high"),
        ({"calibration_file": "/nowhere.json"}, "cannot be read"),
        ({"hold_pose": "rest"}, "commanded, measured"),
        ({"coast": -1.0}, "coast=-1.0: must be 0 or more seconds"),
        ({"auto_resume": float("inf")}, "auto_resume=inf"),
        ({"control_hz": float("inf")}, "control_hz=inf"),
        ({"resume_jump": 0.0}, "max_jump"),
        ({"resume_velocity": -3.0}, "max_velocity"),
        ({"max_velocity": 0.0}, "max_velocity"),
        ({"max_step": 0.0}, "max_step"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], told: str):
    """At once, not in front of a moving arm."""
    with pytest.raises(ConfigError, match=told):
        PI05WebSocketConfig(**settings)


def test_a_calibration_of_something_else_is_refused(tmp_path: Path):
    """A file that is JSON and no calibration."""
    path = tmp_path / "list.json"
    path.write_text('["shoulder_pan"]')

    with pytest.raises(ConfigError, match="expected motors with ranges"):
        PI05WebSocketConfig(calibration_file=str(path))


def test_what_lerobot_knows_of_a_feetech_arm():
    """Its calibration, in the units each motor is driven in; what has none is not limited."""
    modes = {
        "shoulder_pan": MotorNormMode.DEGREES,
        "elbow_flex": MotorNormMode.RANGE_M100_100,
        "gripper": MotorNormMode.RANGE_0_100,
        "uncalibrated": MotorNormMode.DEGREES,
    }
    motors = {name: Motor(1, "sts3215", mode) for name, mode in modes.items()}
    entry = MotorCalibration(id=1, drive_mode=0, homing_offset=0, **TURN)
    robot = SimpleNamespace(
        bus=SimpleNamespace(motors=motors),
        calibration={name: entry for name in modes if name != "uncalibrated"},
    )

    assert ranges_of_robot(robot) == {
        "shoulder_pan": pytest.approx([-REACH, REACH]),
        "elbow_flex": [-100, 100],
        "gripper": [0, 100],
    }
    assert ranges_of_robot(SimpleNamespace()) == {}


def test_what_the_simulated_arm_says_of_itself():
    """Its model's ranges, without being connected."""
    ranges = ranges_of_robot(SO101Sim(SO101SimConfig()))

    assert list(ranges) == list(JOINTS)
    assert all(low < high for low, high in ranges.values())


def raw(arm: FakeArm) -> dict[str, Any]:
    """Return an observation, the arm being connected."""
    return arm.get_observation()


def test_no_target_leaves_the_robots_own_range(served, closing):
    """`make_policy(config, robot=robot)` takes what the robot knows; the policy wants to go on and on."""
    _, url = served(step=1.0)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    arm.joint_ranges = dict.fromkeys(JOINTS, (-10.0, 4.5))  # type: ignore[attr-defined]
    closing.append(make_policy(PI05WebSocketConfig(websocket_url=url, task="go"), robot=arm))

    action = closing[-1].select_action(raw(arm))

    # It starts at 1, 2, 3, 4, 5, 6, and each row goes on by 1. What is outside comes back, at a bounded speed.
    assert [round(value, 3) for value in action.values()] == [2, 3, 4, 4.5, 4.5, 4.5]


def test_no_target_moves_faster_than_it_may(served, closing):
    """`max_velocity` counts per second."""
    _, url = served(step=1.0)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    config = PI05WebSocketConfig(websocket_url=url, task="go", max_velocity=15.0)
    closing.append(make_policy(config))

    action = closing[-1].select_action(raw(arm))

    assert [round(value, 3) for value in action.values()] == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]


def test_a_stopped_arm_waits_for_a_person(served, closing):
    """With `auto_resume=0` the first pause latches; new chunks do not move the arm, `resume()` does."""
    policy, url = served(rows=3)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    config = PI05WebSocketConfig(websocket_url=url, task="go", auto_resume=0.0)
    closing.append(make_policy(config))
    ours = closing[-1]
    until = time.monotonic() + 20

    def tick() -> dict[str, float]:
        time.sleep(1 / 30)
        action = ours.select_action(raw(arm))
        arm.send_action(action)
        return action

    tick()
    policy.delay_s = 0.5
    while not (stopped := ours.resume()) and time.monotonic() < until:
        tick()
    assert stopped, "a chunk of three rows and an answer after half a second: the arm had to stop"
    before = dict(arm.pose)
    while arm.pose == before and time.monotonic() < until:
        tick()

    assert arm.pose != before
    # The rows ran out again, and again only a person may end that.
    while (pose := dict(arm.pose)) and tick() != pose and time.monotonic() < until:
        pass
    for _ in range(30):
        assert tick() == pose


def test_nothing_moves_before_a_person_has_looked(served, closing):
    """Under LeRobot too: the arm keeps its pose until it is confirmed, here over the control port."""
    _, url = served(step=1.0)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = PI05WebSocketConfig(websocket_url=url, task="go", confirm=True, control_port=port)
    closing.append(make_policy(config))

    def tick() -> dict[str, float]:
        time.sleep(1 / 30)
        arm.send_action(closing[-1].select_action(raw(arm)))
        return dict(arm.pose)

    def control(*words: str) -> int:
        """Give a command from another terminal; return its exit code."""
        with ThreadPoolExecutor() as terminal:
            command = terminal.submit(main, ["control", *words, "--port", str(port)])
            while not command.done():
                tick()
            return command.result()

    start = dict(arm.pose)
    assert [tick() for _ in range(20)] == [start] * 20
    assert control("resume") == 0
    until = time.monotonic() + 20
    while tick() == start and time.monotonic() < until:
        pass
    assert arm.pose["shoulder_pan.pos"] > start["shoulder_pan.pos"]

    assert control("task", "something else") == 0
    assert control("pause") == 0
    for _ in range(3):
        tick()
    stopped = tick()
    assert [tick() for _ in range(10)] == [stopped] * 10


def test_a_new_task_reaches_the_server(served, closing):
    """Instead of the caller's, from the next request on; the end of the program is not ours."""
    policy, url = served()
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    closing.append(make_policy(PI05WebSocketConfig(websocket_url=url, task="go")))
    ours = closing[-1]

    def tick(count: int = 1) -> None:
        for _ in range(count):
            time.sleep(1 / 30)
            arm.send_action(ours.select_action(raw(arm)))

    tick()
    ours._controls.change_task("come back")
    until = time.monotonic() + 20
    while policy.prompts[-1] != "come back" and time.monotonic() < until:
        tick()
    ours._controls.new_episode()
    tick(3)
    ours._controls.quit()
    tick(2)
    before = dict(arm.pose)
    tick(5)

    assert policy.prompts == ["go", "come back"]
    assert arm.pose == before


def test_a_dry_run_moves_nothing(served, closing, caplog):
    """And says what it would do, with the joints' names."""
    _, url = served(step=1.0)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    closing.append(make_policy(PI05WebSocketConfig(websocket_url=url, task="go", dry_run=True)))
    start = dict(arm.pose)

    with caplog.at_level("INFO"):
        for _ in range(30):
            arm.send_action(closing[-1].select_action(raw(arm)))
            time.sleep(1 / 30)

    assert arm.pose == start
    assert "DRY RUN, nothing moves. The policy's next 30 rows" in caplog.text
    assert "shoulder_pan       1.00      +1.00" in caplog.text


def test_slower_under_lerobot(served, closing):
    """A third of the speed: a third of a degree a tick."""
    _, url = served(step=0.9)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    closing.append(
        make_policy(PI05WebSocketConfig(websocket_url=url, task="go", speed_scale=1 / 3))
    )
    commands = []
    for _ in range(20):
        action = closing[-1].select_action(raw(arm))
        arm.send_action(action)
        commands.append(action["shoulder_pan.pos"])
        time.sleep(1 / 30)

    steps = np.diff(commands)
    assert commands[-1] > commands[0] + 2
    assert steps.max() < 0.9  # a loop that skips a row takes two of them


@pytest.mark.parametrize(
    "held_back",
    [{"dry_run": True}, {"confirm": True}, {"speed_scale": 0.5}, {"control_port": 0}],
)
def test_the_rtc_engine_cannot_look_first(held_back: dict[str, Any], closing):
    """Its queue hands rows to the arm that nobody has seen."""
    closing.append(make_policy(PI05WebSocketConfig(websocket_url="ws://127.0.0.1:1", **held_back)))

    with pytest.raises(ConfigError, match=r"--inference\.type=sync"):
        closing[-1].init_rtc_processor()
    with pytest.raises(ConfigError, match="whole chunks are played by somebody else"):
        closing[-1].predict_action_chunk(_batch(np.zeros((1, 6), np.float32)))


def test_whole_chunks_keep_the_limits(served, closing):
    """Whoever plays them: from row to row, from where the arm is."""
    _, url = served(step=3.0)
    config = PI05WebSocketConfig(
        websocket_url=url, joint_limits={"elbow_flex": [-5, 5]}, max_velocity=30.0
    )
    closing.append(make_policy(config))

    rows = closing[-1].predict_action_chunk(_batch(np.zeros((1, 6), np.float32)))[0].numpy()

    assert rows[:4, 0].tolist() == pytest.approx([1, 2, 3, 4])
    assert rows[:, 2].max() == 5


def test_a_stopped_arm_stays_so_over_lerobots_resets(served, closing):
    """`lerobot-rollout` begins episodes by a timer; nobody has looked at the arm then."""
    _, url = served(step=1.0)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    closing.append(make_policy(PI05WebSocketConfig(websocket_url=url, task="go")))
    ours = closing[-1]

    def ticks(count: int) -> None:
        for _ in range(count):
            arm.send_action(ours.select_action(raw(arm)))
            time.sleep(1 / 30)

    ticks(5)
    ours._controls.change_task("something else")
    ours._controls.pause()
    ticks(2)
    before = dict(arm.pose)
    ours.reset()
    ticks(10)
    assert arm.pose == before

    assert ours.resume()
    ticks(20)
    assert arm.pose["shoulder_pan.pos"] > before["shoulder_pan.pos"]


def test_a_joint_that_is_no_number_ends_the_run(served, closing):
    """At any tick, not only where a request is due: no limit could be kept."""
    _, url = served(rows=50)
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    closing.append(make_policy(PI05WebSocketConfig(websocket_url=url, task="go")))
    arm.send_action(closing[-1].select_action(raw(arm)))
    arm.pose["elbow_flex.pos"] = math.nan

    with pytest.raises(ObservationError, match="elbow_flex = nan"):
        closing[-1].select_action(raw(arm))


def test_a_port_that_is_taken_leaves_nothing_open(served, closing):
    """So that the next try does not find its own page in the way."""
    _, url = served()
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = free.getsockname()[1], taken.getsockname()[1]
        free.close()
        config = PI05WebSocketConfig(
            websocket_url=url, control_port=ports[0], metrics_port=ports[1]
        )
        ours = PI05WebSocketPolicy(config)
        closing.append(ours)
        for _ in range(2):
            with pytest.raises(ConfigError, match=f"metrics_port={ports[1]}"):
                ours.connect()


def test_units_are_converted_both_ways(served, closing, caplog):
    """The policy sees radians and turns; the robot's limits are the robot's; the log shows the table."""
    policy, url = served(step=math.radians(1.0))
    arm = FakeArm(FakeArmConfig())
    arm.connect()
    config = PI05WebSocketConfig(
        websocket_url=url,
        task="go",
        robot_units="lerobot",
        policy_units="radians",
        policy_joint_units={"gripper": "percent"},
        joint_signs={"wrist_roll": -1},
        joint_limits={"shoulder_pan": [-10.0, 1.5]},
    )
    with caplog.at_level("INFO"):
        closing.append(make_policy(config))
        action = closing[-1].select_action(raw(arm))

    seen = policy.observations[0]["observation/state"]
    assert seen == pytest.approx([*np.radians([1, 2, 3, 4, -5]), 6], abs=1e-5)
    assert list(action.values()) == pytest.approx([1.5, 3, 4, 5, 4, 6 + math.radians(1)], abs=1e-4)
    assert "wrist_roll     degrees     radians     -0.0174533 * robot" in caplog.text


def test_the_rtc_engines_leftover_is_in_the_policys_units(served, closing):
    """The engine holds the robot's numbers; what is sent is the policy's own rows, bit for bit."""
    _, url = served()
    config = PI05WebSocketConfig(
        websocket_url=url,
        robot_units="degrees",
        policy_units="radians",
    )
    closing.append(make_policy(config))
    ours = closing[-1]
    batch = _batch(np.full((1, 6), 0.1, np.float32))
    chunk = ours.predict_action_chunk(batch, inference_delay=0)[0]
    rtc = ours._rtc
    assert rtc is not None
    assert rtc._last is not None

    left = rtc._true_leftover(chunk[10:].numpy(), rtc._last)

    assert chunk.numpy() == pytest.approx(np.degrees(rtc._last), rel=1e-5)
    assert left.tobytes() == rtc._last[10:].tobytes()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"robot_units": "turns"}, "unknown units 'turns'"),
        ({"joint_signs": {"knee": -1}}, r"no joint \['knee'\]"),
        ({"keymap": "droid", "robot_units": "degrees", "policy_units": "radians"}, "velocity"),
        ({"robot_units": "lerobot", "policy_units": "lerobot_normalized"}, "calibration_file"),
    ],
)
def test_impossible_units_are_refused(settings: dict[str, Any], told: str):
    """Before anything moves."""
    with pytest.raises(ConfigError, match=told):
        PI05WebSocketConfig(**settings)


def test_old_policies_on_a_new_lerobot(calibration: str):
    """-100..100 against degrees, by the arm's own calibration; the gripper is the same in both."""
    config = PI05WebSocketConfig(
        robot_units="lerobot", policy_units="lerobot_normalized", calibration_file=calibration
    )

    units = config.unit_map(config.key_map())

    assert units is not None
    found = units.to_policy(np.array([REACH, -REACH, 0, REACH / 2, 0, 70], np.float32))
    assert found == pytest.approx([100, -100, 0, 50, 0, 70], abs=1e-3)


def test_a_preset_that_knows_its_units_warns(served, closing, caplog):
    """It does not convert by itself: what the robot counts in is not known."""
    _, url = served()
    closing.append(make_policy(PI05WebSocketConfig(websocket_url=url, keymap="so101_leisaac")))

    closing[-1].connect()

    assert "use -100 to 100 over each joint's range" in caplog.text
    assert "--policy.robot_units=lerobot" in caplog.text


def test_a_chunk_for_the_rtc_engine_begins_where_the_arm_is():
    """At a bounded speed, row by row; later rows are the policy's."""
    rows = np.array([[10.0], [10.0], [10.0], [10.0]], np.float32)
    free = Limits(LimitsConfig(), "absolute", 10)
    gentle = ResumeConfig(max_jump=(1.0,), max_velocity=(4.0,))

    begun = bounded(rows, pose=np.zeros(1, np.float32), resume=gentle, limits=free)
    running = bounded(rows, pose=None, resume=gentle, limits=free)

    assert begun[:, 0].tolist() == [4, 8, 10, 10]
    assert running.tolist() == rows.tolist()


def test_a_chunk_for_the_rtc_engine_keeps_the_limits():
    """From row to row, from the pose on where it is known."""
    rows = np.array([[1.0], [3.0], [9.0], [9.0]], np.float32)
    limits = Limits(LimitsConfig(high=(6.0,), max_velocity=(20.0,)), "absolute", 10)

    made = bounded(rows, pose=np.zeros(1, np.float32), resume=None, limits=limits)

    assert made[:, 0].tolist() == [1, 3, 5, 6]


def test_the_rtc_engine_stops_after_a_pause_that_was_too_long(served, closing):
    """Its calls fail, which ends the run; a new episode, or a person, lets it ask again."""
    _, url = served()
    closing.append(make_policy(PI05WebSocketConfig(websocket_url=url, auto_resume=0.2)))
    ours = closing[-1]
    batch = _batch(np.zeros((1, 6), np.float32))
    ours.predict_action_chunk(batch, inference_delay=0)
    remote = ours._remote
    assert remote is not None
    back_at = time.monotonic() + 0.5
    reachable = remote.unavailable
    remote.unavailable = lambda: (  # type: ignore[method-assign]
        ConnectionLost("gone") if time.monotonic() < back_at else reachable()
    )
    for _ in range(2):
        with pytest.raises(ConnectionLost, match=r"resume\(\)"):
            ours.predict_action_chunk(batch, inference_delay=0)

    assert ours.resume()
    assert not ours.resume()
    assert ours.predict_action_chunk(batch, inference_delay=0).shape[-1] == 6


def _batch(state: np.ndarray) -> dict[str, Any]:
    import torch

    images = {
        f"observation.images.{name}": torch.zeros(1, 3, height, width)
        for name, height, width in (("wrist2", 224, 224), ("realsense", 480, 640))
    }
    return {"observation.state": torch.from_numpy(state), **images, "task": ["go"]}
