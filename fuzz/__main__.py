# SPDX-License-Identifier: Apache-2.0
"""`python -m fuzz`: every target for its share of the time, one after the other; then a summary.

In: how long, which targets. Out: a line every few seconds, and exit code 1 if an input broke a property.
Each target is a process of its own: what crashes the interpreter ends that one only.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz import corpus
from fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ROOT / "outputs" / "fuzz"
PROGRESS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)")
SAY_EVERY_S = 10.0
LONGEST_KEPT = 512
"""Bytes; longer inputs seldom reach what short ones do not, and the repository keeps them for good."""
MOST_KEPT = 250


class Progress:
    """What libFuzzer says of one target, less often than it says it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.executions = self.branches = self.inputs = 0
        self._said_at = time.monotonic()

    def take(self, line: str) -> None:
        """Read one line of libFuzzer's."""
        match = PROGRESS.match(line)
        if match is None:
            if line.startswith("stat::number_of_executed_units"):
                self.executions = int(line.split()[-1])
            return
        self.executions, self.branches, self.inputs = (int(match[i]) for i in (1, 2, 4))
        if time.monotonic() - self._said_at > SAY_EVERY_S:
            self._said_at = time.monotonic()
            print(f"  {self}", flush=True)

    def __str__(self) -> str:
        return (
            f"{self.name:16} executions={self.executions:9,} branches={self.branches:5} "
            f"inputs={self.inputs:5}"
        )


def fuzz(name: str, seconds: int) -> tuple[Progress, list[str]]:
    """Run one target; return how far it came and what it found, a line each."""
    folder = OUTPUTS / name
    for old in folder.glob("failures/*"):
        old.unlink()
    command = [sys.executable, "-m", "fuzz.one_target", name, str(folder), str(seconds)]
    progress, last = Progress(name), [""] * 5
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            progress.take(line)
            last = [*last[1:], line.rstrip()]
    outcome = folder / "outcome.json"
    failures = []
    if outcome.exists():
        said = json.loads(outcome.read_text(encoding="utf-8"))
        failures = [f"{kind} ({count} times)" for kind, count in said["failures"].items()]
    if child.returncode != 0:
        failures.append(f"ended with code {child.returncode}: {' | '.join(last)}")
    return progress, failures


def keep_what_was_found(name: str) -> int:
    """Keep the short inputs that reached something new; return how many."""
    folder = OUTPUTS / name / "found"
    sizes = sorted(
        (path.stat().st_size, path.name)
        for path in folder.iterdir()
        if path.stat().st_size <= LONGEST_KEPT
    )
    room = MOST_KEPT - len(corpus.kept(name))
    return corpus.keep(name, ((folder / file).read_bytes() for _, file in sizes[: max(0, room)]))


def main() -> None:
    """Fuzz."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, help="for all targets together (default: 60)")
    parser.add_argument("--minutes", type=int, help="the same in minutes")
    parser.add_argument(
        "--target", action="append", choices=list(TARGETS), help="only this; again for more"
    )
    parser.add_argument(
        "--keep", action="store_true", help="add what reached something new to fuzz/corpus"
    )
    arguments = parser.parse_args()
    names = arguments.target or list(TARGETS)
    whole = arguments.seconds or 60 * (arguments.minutes or 1)
    share, started = max(1, whole // len(names)), time.monotonic()
    lines, failed, executions = [], False, 0
    for name in names:
        print(f"{name}: {share} s", flush=True)
        progress, failures = fuzz(name, share)
        executions += progress.executions
        failed |= bool(failures)
        kept = f" kept={keep_what_was_found(name)}" if arguments.keep else ""
        lines.append(f"{'FAILED' if failures else 'ok    '} {progress}{kept}")
        lines += [
            f"       {failure}; see {OUTPUTS.relative_to(ROOT)}/{name}/failures"
            for failure in failures
        ]
    print("\n=== summary", *lines, sep="\n")
    print(f"{executions:,} executions in {time.monotonic() - started:.0f} s")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
