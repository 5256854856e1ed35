# SPDX-License-Identifier: Apache-2.0
"""The whole loop with LeRobot's own driver: rollout, plugin, server, servo bus, simulated arm and cameras."""

from __future__ import annotations

import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lerobot.configs.parser
import numpy as np
import pytest
from lerobot.cameras import CameraConfig
from lerobot.cameras.utils import make_cameras_from_configs
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
from lerobot.scripts import lerobot_rollout
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from lerobot_policy_pi05_websocket import SO101SimCamera, SO101SimCameraConfig
from pi05_websocket.errors import ConfigError
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.sim.expert import ExpertPolicy
from pi05_websocket.sim.feed import FrameFeed, NoFrames
from pi05_websocket.sim.so101 import CAMERA_SHAPES
from pi05_websocket.testing import Faults
from pi05_websocket.testing.emulated_arm import EmulatedSO101

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.sim,
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("patient_driver"),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]

SHAPE = (4, 6, 3)


@pytest.fixture
def begun() -> threading.Event:
    """Return what is set when the policy moves the arm."""
    return threading.Event()


@pytest.fixture
def arm(tmp_path: Path, begun: threading.Event) -> Iterator[EmulatedSO101]:
    """Return an emulated arm."""
    with EmulatedSO101(tmp_path / "arm", on_event=lambda event: begun.set()) as made:
        yield made


@pytest.fixture
def rollout(monkeypatch: pytest.MonkeyPatch, arm: EmulatedSO101) -> Iterator[Callable[..., None]]:
    """Return `lerobot-rollout` with the expert behind a server, on the emulated arm."""
    lerobot.configs.parser._config_path_args.clear()
    with WebsocketPolicyServer(ExpertPolicy(), host="127.0.0.1", port=0) as server:

        def run(*words: str) -> None:
            common = [
                "lerobot-rollout",
                "--policy.type=pi05_websocket",
                f"--policy.websocket_url=ws://127.0.0.1:{server.port}",
                "--policy.action_horizon=25",
                *arm.flags,
                "--task=Pick up the red cube.",
                "--fps=30",
                "--play_sounds=false",
                "--return_to_initial_position=false",
            ]
            monkeypatch.setattr(sys, "argv", [*common, *words])
            lerobot_rollout.rollout()

        yield run


def torques(arm: EmulatedSO101) -> list[int]:
    """Return which servos have torque."""
    return [arm.bus.value(servo, "Torque_Enable") for servo in range(1, 7)]


class TestWholeLoop:
    def test_picks_up_a_cube(self, arm, rollout) -> None:
        """Nothing is faked between the policy and the servos' registers; the arm lets go in the end."""
        rollout("--duration=8", "--robot.max_relative_target=20")

        # Within eight seconds only success leads to a next episode.
        assert arm.sim.succeeded or arm.sim.episode > 0
        assert torques(arm) == [0] * 6

    @pytest.mark.parametrize(
        ("fault", "error", "said"),
        [
            (lambda arm: arm.bus.pull_cable(), termios.error, "Input/output"),
            (
                lambda arm: setattr(arm.bus, "faults", Faults(silent=frozenset({3}))),
                ConnectionError,
                "no status packet",
            ),
        ],
        ids=["pulled cable", "silent servo"],
    )
    def test_a_fault_in_motion_ends_the_run(self, arm, rollout, begun, fault, error, said) -> None:
        """LeRobot's error reaches whoever started it, and nothing of ours hangs or goes on."""
        before = set(threading.enumerate())

        def break_it() -> None:
            assert begun.wait(60)
            fault(arm)

        breaker = threading.Thread(target=break_it)
        breaker.start()
        with pytest.raises(error, match=said):
            rollout("--duration=30")
        breaker.join()

        assert begun.is_set()
        left = {thread for thread in set(threading.enumerate()) - before if not thread.daemon}
        assert left == set()


class TestDriver:
    def test_one_folder_is_one_arms(self, arm) -> None:
        """A second one would put its cameras in the place of the first one's."""
        with pytest.raises(ConfigError, match="another emulated arm's folder"):
            EmulatedSO101(arm.folder)
        assert connected(arm).is_connected

    def test_lost_power_stops_it_where_it_is(self, arm) -> None:
        """Not at the goal it was on its way to."""
        robot = connected(arm)
        action = {key: value for key, value in robot.get_observation().items() if ".pos" in key}
        robot.send_action({**action, "shoulder_pan.pos": 60.0})
        seen = robot.get_observation()  # a sync write is not answered; this is, after it
        arm.bus.lose_power()
        stopped = arm.sim.get_joints()["shoulder_pan.pos"]
        for _ in range(30):
            seen = robot.get_observation()
        robot.disconnect()

        assert seen["shoulder_pan.pos"] == pytest.approx(stopped, abs=15)

    def test_observation_is_the_simulated_pose(self, arm) -> None:
        """Joints in degrees and both cameras' newest frames."""
        robot = connected(arm)
        seen = robot.get_observation()
        joints = arm.sim.get_joints()
        robot.disconnect()

        assert {key: seen[key] for key in joints} == pytest.approx(joints, abs=0.3)
        assert {name: seen[name].shape for name in CAMERA_SHAPES} == CAMERA_SHAPES
        assert seen["realsense"].std() > 5

    def test_a_joint_without_torque_stays(self, arm) -> None:
        """It keeps the place where it lost its torque, whatever its goal was."""
        robot = connected(arm)
        action = {key: value for key, value in robot.get_observation().items() if ".pos" in key}
        robot.send_action({**action, "shoulder_pan.pos": 60.0})
        robot.bus.disable_torque("shoulder_pan")
        stopped = arm.sim.get_joints()["shoulder_pan.pos"]
        robot.send_action({**action, "shoulder_pan.pos": 60.0, "gripper.pos": 50.0})
        for _ in range(30):
            seen = robot.get_observation()
        robot.disconnect()

        assert seen["shoulder_pan.pos"] == pytest.approx(stopped, abs=15)


