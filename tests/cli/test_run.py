# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket run`: a robot of one's own against a real server, in process."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.cli import main
from pi05_websocket.cli.run import RunCommand, _signals_quit, words
from pi05_websocket.errors import ConfigError
from pi05_websocket.presets import preset
from pi05_websocket.robot.runtime import RunSummary
from pi05_websocket.server import WebsocketPolicyServer

ARM = """
import numpy as np
from pi05_websocket.robot.interface import RobotReading

class Arm:
    closed = 0
    commands = []

    def get_observation(self):
        images = {"wrist2": np.zeros((224, 224, 3), np.uint8), "realsense": np.zeros((480, 640, 3), np.uint8)}
        joints = self.commands[-1] if self.commands else np.zeros(6, np.float32)
        return RobotReading(images, joints)

    def send_action(self, values):
        self.commands.append(values)

    def close(self):
        Arm.closed += 1

class Leader:
    closed = 0

    def get_action(self):
        return np.full(6, 5.0, np.float32)

    def close(self):
        Leader.closed += 1

class Half:
    def get_observation(self):
        pass
"""


class Onwards:
    """Ten rows onwards from where the arm is."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer."""
        state = np.asarray(observation["observation/state"], np.float32)
        return {"actions": state + np.arange(10)[:, None].astype(np.float32)}


