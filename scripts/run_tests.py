# SPDX-License-Identifier: Apache-2.0
"""Run the whole test suite in steps, then report coverage over all of them.

In: names of steps, none for all. Out: each step's output, a summary, exit code 0 if all passed.
Each step is a process of its own: the first must not load torch, and LeRobot loads only once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import coverage_report

ROOT = Path(__file__).resolve().parent.parent

STEPS = {
    "core": "not lerobot and not sim and not openpi and not faults and not ray",
    "sim": "sim and not lerobot",
    "lerobot": "lerobot",
    "interop": "(openpi or faults) and not lerobot and not sim",
    "ray": "ray",
}
"""Step -> pytest's marker expression. Together they select every test, each once."""

MARKED_FOLDERS = ("faults", "interop", "plugin", "ray_serve", "sim")
"""Folders whose tests all have a marker (tests/conftest.py): collecting them would load torch."""

SOAK = "soak"
SOAK_FLAGS = (
    *("--minutes", "2", "--every", "2", "--warm-up", "30", "--fault-every", "5"),
    *("--memory-mb-per-hour", "600", "--memory-mb", "60"),
    *("--more-fds", "4", "--more-threads", "2", "--p99-drift", "None"),
)
"""So short a run finds what grows with every request or every fault; a busy machine does not fail it."""

BASE_INSTALL = "base-install"


def command(step: str, extra: list[str]) -> list[str]:
    """Return the command line of a step."""
    if step == BASE_INSTALL:
        return [sys.executable, str(ROOT / "scripts" / "base_install.py")]
    if step == SOAK:
        return [sys.executable, str(ROOT / "benchmarks" / "soak.py"), *SOAK_FLAGS]
    pytest = ["-m", "pytest", "-q", "-m", STEPS[step], *extra]
    if step == "core":
        pytest += [f"--ignore=tests/{folder}" for folder in MARKED_FOLDERS]
    if step == "ray":
        # Ray reads its environment when it is imported, and what others collect may import it.
        pytest.append("tests/ray_serve")
    return [sys.executable, "-m", "coverage", "run", *pytest]


def run(step: str, extra: list[str]) -> tuple[int, str]:
    """Run a step with its output passed through; return its exit code and last line."""
    print(f"\n=== {step}", flush=True)
    env = os.environ | {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"), "HF_HUB_OFFLINE": "1"}
    last = ""
    with subprocess.Popen(
        command(step, extra), cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


def main() -> None:
    """Run the steps named on the command line; arguments after `--` go to pytest."""
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    known = [*STEPS, SOAK, BASE_INSTALL] if sys.platform == "linux" else [*STEPS, BASE_INSTALL]
    steps, extra = arguments[:cut] or known, arguments[cut + 1 :]
    unknown = set(steps) - set(known)
    if unknown:
        raise SystemExit(f"no test step {sorted(unknown)}; there are {known}")
    coverage_report.forget()
    summary, failed = [], False
    for step in steps:
        started = time.monotonic()
        code, last = run(step, extra)
        failed |= code != 0
        verdict = "ok    " if code == 0 else "FAILED"
        said = last if code == 0 else f"exit code {code} after: {last}"
        summary.append(f"{verdict} {step:<13} {time.monotonic() - started:5.0f} s   {said}")
    whole = set(steps) >= set(STEPS) and not extra
    judged = whole and not failed
    covered = coverage_report.report(enforce=judged)
    print("\n=== summary", *summary, sep="\n")
    verdicts = {True: "coverage is high enough", False: "FAILED: coverage is too low, see above"}
    print(verdicts[covered] if judged else "coverage is not judged: not everything ran and passed")
    raise SystemExit(failed or not covered)


if __name__ == "__main__":
    main()
