# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket doctor`, in process: robots of one's own, output for people and for programs, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from documents import named_block
from PIL import Image

from pi05_websocket.cli import main
from pi05_websocket.server import WebsocketPolicyServer

ARM = """
import numpy as np
from pi05_websocket.robot.interface import RobotReading

class Arm:
    noise = np.random.default_rng(0)
    commands = closed = 0

    def get_observation(self):
        images = {"wrist2": (224, 224, 3), "realsense": (480, 640, 3)}
        return RobotReading(
            {name: self.noise.integers(0, 256, shape, np.uint8) for name, shape in images.items()},
            np.array([12, -60, 55, 38, -14, 30], np.float32),
        )

    def send_action(self, values):
        Arm.commands += 1

    def close(self):
        Arm.closed += 1

class Blind:
    pass
"""


class Stay:
    """Rows that stay where the arm is."""

    def infer(self, observation: dict[str, object]) -> dict[str, object]:
        """Answer."""
        return {"actions": np.tile(observation["observation/state"], (50, 1)) + 0.5}


@pytest.fixture
def url() -> str:
    """Return the address of a server."""
    with WebsocketPolicyServer(Stay(), "127.0.0.1", 0) as server:
        yield server.url


@pytest.fixture
def arm(tmp_path: Path, monkeypatch):
    """Put a module with an arm where the command looks for it."""
    (tmp_path / "doctors_arm.py").write_text(ARM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_arm_of_ones_own(arm, url, capsys) -> None:
    """It is read, shown, closed, and never commanded; nothing is wrong."""
    words = ["--robot", "doctors_arm:Arm", "--url", url, "--task", "pick it up", "--fps", "30"]
    assert main(["doctor", *words, "--seconds", "0.2"]) == 0

    out = capsys.readouterr().out
    assert "answer     ok" in out
    assert "0 wrong" in out
    with Image.open("outputs/doctor/cameras.png") as sheet:
        assert sheet.width > 800
    import doctors_arm

    assert (doctors_arm.Arm.commands, doctors_arm.Arm.closed) == (0, 1)


def test_only_the_server_for_programs(url, capsys) -> None:
    """Standard output is JSON; what needs a robot is said to be left out."""
    assert main(["doctor", "--url", url, "--task", "pick it up", "--json", "-"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {f["group"] for f in findings if f["outcome"] == "skipped"} == {"robot", "cameras"}


class Zeros:
    """What an untrained policy answers."""

    def infer(self, observation: dict[str, object]) -> dict[str, object]:
        """Answer."""
        return {"actions": np.zeros((50, 6))}


def test_the_first_policy_of_the_how_to_without_a_robot(capsys) -> None:
    """It repeats its state, and that is no answer of zeros; a policy that answers zeros is still found."""
    space: dict[str, type] = {}
    exec(named_block("docs/howto/serve-a-policy.md", "my_policy.py"), space)
    for policy, code in ((space["Hold"](), 0), (Zeros(), 1)):
        with WebsocketPolicyServer(policy, "127.0.0.1", 0) as server:
            assert main(["doctor", "--url", server.url, "--task", "pick it up"]) == code
        assert ("all of them 0" in capsys.readouterr().out) is (code == 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--robot", "doctors_arm:Blind"], "expected get_observation()"),
        (["--control-hz", "0"], "control_hz=0"),
        (["--keymap", "so10"], "no key map is called"),
    ],
)
def test_words_that_make_no_sense(arm, words, said, capsys) -> None:
    """Exit code 2, and what was expected."""
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_only_a_rollout_needs_is_left_out(url, capsys) -> None:
    """The words of lerobot-rollout may stay in the line."""
    words = ["--strategy.type", "base", "--duration=60", "--inference.type=sync", "--url", url]
    assert main(["doctor", *words, "--task", "pick it up"]) == 0
