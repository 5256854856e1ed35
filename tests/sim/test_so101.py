# SPDX-License-Identifier: Apache-2.0
"""The simulated arm on a virtual clock."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from sim_bench import Bench, make_bench

from pi05_websocket.sim.arm import HOME, JOINTS, LOWER, UPPER, Float64Array, forward
from pi05_websocket.sim.camera import FRONT_CAMERA
from pi05_websocket.sim.episodes import EpisodeRules
from pi05_websocket.sim.gl import SimulatorUnavailable
from pi05_websocket.sim.so101 import (
    CAMERA_SHAPES,
    IllegalAction,
    SimConfig,
    SimSO101,
    checked_action,
)
from pi05_websocket.sim.tasks import nudge, spawn
from pi05_websocket.sim.vision import find_cube

pytestmark = pytest.mark.sim

PANNED = HOME + np.array([30.0, 0, 0, 0, 0, 0])


def joints(bench: Bench) -> Float64Array:
    """Return the measured joints."""
    return np.array([bench.sim.get_joints()[f"{name}.pos"] for name in JOINTS])


def test_observation_has_joints_and_images_and_nothing_else(bench: Bench) -> None:
    """Six floats in LeRobot's names and two RGB images: nothing privileged."""
    seen = bench.sim.get_observation()

    assert set(seen) == {f"{name}.pos" for name in JOINTS} | set(CAMERA_SHAPES)
    assert {name: seen[name].shape for name in CAMERA_SHAPES} == CAMERA_SHAPES
    assert all(seen[name].dtype == np.uint8 for name in CAMERA_SHAPES)


def test_nothing_jumps_at_the_start(bench: Bench) -> None:
    """The arm begins at rest with its pose as its target: it sags less than a degree and stays."""
    before = joints(bench)
    bench.clock.sleep(1.0)

    assert joints(bench) == pytest.approx(before, abs=1.0)
    assert before == pytest.approx(HOME, abs=1e-3)


def test_physics_follow_the_clock(bench: Bench) -> None:
    """The last target is held between commands: time passes without a call, and the arm moves."""
    bench.sim.send_action(PANNED)
    at_once = joints(bench)
    bench.clock.sleep(1.0)

    assert at_once[0] == pytest.approx(0.0, abs=0.01)
    assert joints(bench)[0] == pytest.approx(30.0, abs=1.5)


def test_runs_repeat_bit_by_bit(bench: Bench) -> None:
    """The same seed and commands give the same joints and pixels."""

    def run() -> dict[str, object]:
        bench.sim.reset(3)
        bench.sim.send_action(PANNED)
        bench.clock.sleep(0.4)
        return bench.sim.get_observation()

    first, second = run(), run()

    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_commands_are_clipped_like_a_servo(bench: Bench) -> None:
    """A target beyond a joint's end becomes its end, and the caller is told."""
    sent = bench.sim.send_action(HOME + np.array([500.0, 0, 0, 0, 0, -50.0]))

    assert sent[0] == pytest.approx(UPPER[0])
    assert sent[5] == pytest.approx(LOWER[5])


@pytest.mark.parametrize("bad", [[0.0] * 5, [float("nan"), 0, 0, 0, 0, 0], [[0.0] * 6]])
def test_illegal_commands_change_nothing(bench: Bench, bad: list[float]) -> None:
    """NaN or a wrong number of joints is refused by name; the arm keeps its target."""
    with pytest.raises(IllegalAction, match=r"six joint targets|shoulder_pan"):
        bench.sim.send_action(bad)

    bench.clock.sleep(0.5)
    assert joints(bench) == pytest.approx(HOME, abs=1.0)


def test_checked_action_names_the_joint() -> None:
    """The joint that is not finite is named."""
    with pytest.raises(IllegalAction, match="elbow_flex"):
        checked_action([0, 0, float("inf"), 0, 0, 0])


