# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket serve --engine ray` as a process: starts Ray, serves, and takes all of it down again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from robots_under_load import connected

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def a_second_one(pid: int, own: dict[str, str]) -> str:
    """Let another command use the Ray of a running one; return why it does not."""
    command = [
        *(
            sys.executable,
            "-c",
            "import sys; from pi05_websocket.cli import main; sys.exit(main())",
        ),
        *(
            "serve",
            "--engine",
            "ray",
            "--ray-address",
            gcs_of(pid),
            "--policy",
            "numbered_policies:Numbered",
        ),
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | own, check=False, timeout=120
    )
    assert ended.returncode == 2, ended.stdout + ended.stderr
    return ended.stderr


def gcs_of(pid: int) -> str:
    """Return where the Ray listens that a process has started."""
    for child in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            said = (child / "cmdline").read_text().split("\0")
            parent = int((child / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and said[0].endswith("raylet"):
                return dict(word.split("=", 1) for word in said if "=" in word)["--gcs-address"]
    raise AssertionError(f"process {pid} has started no Ray")


def test_serves_until_it_is_told_to_stop() -> None:
    """What it does, where robots connect, another checkpoint at another path, and exit code 0."""
    own = {
        "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *filter(None, sys.path)]),
        # A second Ray on this machine: its HAProxy has ports of its own.
        "RAY_SERVE_HAPROXY_METRICS_PORT": "9301",
        "RAY_SERVE_HAPROXY_STATS_PORT": "8604",
    }
    command = [
        *(
            sys.executable,
            "-c",
            "import sys; from pi05_websocket.cli import main; sys.exit(main())",
        ),
        *("serve", "--engine", "ray", "--port", "0", "--replicas", "1", "--ingress-replicas", "1"),
        *("--policy", "numbered_policies:Numbered", "--also", "/two=numbered_policies:Numbered2"),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | own
    ) as process:
        assert process.stdout is not None
        lines = []
        while not (lines and "on the robot: " in lines[-1]):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        text = "".join(lines)
        assert text.startswith("starting Ray ...\n")
        found = re.search(r"on Ray at ws://127\.0\.0\.1:(\d+) \(only this machine", text)
        assert found, text
        for path, version in (("/", "v1"), ("/two", "v2")):
            with connected(int(found[1]), path=path) as infer:
                assert infer({"robot": 1, "number": 2})["version"] == version
        try:
            why = a_second_one(process.pid, own)
        finally:
            process.send_signal(signal.SIGINT)
        rest, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "stopping Ray Serve" in rest
    assert "this Ray was started by another pi05-websocket serve (process " in why
