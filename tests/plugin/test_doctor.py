# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket doctor` with LeRobot's words: its own driver on emulated servos, and a refused run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_lerobot import JOINTS, FakeArm
from lerobot.datasets import LeRobotDataset

from pi05_websocket.cli import main
from pi05_websocket.errors import IncompatibleServer
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.testing import EmulatedBus
from pi05_websocket.testing.feetech_registers import REGISTERS
from pi05_websocket.testing.so101_calibration import calibrated_servos, write_calibration

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.usefixtures("patient_driver"),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]

MEASURED = {name for name in REGISTERS if name.startswith(("Present_", "Moving", "Status"))}


def registers(bus: EmulatedBus) -> dict[tuple[int, str], int]:
    """Return every register of every servo that a driver could have written."""
    return {
        (servo, name): bus.value(servo, name)
        for servo in range(1, 7)
        for name in set(REGISTERS) - MEASURED
    }


def findings(path: Path) -> dict[str, list[str]]:
    """Return group to outcomes."""
    found: dict[str, list[str]] = {}
    for entry in json.loads(path.read_text()):
        found.setdefault(entry["group"], []).append(entry["outcome"])
    return found


def test_a_real_driver_is_only_read(served, tmp_path, capsys) -> None:
    """LeRobot's own SO-101 is read through its bus: no register of any servo is another one afterwards."""
    _, url = served()
    write_calibration(tmp_path / "emulated.json")
    written = tmp_path / "found.json"
    with EmulatedBus(calibrated_servos()) as bus:
        before = registers(bus)
        code = main(
            [
                "doctor",
                "--robot.type=so101_follower",
                f"--robot.port={bus.port}",
                "--robot.id=emulated",
                f"--robot.calibration_dir={tmp_path}",
                f"--policy.websocket_url={url}",
                "--policy.keymap=custom",
                '--policy.joint_names=["shoulder_pan","shoulder_lift","elbow_flex","wrist_flex","wrist_roll","gripper"]',
                "--strategy.type=base",
                "--task=pick up the cube",
                f"--json={written}",
                f"--sheet={tmp_path / 'sheet.png'}",
            ]
        )
        assert registers(bus) == before

    found = findings(written)
    assert code == 0, capsys.readouterr().out
    assert set(found["robot"]) == {"passed", "needs dataset"}
    assert found["answer"] == ["passed"]


@pytest.mark.parametrize(("fps", "code"), [("--fps=15", 0), ("--fps=30", 1), ("", 1)])
def test_two_words_for_one_rate(served, fps, code, capsys) -> None:
    """The loop's rate and the policy's must be the same; what is left out is LeRobot's 30."""
    _, url = served()
    words = [f"--policy.websocket_url={url}", "--policy.keymap=custom", "--policy.control_hz=15"]
    assert main(["doctor", *words, "--task=pick", *filter(None, [fps])]) == code
    assert ("the loop will run at 30 Hz" in capsys.readouterr().out) is (code == 1)


def test_another_robot_needs_a_word(served, tmp_path, arm, capsys) -> None:
    """Its own connect may switch torque: only with --connect-robot; it is never commanded."""
    _, url = served()
    words = [
        "doctor",
        "--robot.type=fake_arm",
        f"--policy.websocket_url={url}",
        "--task=pick it up",
    ]

    assert main(words) == 2
    assert "--connect-robot" in capsys.readouterr().err
    main([*words, "--connect-robot", f"--sheet={tmp_path / 'sheet.png'}"])

    made: FakeArm = arm()
    assert "camera-black" not in capsys.readouterr().out
    assert made.sent == []
    assert made.disconnected


def test_a_rollout_on_the_wrong_robot_is_refused(lerobot_rollout_main, arm) -> None:
    """The server states seven values: lerobot-rollout ends before the arm was told anything."""

    class Seven:
        metadata = {"action_dim": 7}  # noqa: RUF012

        def infer(self, obs: dict[str, object]) -> dict[str, object]:
            raise AssertionError("nobody may ask")

    with WebsocketPolicyServer(Seven(), "127.0.0.1", 0, {"action_dim": 7}) as server:
        words = [
            "--strategy.type=base",
            "--inference.type=sync",
            "--policy.type=pi05_websocket",
            f"--policy.websocket_url={server.url}",
            "--duration=3",
        ]
        with pytest.raises(IncompatibleServer, match=r"7 values.*preflight=warn"):
            lerobot_rollout_main(*words)
    assert arm().sent == []


def test_a_recorded_episode_is_replayed(served, tmp_path, capsys) -> None:
    """A LeRobot data set on disk, recorded with the opposite sign of one joint: it is named, with its fix."""
    policy, url = served(step=0.5)
    names = [f"{joint}.pos" for joint in JOINTS]
    features = {
        "observation.state": {"dtype": "float32", "shape": (6,), "names": names},
        "action": {"dtype": "float32", "shape": (6,), "names": names},
    }
    root = tmp_path / "data"
    data = LeRobotDataset.create("local/data", 30, features, root=root, use_videos=False)
    for frame in range(60):
        state = np.arange(6, dtype=np.float32) * 8 + 0.5 * frame
        data.add_frame({"observation.state": state, "action": state + 0.5, "task": "pick it up"})
    data.save_episode()
    data.finalize()
    flip = np.array([1, 1, -1, 1, 1, 1])
    policy.change = lambda rows: rows * flip
    words = [
        "doctor",
        f"--policy.websocket_url={url}",
        "--policy.keymap=custom",
        "--dataset",
        str(root),
    ]
    words += [f"--policy.joint_names={json.dumps(list(JOINTS))}", "--task=pick it up", "--frames=5"]

    assert main(words) == 1
    out = capsys.readouterr().out
    assert "--policy.joint_signs='{elbow_flex: -1}'" in out
    assert "1 wrong" in out

    assert main([*words, "--episode=7"]) == 2
    assert "episode 7 cannot be read" in capsys.readouterr().err
