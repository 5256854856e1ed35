# SPDX-License-Identifier: Apache-2.0
"""Say whether the package index has wheels of every dependency, for the computers that sit beside robots.

In: pyproject.toml; extras by name, none for the base install. Out: a table; exit code 1 if one is missing, 0
also where the index could not be asked. Nothing is installed: uv resolves for each platform, wheels only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from environment import ROOT, find_uv

__all__ = ["Answer", "command", "judge", "requirements", "table"]

PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux ARM": "aarch64-manylinux_2_28",
    "macOS ARM": "aarch64-apple-darwin",
    "macOS Intel": "x86_64-apple-darwin",
    "Windows": "x86_64-pc-windows-msvc",
}
"""What the table calls it -> what uv calls it. Linux ARM: Raspberry Pi OS 12, Jetson's JetPack 6, and later."""

PYTHONS = ("3.11", "3.12")
PATIENCE_S = 120

NOT_ASKED = re.compile(
    r"network was disabled|error sending request|failed to fetch|timed out|dns error|not found in the cache",
    re.IGNORECASE,
)
"""What uv says when the index did not answer."""

PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==(\S+)", re.MULTILINE)
NAME = re.compile(r"^[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the index has for one platform and one Python."""

    versions: Mapping[str, str]
    """Package -> version that has a wheel, of everything that is needed; empty if something is missing."""

    why_not: str = ""
    """What is missing, in uv's words."""

    asked: bool = True
    """False: nobody knows, because the index could not be asked."""


def requirements(pyproject: Mapping[str, Any], extras: Sequence[str] = ()) -> list[str]:
    """Return the base install's requirements and those of the extras.

    Raises:
        SystemExit: If there is no such extra; names those there are.
    """
    project = pyproject["project"]
    optional = project["optional-dependencies"]
    if unknown := set(extras) - set(optional):
        raise SystemExit(f"wheels: no extra {sorted(unknown)}; there are {sorted(optional)}")
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


def name_of(requirement: str) -> str:
    """Return the package's name: `Pillow>=10` -> `pillow`, as uv writes it."""
    match = NAME.match(requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def command(uv: str, platform: str, python: str) -> list[str]:
    """Return the command that resolves requirements from standard input, of wheels alone."""
    return [
        uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:",
        "--python-platform", platform, "--python-version", python, "-",
    ]  # fmt: skip


def judge(returncode: int, output: str, errors: str) -> Answer:
    """Return what uv's answer means."""
    if returncode == 0:
        return Answer(dict(PINNED.findall(output)))
    said = " ".join(errors.split())
    if NOT_ASKED.search(said):
        return Answer({}, said, asked=False)
    return Answer({}, said or f"exit code {returncode}")


def table(rows: Sequence[str], answers: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    """Return a text table: a row for each package, a column for each platform and Python."""
    header = ["", *(f"{platform} {python}" for platform, python in answers)]
    lines = [header, *([row, *(cells.get(row, "") for cells in answers.values())] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def ask(uv: str, wanted: Sequence[str], platform: str, python: str) -> Answer:
    """Ask the index. In an empty folder, so that this project's own overrides do not count."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command(uv, platform, python),
                input="\n".join(wanted),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer({}, f"no answer within {PATIENCE_S} s", asked=False)
    return judge(done.returncode, done.stdout, done.stderr)


def cells(uv: str, wanted: Sequence[str], platform: str, python: str) -> tuple[dict[str, str], str]:
    """Return a column of the table, and what is missing in it."""
    names = [name_of(line) for line in wanted]
    answer = ask(uv, wanted, platform, python)
    if answer.versions:
        return {name: answer.versions.get(name, "not needed") for name in names}, ""
    if not answer.asked:
        return dict.fromkeys(names, "?"), ""
    # One of them, or something that one of them needs: ask for each alone.
    column, missing = {}, []
    for line, name in zip(wanted, names, strict=True):
        alone = ask(uv, [line], platform, python)
        column[name] = alone.versions.get(name, "none" if alone.asked else "?")
        if alone.asked and not alone.versions:
            missing.append(f"{name}: {alone.why_not}")
    return column, "\n".join(missing) or answer.why_not


def main() -> None:
    """Ask for all platforms, print the table."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = sys.argv[1:]
    wanted = requirements(pyproject, extras)
    # LeRobot's extras and the simulator have markers: their Python is 3.12.
    pythons = PYTHONS[-1:] if extras else PYTHONS
    uv = find_uv()
    columns: dict[tuple[str, str], dict[str, str]] = {}
    missing: list[str] = []
    for shown, platform in PLATFORMS.items():
        for python in pythons:
            columns[shown, python], why_not = cells(uv, wanted, platform, python)
            if why_not:
                missing.append(f"{shown}, Python {python}: {why_not}")
    print(table(list(dict.fromkeys(map(name_of, wanted))), columns))
    unknown = sum("?" in column.values() for column in columns.values())
    if unknown:
        print(f"\nwheels: the index could not be asked for {unknown} of {len(columns)} columns")
    if missing:
        sys.exit("\nwheels: missing\n" + "\n".join(missing))
    if not unknown:
        print("\nwheels: all there, and of everything they need")


if __name__ == "__main__":
    main()
