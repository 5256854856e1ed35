# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket emulate` as a process: what it says, what it leaves, how it ends."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pi05_websocket.cli import emulate, main

COMMAND = [
    sys.executable,
    "-c",
    # As a shell starts what ends in &: SIGINT is ignored.
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "from pi05_websocket.cli import main; sys.exit(main())",
]


def test_impossible_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything starts."""
    assert main(["emulate", "--seed", "-1"]) == 2
    assert "seed is -1: expected 0 or more" in capsys.readouterr().err


def test_help_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """The help shows every flag."""
    assert emulate.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for flag in ("--folder", "--task", "--seed", "--next-episode", "--record-dir", "--live-image"):
        assert flag in shown


@pytest.mark.sim
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runs_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    """The port, the flags for LeRobot's tools, the files they name; afterwards the frames are gone."""
    words = ["--folder", str(tmp_path / "arm"), "--record-dir", str(tmp_path / "record")]
    with subprocess.Popen(
        [*COMMAND, "emulate", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(7)]
        flags = [shlex.split(line.rstrip(" \\\n"))[0] for line in lines[2:]]
        names = dict(flag.removeprefix("--robot.").split("=", 1) for flag in flags)
        cameras = json.loads(names["cameras"])
        there = [Path(camera["frames"]).exists() for camera in cameras.values()]
        calibration = Path(names["calibration_dir"]) / f"{names['id']}.json"
        process.send_signal(number)
        said, log = process.communicate(timeout=30)

    assert re.match(r"an emulated SO-101 at /dev/\S+, until Ctrl-C", lines[0])
    assert names["type"] == "so101_follower"
    assert names["port"] in lines[0]
    assert there == [True, True]
    assert calibration.exists()
    assert (process.returncode, said) == (0, "stopped\n"), log
    assert list((tmp_path / "arm").glob("*.frames")) == []
    assert "recorded" in (tmp_path / "record" / "robot.jsonl").read_text()
