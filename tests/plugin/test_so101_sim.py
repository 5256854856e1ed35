# SPDX-License-Identifier: Apache-2.0
"""The simulated arm as LeRobot sees it, on the wall clock, and LeRobot's rollout that picks up a cube."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import lerobot.configs.parser
import pytest
from lerobot.robots import Robot, RobotConfig
from lerobot.robots.utils import make_robot_from_config
from lerobot.scripts import lerobot_rollout
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from lerobot_policy_pi05_websocket import SO101Sim, SO101SimConfig
from pi05_websocket.errors import ConfigError
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.sim.arm import UPPER
from pi05_websocket.sim.expert import ExpertPolicy
from pi05_websocket.sim.so101 import IllegalAction

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.sim,
    pytest.mark.timeout(120),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    """Return a connected robot, made as LeRobot makes it."""
    made = make_robot_from_config(SO101SimConfig())
    made.connect()
    yield made
    made.disconnect()


def pose(robot: Robot, **changed: float) -> dict[str, float]:
    """Return the measured joints as an action, with changes."""
    seen = robot.get_observation()
    return {key: seen[key] for key in robot.action_features} | changed


def lines(path: Path) -> list[dict[str, Any]]:
    """Return a trace's lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lerobot_finds_it_by_name() -> None:
    """`--robot.type=so101_sim` is a choice, and its class is found from the config's."""
    assert RobotConfig.get_choice_class("so101_sim") is SO101SimConfig
    assert isinstance(make_robot_from_config(SO101SimConfig()), SO101Sim)


def test_observation_is_what_the_features_say(robot: Robot) -> None:
    """Six floats and two images, under the names and shapes LeRobot was told."""
    seen = robot.get_observation()

    assert set(seen) == set(robot.observation_features)
    for key, feature in robot.observation_features.items():
        assert isinstance(seen[key], float) if feature is float else seen[key].shape == feature
    assert robot.is_calibrated


def test_action_is_returned_as_sent(robot: Robot) -> None:
    """A target beyond a joint's end comes back as its end, as from a real servo."""
    sent = robot.send_action(pose(robot, **{"shoulder_pan.pos": 900.0}))

    assert sent["shoulder_pan.pos"] == pytest.approx(UPPER[0])
    robot.send_action(pose(robot))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shoulder_pan.pos": float("nan")}, "shoulder_pan"),
        ({"wrist.pos": 0.0}, r"unknown: wrist\.pos"),
    ],
)
def test_illegal_action_is_refused(robot: Robot, change: dict[str, float], said: str) -> None:
    """NaN and unknown joints are refused by name."""
    with pytest.raises(IllegalAction, match=said):
        robot.send_action(pose(robot, **change))


def test_missing_joint_is_refused(robot: Robot) -> None:
    """An action with five joints is refused with the sixth's name."""
    action = pose(robot)
    del action["gripper.pos"]

    with pytest.raises(IllegalAction, match=r"missing.*gripper\.pos"):
        robot.send_action(action)


def test_not_connected_is_told() -> None:
    """Before `connect` every call says so."""
    cold = SO101Sim(SO101SimConfig())

    assert not cold.is_connected
    with pytest.raises(DeviceNotConnectedError):
        cold.get_observation()
    with pytest.raises(DeviceNotConnectedError):
        cold.disconnect()


@pytest.mark.parametrize(
    "wrong", [{"task": "stack"}, {"next_episode": "soon"}, {"time_limit_s": 0}, {"seed": -1}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    """A config that cannot be is refused before anything starts."""
    with pytest.raises(ConfigError, match=r"stack|soon|time_limit_s|seed is -1"):
        SO101SimConfig(**wrong)


def test_recording_is_whole(tmp_path: Path) -> None:
    """After disconnecting there are both videos, frame for frame, and a trace with the first cube's place."""
    folder = tmp_path / "deep"
    robot = SO101Sim(SO101SimConfig(record_dir=str(folder)))
    robot.connect()
    robot.calibrate()
    robot.configure()
    with pytest.raises(DeviceAlreadyConnectedError):
        robot.connect()
    robot.get_observation()
    robot.disconnect()

    trace = lines(folder / "robot.jsonl")
    counts = []
    for name in ("realsense", "wrist2"):
        with av.open(str(folder / f"{name}.mp4")) as video:
            counts.append(sum(1 for _ in video.decode(video=0)))
    assert trace[0]["kind"] == "recording"
    assert trace[1] | {"time_s": 0} == {
        "kind": "cube", "time_s": 0, "episode": 0, "x": 0.2245, "y": 0.0442, "yaw": 0.1287,
    }  # fmt: skip
    assert trace[-1]["kind"] == "recorded"
    assert counts == [trace[-1]["frames"]] * 2


def test_rollout_picks_up_a_cube(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LeRobot's rollout, the plugin, the wire, the expert, the arm: all real."""
    lerobot.configs.parser._config_path_args.clear()
    with WebsocketPolicyServer(ExpertPolicy(), host="127.0.0.1", port=0) as server:
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "lerobot-rollout",
                "--policy.type=pi05_websocket",
                f"--policy.websocket_url=ws://127.0.0.1:{server.port}",
                "--policy.action_horizon=25",
                "--robot.type=so101_sim",
                f"--robot.record_dir={tmp_path}",
                "--task=Pick up the red cube.",
                "--duration=8",
                "--play_sounds=false",
                "--return_to_initial_position=false",
            ],
        )
        lerobot_rollout.rollout()

    trace = lines(tmp_path / "robot.jsonl")
    ended = [line for line in trace if line["kind"] == "ended"]
    assert any(line["success"] for line in ended)
