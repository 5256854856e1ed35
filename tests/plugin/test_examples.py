# SPDX-License-Identifier: Apache-2.0
"""The examples that users start from, run as they would run them."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fake_lerobot import START

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.timeout(120),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]


def load(name: str) -> ModuleType:
    """Import an example, which lies outside any package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def signals_restored() -> Iterator[None]:
    """Put back the signal handlers that an example replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def control(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the control example with a command line."""
    example = load("control_so101_with_openpi")
    monkeypatch.setattr(sys, "argv", ["control_so101", "--robot.type=fake_arm", *arguments])
    example.main()


@pytest.mark.usefixtures("signals_restored")
def test_control_loop_drives_the_arm(served, arm, monkeypatch) -> None:
    """Every tick commands one row, from the measured pose on, and the arm is disconnected in order."""
    policy, url = served()

    control(monkeypatch, f"--websocket_url={url}", "--duration=1", "--task=wave")

    commanded = [action["shoulder_pan.pos"] for _, action in arm().sent]
    assert len(commanded) == 30
    assert np.diff([START[0], *commanded]).min() >= 0
    assert commanded[-1] > START[0] + 10
    assert policy.prompts == ["wave"]
    assert arm().disconnected


@pytest.mark.usefixtures("signals_restored")
def test_control_loop_holds_without_a_server(arm, monkeypatch) -> None:
    """With nobody there the arm is commanded to stay where it is."""
    control(monkeypatch, "--websocket_url=ws://127.0.0.1:9", "--duration=0.5")

    assert {tuple(action.values()) for _, action in arm().sent} == {START}
    assert arm().disconnected


@pytest.mark.usefixtures("signals_restored")
def test_control_loop_ends_on_ctrl_c(served, arm, monkeypatch) -> None:
    """The signal lets the tick under way end, then everything is closed."""
    policy, url = served()

    def interrupted(actions: np.ndarray) -> np.ndarray:
        signal.raise_signal(signal.SIGINT)  # in the middle of the run, whatever the machine's speed
        return actions

    policy.change = interrupted

    control(monkeypatch, f"--websocket_url={url}", "--duration=60")

    assert arm().sent
    assert arm().disconnected


@pytest.mark.usefixtures("signals_restored")
def test_control_loop_renames_cameras(served, monkeypatch) -> None:
    """A camera under another name is sent under the policy's."""
    policy, url = served()

    control(
        monkeypatch,
        f"--websocket_url={url}",
        "--robot.camera_names=[front, wrist2]",
        "--cameras={front: realsense}",
        "--duration=0.3",
    )

    assert "observation/images/realsense" in policy.observations[0]


def test_check_script_passes(capsys) -> None:
    """All four checks pass without a server, one line each."""
    assert load("test_websocket_policy").main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split("  ")[0] for line in lines[:4]] == ["ok"] * 4
    assert lines[-1] == "4 of 4 checks passed"


def test_check_script_asks_a_server(served, capsys) -> None:
    """A server given on the command line is asked once, and its chunk's shape is shown."""
    _, url = served()
    assert load("test_websocket_policy").main([url]) == 0
    assert "chunk (30, 6)" in capsys.readouterr().out


def test_check_script_fails_on_a_wrong_server(served, capsys) -> None:
    """A chunk that no SO-101 can execute is a failed check and exit code 1."""
    _, url = served(width=7)
    assert load("test_websocket_policy").main([url]) == 1
    assert "expected 6 values for each tick, got 7" in capsys.readouterr().out


@pytest.mark.usefixtures("signals_restored")
def test_shadow_teleoperation_compares(served, arm, monkeypatch, capsys) -> None:
    """The person moves the arm, the policy none of it; the table says that both go the same way."""
    policy, url = served(step=0.5)
    example = load("shadow_teleoperation")
    words = ["--robot.type=fake_arm", "--teleop.type=fake_leader", f"--websocket_url={url}"]
    monkeypatch.setattr(sys, "argv", ["shadow", *words, "--duration=2.5", "--task=wave"])

    example.main()

    commanded = [action["shoulder_pan.pos"] for _, action in arm().sent]
    assert commanded == [START[0] + 0.5 * (i + 1) for i in range(len(commanded))]
    table = capsys.readouterr().out
    assert "shoulder_pan" in table
    assert "ticks compared" in table
    assert "<-" not in table
    assert policy.prompts == ["wave"]
    assert arm().disconnected
