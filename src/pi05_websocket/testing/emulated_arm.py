# SPDX-License-Identifier: Apache-2.0
"""An SO-101 that any driver of a real one can move: servos on a serial port, their shafts in the simulator.

In: what LeRobot's `so101_follower` writes to `bus.port`. Out: what it reads there, and camera frames in files
for cameras of the type `so101_sim`. The physics follow the wall clock. Needs the extra `sim`.
A joint without torque stays where it is: the simulated arm does not fall. Velocity mode and turning by hand do
nothing here; on an `EmulatedBus` of its own they do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from pi05_websocket.errors import ConfigError
from pi05_websocket.sim.arm import JOINTS, Float64Array
from pi05_websocket.sim.cameras import CAMERA_HZ, Images
from pi05_websocket.sim.episodes import EpisodeEvent
from pi05_websocket.sim.feed import FrameFeed
from pi05_websocket.sim.record import ArmRecord
from pi05_websocket.sim.so101 import CAMERA_SHAPES, EventSink, SimConfig, SimSO101
from pi05_websocket.testing.emulated_bus import EmulatedBus
from pi05_websocket.testing.feetech_shaft import LIMP, Drive
from pi05_websocket.testing.so101_calibration import (
    calibrated_servos,
    to_encoder,
    to_joints,
    write_calibration,
)

__all__ = ["ROBOT_ID", "EmulatedSO101", "robot_flags"]

ROBOT_ID = "emulated"
"""For `--robot.id`: the name of the calibration file."""


def robot_flags(port: str, folder: Path) -> list[str]:
    """Return the flags with which LeRobot's tools drive the arm at `port` with its files in `folder`."""
    cameras = {
        name: {
            "type": "so101_sim",
            "frames": str(folder / f"{name}.frames"),
            "width": shape[1],
            "height": shape[0],
            "fps": round(CAMERA_HZ),
        }
        for name, shape in CAMERA_SHAPES.items()
    }
    return [
        "--robot.type=so101_follower",
        f"--robot.port={port}",
        f"--robot.id={ROBOT_ID}",
        f"--robot.calibration_dir={folder}",
        f"--robot.cameras={json.dumps(cameras)}",
    ]


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep others out of the folder: their cameras would take the place of these."""
    try:
        import fcntl
    except ImportError:  # Windows, which has no pseudo-terminals either
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(
            descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # ends with the process, however that ends
    except OSError as exc:
        os.close(descriptor)
        raise ConfigError(
            f"{folder} is another emulated arm's folder: end that one, or give this one another folder"
        ) from exc
    try:
        yield
    finally:
        os.close(descriptor)


class _SimShaft:
    """One joint of the simulated arm as a servo's shaft."""

    def __init__(self, joints: _SimJoints, index: int) -> None:
        self.position = 0.0
        self.velocity = 0.0
        self.command = LIMP
        self._joints = joints
        self._index = index

    def drive(self, drive: Drive) -> None:
        self.command = drive

    def advance(self, now: float) -> None:
        position = float(self._joints.encoder(now)[self._index])
        self.velocity = float(self._joints.speed[self._index])
        self.position = position


class _SimJoints:
    """The simulated arm's joints, read once for all servos that are asked at one moment."""

    def __init__(self, sim: SimSO101, record: ArmRecord | None) -> None:
        self._sim = sim
        self._record = record
        self._now = -1.0
        self._encoder: Float64Array = to_encoder(self.read())
        self.speed: Float64Array = np.zeros(len(JOINTS))
        """Ticks/s."""

    def read(self) -> Float64Array:
        """Return the joints `(6,)` in LeRobot's units, now."""
        return np.array(list(self._sim.get_joints().values()))

    def encoder(self, now: float) -> Float64Array:
        """Return encoder ticks `(6,)`."""
        if now > self._now:
            joints = self.read()
            before, self._encoder = self._encoder, to_encoder(joints)
            if self._now >= 0:
                self.speed = (self._encoder - before) / (now - self._now)
            self._now = now
            if self._record is not None:
                self._record.tell_joints(joints)
        return self._encoder


class EmulatedSO101:
    """A simulated arm behind servos on a serial port. A context manager.

    Args:
        folder: Where the calibration file and the cameras' frames go.
        config: What is simulated.
        record: Takes frames, events, commands and joints.
        on_event: Told of every episode event; must be quick.

    Raises:
        SimulatorUnavailable: If the simulator or OpenGL is missing; says what to install.
        NoPseudoTerminal: If there can be no serial port.
        ConfigError: If another emulated arm uses the folder.
    """

    def __init__(
        self,
        folder: Path,
        config: SimConfig | None = None,
        *,
        record: ArmRecord | None = None,
        on_event: EventSink | None = None,
    ) -> None:
        self.folder = folder.expanduser().resolve()
        self._record = record
        self._on_event = on_event
        self._feeds: dict[str, FrameFeed] = {}
        self._limp = [True] * len(JOINTS)
        with ExitStack() as opened:
            opened.enter_context(_claimed(self.folder))
            write_calibration(self.folder / f"{ROBOT_ID}.json")
            for name, shape in CAMERA_SHAPES.items():
                self._feeds[name] = FrameFeed(self.folder / f"{name}.frames", shape)
                opened.callback(self._feeds[name].close)
            self.sim = SimSO101(config, on_event=self._event, on_frames=self._frames)
            opened.callback(self.sim.close)
            self._joints = joints = _SimJoints(self.sim, record)
            self._shafts = [_SimShaft(joints, index) for index in range(len(JOINTS))]
            self._target = joints.read()
            self.bus = EmulatedBus(calibrated_servos(self._shafts), on_changed=self._command)
            opened.callback(self.bus.close)
            self._opened = opened.pop_all()

    def __repr__(self) -> str:
        return f"<EmulatedSO101 {self.bus.port} {self.sim!r}>"

    def __enter__(self) -> EmulatedSO101:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def flags(self) -> list[str]:
        """The flags with which LeRobot's tools drive it."""
        return robot_flags(self.bus.port, self.folder)

    def close(self) -> None:
        """Close the port, stop the simulator, remove the frames. Safe to call twice."""
        self._opened.close()

    def _frames(self, images: Images) -> None:
        for name, image in images.items():
            self._feeds[name].write(image)
        if self._record is not None:
            self._record.add_frames(images)

    def _event(self, event: EpisodeEvent) -> None:
        if self._record is not None:
            self._record.tell(event)
        if self._on_event is not None:
            self._on_event(event)

    def _command(self) -> None:
        """Hand the servos' goals to the arm; the bus calls it when they may have changed."""
        wanted = np.array([shaft.command.target for shaft in self._shafts])
        held = self._target
        present = self._joints.read()
        goals = to_joints(wanted)
        target = held.copy()
        for index, shaft in enumerate(self._shafts):
            limp = shaft.command.kind == "limp"
            if shaft.command.kind == "position":
                target[index] = goals[index]
            elif limp and not self._limp[index]:  # it stays where it lost its torque
                target[index] = present[index]
            self._limp[index] = limp
        if (target != held).any() or not any(self._limp):
            self._target = self.sim.send_action(target)
            if self._record is not None:
                self._record.tell_command(self._target, self.sim.episode)