@pytest.fixture
def arm(tmp_path: Path, monkeypatch) -> Iterator[Any]:
    """Put a module with an arm where commands look for it."""
    (tmp_path / "my_arm.py").write_text(ARM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_arm

    yield my_arm.Arm
    del sys.modules["my_arm"]


@pytest.fixture
def server() -> Iterator[WebsocketPolicyServer]:
    """Serve."""
    with WebsocketPolicyServer(Onwards(), "127.0.0.1", 0) as running:
        yield running


def run_words(server: WebsocketPolicyServer, duration_s: float, *options: str) -> list[str]:
    """Return the command line that drives the arm for so long, without asking."""
    place = ["--robot", "my_arm:Arm", "--url", server.url]
    return ["run", "--no-confirm", *place, "--duration", str(duration_s), *options]


def test_drives_an_arm_of_ones_own(arm, server: WebsocketPolicyServer, capsys, tmp_path: Path):
    """It moves, says how it went, and the arm is closed."""
    code = main(run_words(server, 1.0, "--trace", "t.jsonl"))

    assert code == 0
    assert arm.closed == 1
    assert arm.commands[-1][0] > 5
    assert "Hz; held" in capsys.readouterr().out
    assert '"kind": "tick"' in (tmp_path / "t.jsonl").read_text()


def test_images_are_sent_as_asked(arm, server: WebsocketPolicyServer, tmp_path: Path):
    """As JPEG although the server is near; the trace says so, and how many bytes that took."""
    words = ["--image-transport", "jpeg", "--jpeg-quality-floor", "90", "--trace", "t.jsonl"]
    main(run_words(server, 0.5, *words))

    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    exchanges = [line for line in lines if line["kind"] == "exchange"]
    assert {(e["encoding"], e["quality"]) for e in exchanges} == {("jpeg", 95)}
    assert max(e["bytes_out"] for e in exchanges) < 50_000


@pytest.mark.parametrize(
    ("robot", "text"),
    [
        ("my_arm", "expected module:factory"),
        ("my_arm:Leg", "has no 'Leg'"),
        ("no_arm:Arm", "no module 'no_arm'"),
        ("my_arm:Half", "expected send_action()"),
    ],
)
def test_what_is_no_robot_is_refused(arm, robot: str, text: str, capsys):
    """With the reason, before anything connects."""
    assert main(["run", "--robot", robot]) == 2
    assert text in capsys.readouterr().err


def test_settings_reach_the_player():
    """Seconds become ticks, `auto` becomes a seam."""
    command = RunCommand(
        control_hz=10, coast=2, auto_resume=5, max_velocity=30, max_step=7, action_horizon=4
    )
    player = command.player(preset("so101"))

    assert player.hold.coast_ticks == 20
    assert player.hold.auto_resume_ticks == 50
    assert player.limits.max_velocity == (30,)
    assert player.limits.max_step == (7,)
    assert player.scheduler.seam == SeamConfig(kind="blend")
    assert player.scheduler.action_horizon == 4
    assert RunCommand().player(preset("libero")).scheduler.seam.kind == "replace"


def test_a_rate_of_zero_is_refused():
    """Before anything moves."""
    with pytest.raises(ConfigError):
        RunCommand(control_hz=0).player(preset("so101"))


def test_a_run_without_a_pause_says_so():
    """No list of causes where nothing was held."""
    summary = RunSummary(ticks=30, seconds=1.0, held_by_cause={}, outages=0)

    assert words(summary) == "30 ticks in 1.0 s: 30.0 Hz; held 0; outages 0"


def test_help_teaches(capsys):
    """The keys, the robot's two methods, examples."""
    assert main(["run", "--help"]) == 0
    said = capsys.readouterr().out

    for word in ("r: go on", "get_observation", "--robot sim", "--max-velocity"):
        assert word in said


def test_units_are_shown_and_converted(arm, server: WebsocketPolicyServer, capsys):
    """The policy goes on by a radian a row, the arm by 57 degrees: as fast as it may."""
    units = ["--robot-units", "degrees", "--policy-units", "radians", "--max-velocity", "60"]

    assert main(run_words(server, 1.0, *units)) == 0

    assert "0.0174533 * robot" in capsys.readouterr().out
    steps = np.diff([command[0] for command in arm.commands])
    # The median: a loop that the machine kept for a tick makes two ticks' way in one step.
    assert 1.5 < np.median(steps[steps > 0]) <= 60 / 30 + 0.01


def test_units_may_need_the_arms_calibration(arm, server: WebsocketPolicyServer, tmp_path: Path):
    """-100..100 are shares of a range; with the same units on both sides nothing is converted."""
    key_map = preset("so101")
    path = tmp_path / "my_arm.json"
    path.write_text(
        json.dumps({name: {"range_min": 0, "range_max": 4095} for name in key_map.joint_names})
    )
    old = RunCommand(policy_units="lerobot_normalized")

    with pytest.raises(ConfigError, match="calibration_file"):
        old.units(key_map)
    units = replace(old, calibration_file=path).units(key_map)

    assert units is not None
    assert units.to_policy(np.full(6, 90.0, np.float32))[0] == pytest.approx(50.0)
    assert RunCommand(robot_units="lerobot", policy_units="lerobot").units(key_map) is None
    assert RunCommand().units(key_map) is None


def test_shadow_mode_compares(arm, server: WebsocketPolicyServer, capsys):
    """The arm goes where the person says; the table says how the policy would have."""
    import my_arm

    assert main(run_words(server, 2.0, "--shadow", "my_arm:Leader")) == 0

    assert {tuple(command) for command in arm.commands} == {(5.0,) * 6}
    assert "same way" in capsys.readouterr().out
    assert my_arm.Leader.closed == 1
    assert main(run_words(server, 2.0, "--shadow", "my_arm:Half")) == 2
    assert "teleoperator 'my_arm:Half': expected get_action()" in capsys.readouterr().err


def test_without_a_terminal_somebody_has_to_be_able_to_confirm(
    arm, server: WebsocketPolicyServer, capsys
):
    """Nothing moves because nobody was there to be asked."""
    assert main(["run", "--robot", "my_arm:Arm", "--url", server.url, "--duration", "1"]) == 2

    assert "--no-confirm begins at once" in capsys.readouterr().err
    assert arm.commands == []


def test_a_calibration_bounds_every_target(tmp_path: Path):
    """In the policy's units, the gripper's range too."""
    key_map = preset("so101")
    path = tmp_path / "my_arm.json"
    path.write_text(
        json.dumps({name: {"range_min": 1000, "range_max": 3000} for name in key_map.joint_names})
    )
    reach = 1000 * 360 / 4095

    plain = RunCommand(calibration_file=path).player(key_map).limits
    radians = RunCommand(calibration_file=path, policy_units="radians").player(key_map).limits

    assert plain.low == pytest.approx([-reach] * 5 + [0.0])
    assert plain.high == pytest.approx([reach] * 5 + [100.0])
    assert radians.high == pytest.approx(np.radians([reach] * 6))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"coast": float("inf")}, "coast=inf"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"control_hz": float("inf")}, "control_hz=inf"),
    ],
)
def test_impossible_durations_are_refused(settings: dict[str, float], told: str):
    """With the setting's name."""
    with pytest.raises(ConfigError, match=told):
        RunCommand(**settings).player(preset("so101"))  # type: ignore[arg-type]


def test_units_are_for_joint_targets():
    """A speed of nothing must not become a position."""
    with pytest.raises(ConfigError, match="this policy's actions are velocity"):
        RunCommand(keymap="droid", robot_units="degrees", policy_units="radians").units(
            preset("droid")
        )


def test_the_second_ctrl_c_ends_a_loop_that_hangs():
    """The first one asks; a driver that hangs does not hear it."""
    asked: list[bool] = []
    with _signals_quit(lambda: asked.append(True)):
        signal.raise_signal(signal.SIGINT)
        assert asked == [True]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    with _signals_quit(lambda: asked.append(True)):
        signal.raise_signal(signal.SIGTERM)
    assert asked == [True, True]