def test_pure_kinematics_agree_with_the_simulator(bench: Bench) -> None:
    """The expert's own forward kinematics put the fingertips where MuJoCo has them."""
    model, data = bench.sim._scene.model, bench.sim._scene._data
    site = model.site("gripperframe").id

    assert forward(joints(bench)).position == pytest.approx(data.site_xpos[site], abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_cameras_see_the_cube_where_it_is(bench: Bench, seed: int) -> None:
    """Rendering and calibration mean the same camera: vision finds the cube within 2 mm."""
    bench.sim.reset(seed)
    pose = spawn(seed, 0)

    seen = find_cube(bench.sim.get_observation()["realsense"], FRONT_CAMERA)

    assert seen is not None
    assert [seen.x, seen.y] == pytest.approx([pose.x, pose.y], abs=0.002)


def test_next_cube_leaves_the_arm_alone(bench: Bench) -> None:
    """A new episode moves the cube, never the arm."""
    bench.sim.send_action(PANNED)
    bench.clock.sleep(1.0)
    before = joints(bench)
    bench.sim.begin_next_episode()

    pose = spawn(0, 1)
    assert joints(bench) == pytest.approx(before, abs=1e-9)
    assert bench.sim.cube_position == pytest.approx([pose.x, pose.y, 0.0125])
    assert (bench.sim.episode, bench.sim.succeeded) == (1, False)
    assert [event.kind for event in bench.events] == ["began", "ended", "next"]


def test_a_moved_cube_lies_elsewhere() -> None:
    """Once, where `nudge` says, and the cameras see it there; the arm goes on as it was told."""
    moved = make_bench("moved", EpisodeRules(next_episode="never"))
    start, (after_s, there) = moved.sim.cube_position, nudge(0, 0)
    moved.sim.send_action(PANNED)
    moved.clock.sleep(after_s - 0.02)
    moved.sim.get_joints()  # lets the physics follow
    assert moved.sim.cube_position == pytest.approx(start, abs=1e-3)
    moved.clock.sleep(0.1)
    moved.sim.get_joints()

    assert moved.sim.cube_position == pytest.approx([there.x, there.y, 0.0125], abs=1e-3)
    assert [event.kind for event in moved.events] == ["began", "moved"]
    moved.sim.close()


def test_belt_carries_the_cube() -> None:
    """On the belt the cube travels towards +y at the belt's speed; the arm's rule goes on by itself."""
    belt = make_bench("belt", EpisodeRules(next_episode="done", time_limit_s=3.0))
    start = belt.sim.cube_position
    belt.clock.sleep(2.0)

    assert belt.sim.get_observation()["realsense"].shape == (480, 640, 3)
    assert belt.sim.cube_position - start == pytest.approx([0.0, 0.02, 0.0], abs=1e-3)

    belt.sim.send_action(PANNED)
    belt.clock.sleep(4.0)
    belt.sim.get_joints()
    assert [event.kind for event in belt.events] == ["began", "ended", "next", "began"]
    belt.sim.close()


def test_camera_thread_delivers_frames_at_once() -> None:
    """On the wall clock frames come from a thread, also to a sink, and stop with the arm."""
    frames = []
    with SimSO101(SimConfig(), on_frames=frames.append) as sim:
        seen = sim.get_observation()
        assert "thread" in sim.config.render

    assert seen["wrist2"].shape == (224, 224, 3)
    assert len(frames) >= 1


def test_first_frame_that_fails_is_told_at_once() -> None:
    """A camera that cannot deliver its first frame makes the constructor raise, with the cause."""

    def broken(frames: object) -> None:
        raise OSError("disk full")

    with pytest.raises(SimulatorUnavailable, match="disk full"):
        SimSO101(on_frames=broken)


def test_camera_thread_reports_what_broke() -> None:
    """A camera thread that dies later makes the next observation raise."""
    frames: list[object] = []
    built = threading.Event()

    def breaks(images: object) -> None:
        frames.append(images)
        if len(frames) == 2:
            built.wait(10.0)
            raise OSError("disk full")

    with SimSO101(on_frames=breaks) as sim:
        built.set()
        sim._cameras._thread.join()  # type: ignore[attr-defined]
        with pytest.raises(SimulatorUnavailable, match="disk full"):
            sim.get_observation()
