# SPDX-License-Identifier: Apache-2.0
"""Coverage over all test steps, against what this project asks of itself.

In: coverage's data files. Out: a table by package; False where one is below its floor.
Pure modules need every branch, the rest nine tenths of lines and branches.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / ".coverage.json"
PURE_FLOOR, FLOOR = 100.0, 90.0

NOT_JUDGED = {
    "pi05_websocket.engine_ray.calls",
    "pi05_websocket.engine_ray.deployments",
    "pi05_websocket.engine_ray.router",
}
"""Run in Ray's own processes, which it kills before they can say what ran; tests/ray_serve runs them."""


def forget() -> None:
    """Remove the data of earlier runs."""
    subprocess.run([sys.executable, "-m", "coverage", "erase"], cwd=ROOT, check=True)


def pure_modules() -> set[str]:
    """Return the pure modules, as import-linter is told them in pyproject.toml."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    (pure,) = (contract for contract in contracts if contract["id"] == "pure")
    return set(pure["source_modules"])


def module_of(path: str) -> str:
    """`src/pi05_websocket/wire/codec.py` -> `pi05_websocket.wire.codec`."""
    return ".".join(Path(path).relative_to("src").with_suffix("").parts).removesuffix(".__init__")


def is_pure(module: str, pure: set[str]) -> bool:
    """Say whether a module is listed as pure, or lies in a package that is."""
    parts = module.split(".")
    return any(".".join(parts[:length]) in pure for length in range(1, len(parts) + 1))


def package_of(module: str) -> str:
    """`pi05_websocket.client.policy` -> `pi05_websocket.client`; modules at the top are their own."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "pi05_websocket" else parts[0]


def percent(summaries: list[dict[str, Any]]) -> float:
    """Return how much of the lines and branches ran, in percent."""
    wanted = sum(s["num_statements"] + s["num_branches"] for s in summaries)
    ran = sum(s["covered_lines"] + s["covered_branches"] for s in summaries)
    return 100.0 * ran / wanted if wanted else 100.0


def report(*, enforce: bool) -> bool:
    """Print coverage by package and what is missing; return False if something is below its floor.

    Args:
        enforce: False after a partial or failed run, which cannot reach the floors.
    """
    if not list(ROOT.glob(".coverage.*")):
        return not enforce
    subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], cwd=ROOT, check=True)
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-q", "-o", str(REPORT)], cwd=ROOT, check=True
    )
    files = json.loads(REPORT.read_text())["files"]
    REPORT.unlink()
    pure = pure_modules()
    groups: dict[tuple[str, bool], list[str]] = {}
    for path in sorted(files):
        module = module_of(path)
        if module in NOT_JUDGED:
            continue
        groups.setdefault((package_of(module), is_pure(module, pure)), []).append(path)
    print("\n=== coverage of lines and branches")
    enough = True
    for (package, whole), paths in sorted(groups.items()):
        floor = PURE_FLOOR if whole else FLOOR
        reached = percent([files[path]["summary"] for path in paths])
        enough &= reached >= floor
        mark = "   TOO LOW" if enforce and reached < floor else ""
        print(f"{reached:6.1f} %  of {floor:.0f}  {package}{' (pure)' if whole else ''}{mark}")
        if mark:
            print(*missing(paths, files), sep="\n")
    return enough or not enforce


def missing(paths: list[str], files: dict[str, Any]) -> list[str]:
    """Return one line for each file that has something uncovered."""
    lines = []
    for path in paths:
        gone = files[path]["missing_lines"]
        gaps = ranges(gone)
        branches = files[path]["missing_branches"]
        gaps += [f"{start}->{end}" for start, end in branches if start not in gone]
        if gaps:
            lines.append(f"             {path}: {' '.join(gaps)}")
    return lines


def ranges(numbers: list[int]) -> list[str]:
    """`[1, 2, 3, 7]` -> `["1-3", "7"]`."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return [str(first) if first == last else f"{first}-{last}" for first, last in spans]


if __name__ == "__main__":
    raise SystemExit(not report(enforce=True))
