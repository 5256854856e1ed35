# SPDX-License-Identifier: Apache-2.0
"""The documents' Python that needs LeRobot or a plot runs as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_lerobot
import numpy as np
import pytest
from documents import named_block

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.timeout(120),
    # LeRobot and its dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]


def test_readmes_loop_drives_a_robot(served) -> None:
    """It observes, selects and sends as often as it says, and leaves robot and policy closed."""
    _, url = served()
    robot = fake_lerobot.FakeArm(fake_lerobot.FakeArmConfig())
    program = named_block("README.md", "loop.py").replace("ws://localhost:8000", url)
    # Another arm, which needs no graphics, and a tenth of a second instead of ten.
    program = program.replace("SO101Sim(SO101SimConfig())", "robot").replace(
        "range(300)", "range(3)"
    )
    namespace: dict[str, Any] = {"robot": robot}

    exec(program, namespace)

    assert len(robot.sent) == 3
    assert not robot.is_connected
    _, sent = robot.sent[0]
    assert list(sent) == list(robot.action_features)
    # The first row, or, on a very busy machine, the measured pose.
    assert sent["shoulder_pan.pos"] in (fake_lerobot.START[0] + 1, fake_lerobot.START[0])


@pytest.mark.usefixtures("patient_driver")
def test_real_arms_cable_is_pulled(capsys: pytest.CaptureFixture[str]) -> None:
    """`pull_the_cable.py` reads the arm, then both errors."""
    exec(named_block("docs/howto/real-arm.md", "pull_the_cable.py"), {})

    said = capsys.readouterr().out
    assert "'shoulder_pan.pos':" in said
    assert "servo 3: Failed to sync read" in said
    assert "cable: (5, 'Input/output error')" in said


def test_tutorials_look_draws_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`look.py` makes a picture and counts held ticks."""
    rows = np.linspace(0, 1, 12)[:, None] * np.ones(6)
    ticks = [
        {"kind": "tick", "tick": i, "seq": i // 6, "source": "chunk", "values": row.tolist()}
        for i, row in enumerate(rows)
    ]
    ticks[-1]["source"] = "hold"
    lines = [{"kind": "exchange", "round_trip_ms": 12.5}, *ticks]
    folder = tmp_path / "outputs" / "nod"
    folder.mkdir(parents=True)
    (folder / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")

    exec(named_block("docs/tutorial/first-rollout.md", "look.py"), {})

    assert (folder / "commands.png").stat().st_size > 1000
    assert capsys.readouterr().out == "12 ticks, 1 held; 1 round trips, longest 12.5 ms\n"