def connected(arm: EmulatedSO101) -> SO101Follower:
    """Return LeRobot's robot, with both cameras."""
    cameras = {
        name: SO101SimCameraConfig(
            frames=str(arm.folder / f"{name}.frames"), width=shape[1], height=shape[0], fps=30
        )
        for name, shape in CAMERA_SHAPES.items()
    }
    robot = SO101Follower(
        SO101FollowerConfig(
            port=arm.bus.port, id="emulated", calibration_dir=arm.folder, cameras=cameras
        )
    )
    robot.connect()
    return robot


class TestCamera:
    @pytest.fixture
    def feed(self, tmp_path: Path) -> FrameFeed:
        """Return a feed with one frame."""
        feed = FrameFeed(tmp_path / "a.frames", SHAPE)
        feed.write(np.full(SHAPE, 7, np.uint8))
        return feed

    @pytest.fixture
    def camera(self, feed: FrameFeed) -> SO101SimCamera:
        """Return a camera made as LeRobot makes it, not connected."""
        return make(feed)

    def test_lerobot_finds_it_by_name(self, camera) -> None:
        """`type: so101_sim` is a choice, and its class is found from the config's."""
        assert CameraConfig.get_choice_class("so101_sim") is SO101SimCameraConfig
        assert isinstance(camera, SO101SimCamera)
        assert (camera.width, camera.height, camera.fps) == (6, 4, 30)
        assert SO101SimCamera.find_cameras() == []

    def test_frames(self, camera, feed) -> None:
        """The newest at once, or the next one when it comes; each is the reader's own."""
        camera.connect()
        assert camera.read_latest(max_age_ms=60_000).tolist() == np.full(SHAPE, 7).tolist()
        feed.write(np.full(SHAPE, 8, np.uint8))
        assert camera.read().flat[0] == 8
        threading.Timer(0.05, feed.write, [np.full(SHAPE, 9, np.uint8)]).start()
        assert camera.async_read(timeout_ms=20_000).flat[0] == 9
        with pytest.raises(TimeoutError, match="no new frame"):
            camera.async_read(timeout_ms=10)
        camera.disconnect()
        assert not camera.is_connected

    def test_old_frame_is_refused(self, camera, feed) -> None:
        """As LeRobot's cameras do; the emulated arm has ended."""
        camera.connect()
        feed.write(np.zeros(SHAPE, np.uint8), taken_s=1.0)
        with pytest.raises(TimeoutError, match="has the emulated arm ended"):
            camera.read_latest()

    def test_no_frame_yet(self, tmp_path) -> None:
        """Without a warm-up it connects; then there is nothing to return."""
        camera = make(FrameFeed(tmp_path / "b.frames", SHAPE))
        camera.connect(warmup=False)
        with pytest.raises(RuntimeError, match="no frame yet"):
            camera.read_latest()

    def test_wrong_size(self, feed) -> None:
        """A config that says another size is refused, and the camera stays unconnected."""
        camera = make(feed, width=640)
        with pytest.raises(ConfigError, match=r"width 6.*says 640"):
            camera.connect()
        assert not camera.is_connected

    def test_no_arm(self, tmp_path) -> None:
        """The message asks for it."""
        camera = make(FrameFeed(tmp_path / "c.frames", SHAPE))
        (tmp_path / "c.frames").unlink()
        with pytest.raises(NoFrames, match="is the emulated arm running"):
            camera.connect()

    def test_order_of_calls(self, camera) -> None:
        """Before `connect` every call says so; twice is a mistake."""
        for call in (camera.read, camera.read_latest, camera.disconnect):
            with pytest.raises(DeviceNotConnectedError):
                call()
        camera.connect()
        with pytest.raises(DeviceAlreadyConnectedError):
            camera.connect()


def make(feed: FrameFeed, **changed: Any) -> SO101SimCamera:
    """Return a camera as LeRobot makes it."""
    settings = {"width": SHAPE[1], "height": SHAPE[0], "fps": 30, **changed}
    config = SO101SimCameraConfig(frames=str(feed.path), **settings)
    return make_cameras_from_configs({"a": config})["a"]
