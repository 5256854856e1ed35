# SPDX-License-Identifier: Apache-2.0
"""The Python that readers copy from the documents runs as it stands."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from announced import ANNOUNCED
from documents import ROOT, documents, named_block, python_blocks

from pi05_websocket.client import RemotePolicy
from pi05_websocket.server import WebsocketPolicyServer

SERVE_A_POLICY = "docs/howto/serve-a-policy.md"
WITHOUT_LEROBOT = "docs/howto/without-lerobot.md"


def so101_observation() -> dict[str, Any]:
    """Return what an SO-101 sends with the preset `so101`."""
    return {
        "observation/images/wrist2": np.zeros((224, 224, 3), np.uint8),
        "observation/images/realsense": np.zeros((480, 640, 3), np.uint8),
        "observation/state": np.array([0, -90, 90, 38, 0, 0], np.float32),
        "prompt": "nod",
    }


class Ramp:
    """A policy whose rows go up from the state by one."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return 20 rows."""
        return {"actions": observation["observation/state"] + np.arange(20.0)[:, None]}


@pytest.fixture
def run(tmp_path: Path):
    """Return a function that runs a block in an empty folder, with ports of its own, and gives its output."""

    def run_block(block: str, port: int = 8000) -> str:
        done = subprocess.run(
            [sys.executable, "-c", block.replace("8000", str(port))],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_block


@pytest.fixture
def ramp() -> Iterator[WebsocketPolicyServer]:
    """Serve `Ramp`."""
    with WebsocketPolicyServer(Ramp(), port=0) as server:
        yield server


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_python_compiles(path: Path) -> None:
    """Every Python block is valid."""
    for block in python_blocks(path):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("name", ["server.py", "client.py"])
def test_readmes_programs_are_short(name: str) -> None:
    """Fifteen lines each, as the README's readers were promised."""
    lines = [line for line in named_block("README.md", name).splitlines()[1:] if line.strip()]
    assert len(lines) <= 15


def test_readmes_server_answers_its_client(run, tmp_path: Path) -> None:
    """The two programs talk to each other, and Ctrl-C ends the server in order."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = named_block("README.md", "server.py").replace("8000", str(port))
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) as server:
        try:
            output = run(named_block("README.md", "client.py"), port)
        finally:
            server.send_signal(signal.SIGINT)
    assert output.split("\n") == [str(ANNOUNCED), "(50, 6)", ""]
    assert server.returncode == 0


def test_readmes_policy_goes_to_its_pose() -> None:
    """Executed row by row, it arrives and stays."""
    namespace: dict[str, Any] = {}
    program = named_block("README.md", "server.py")
    exec(re.sub(r"^WebsocketPolicyServer\(.*", "", program, flags=re.MULTILINE), namespace)
    state = np.array([30, 20, -10, 0, 5, 80], np.float32)
    for _ in range(10):
        state = namespace["GoToRest"]().infer({"observation/state": state})["actions"][-1]
    assert np.abs(state - namespace["REST"]).max() < 1e-3


def test_tutorials_policy_nods() -> None:
    """It goes back and forth between its poses, without a jump at the beginning of a chunk."""
    namespace: dict[str, Any] = {}
    exec(named_block("docs/tutorial/first-rollout.md", "nod.py"), namespace)
    policy = namespace["Nod"]()
    observation = so101_observation()
    lifts = []
    for _ in range(8):
        rows = policy.infer(observation)["actions"]
        assert np.array_equal(rows[0], observation["observation/state"])
        observation["observation/state"] = rows[-1]
        lifts.append(round(float(rows[-1][1])))
    assert lifts == [-40, 0, -40, 0, -40, 0, -40, 0]


def test_gateway_in_python(ramp: WebsocketPolicyServer) -> None:
    """One of its servers answers, the other is not there; Ctrl-C ends it in order."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = named_block("docs/howto/gateway.md", "gateway.py")
    for name, number in (("8000", ramp.port), ("8002", 9), ("8001", port)):
        program = program.replace(name, str(number))
    with subprocess.Popen([sys.executable, "-c", program]) as gateway:
        try:
            with RemotePolicy("127.0.0.1", port, wait_for_server=20) as robot:
                assert robot.infer(so101_observation())["actions"].shape[1] == 6
        finally:
            gateway.send_signal(signal.SIGINT)
    assert gateway.returncode == 0


def test_served_policy_of_ones_own(run, tmp_path: Path) -> None:
    """`my_policy.py` holds, and `serve_it.py` serves it."""
    (tmp_path / "my_policy.py").write_text(named_block(SERVE_A_POLICY, "my_policy.py"))
    output = run(named_block(SERVE_A_POLICY, "serve_it.py"))
    assert output.startswith("ws://127.0.0.1:")

    namespace: dict[str, Any] = {}
    exec(named_block(SERVE_A_POLICY, "my_policy.py"), namespace)
    with (
        WebsocketPolicyServer(namespace["Hold"](), port=0) as server,
        RemotePolicy("127.0.0.1", server.port) as policy,
    ):
        rows = policy.infer(so101_observation())["actions"]
        assert policy.metadata == {"policy": "hold", **ANNOUNCED}
    assert np.array_equal(rows, [[0, -90, 90, 38, 0, 0]] * 50)


def test_trace_becomes_a_recording(run, tmp_path: Path) -> None:
    """`to_replay.py` takes the commands, and nothing else, from a trace."""
    lines = [
        {"kind": "episode", "time_s": 0.0, "episode": 1},
        {"kind": "tick", "time_s": 0.0, "tick": 0, "values": [1, 2]},
        {"kind": "tick", "time_s": 0.1, "tick": 1, "values": [3, 4]},
    ]
    folder = tmp_path / "outputs" / "nod"
    folder.mkdir(parents=True)
    (folder / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run(named_block(SERVE_A_POLICY, "to_replay.py"))
    assert np.load(tmp_path / "wave.npz")["actions"].tolist() == [[1, 2], [3, 4]]


def test_asking_and_waiting(run, ramp: WebsocketPolicyServer) -> None:
    """`ask.py` gets its chunk."""
    assert run(named_block(WITHOUT_LEROBOT, "ask.py"), ramp.port) == "(20, 6)\n"


class FakeRobot:
    """A robot that goes where it is commanded, for some ticks."""

    def __init__(self, ticks: int) -> None:
        self.joints = np.zeros(6, np.float32)
        self.commanded: list[float] = []
        self._ticks = ticks

    def is_on(self) -> bool:
        """Say whether there are ticks left."""
        return len(self.commanded) < self._ticks

    def read(self) -> tuple[dict[str, Any], Any]:
        """Return two webcam images and the joints."""
        image = np.zeros((480, 640, 3), np.uint8)
        return {"wrist2": image, "realsense": image}, self.joints.copy()

    def command(self, targets: Any) -> None:
        """Go there at once."""
        self.joints = targets.astype(np.float32)
        self.commanded.append(float(targets[0]))


def test_control_loop_without_lerobot(ramp: WebsocketPolicyServer) -> None:
    """`drive.py` holds until the first chunk is there, and then plays row after row."""
    namespace: dict[str, Any] = {}
    program = named_block(WITHOUT_LEROBOT, "drive.py")
    exec(program.replace("8000", str(ramp.port)), namespace)
    robot = FakeRobot(ticks=45)
    namespace["drive"](robot, "go")
    assert robot.commanded[0] == 0
    assert robot.commanded == sorted(robot.commanded)
    assert robot.commanded[-1] > 5


def test_an_arm_of_ones_own_is_driven_by_one_command(
    ramp: WebsocketPolicyServer, tmp_path: Path
) -> None:
    """`my_arm.py` is all that `pi05-websocket run` needs, from the folder it lies in."""
    (tmp_path / "my_arm.py").write_text(named_block(WITHOUT_LEROBOT, "my_arm.py"))
    program = str(Path(sys.executable).with_name("pi05-websocket"))
    command = [program, "run", "--no-confirm", "--robot", "my_arm:MyArm"]
    where = ["--url", f"ws://127.0.0.1:{ramp.port}", "--max-velocity", "15"]

    done = subprocess.run(
        [*command, *where, "--duration", "1.5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert done.returncode == 0, done.stderr
    assert "max_velocity" in done.stderr  # half a degree a tick is half of what the policy wants
    assert "Hz; held" in done.stdout
