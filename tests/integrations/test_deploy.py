# SPDX-License-Identifier: Apache-2.0
"""The deployment files: they parse, and every option, extra and path they name exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pi05_websocket import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "integrations" / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))


@pytest.fixture
def flags(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Every option of `pi05-websocket serve`."""
    assert cli.main(["serve", "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z0-9.-]*", capsys.readouterr().out))


@pytest.fixture
def compose() -> dict[str, Any]:
    """The compose file's only service."""
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service: dict[str, Any] = content["services"]["policy"]
    return service


def test_compose_names_what_there_is(compose: dict[str, Any], flags: set[str]) -> None:
    """Its Dockerfile, and options that the command knows."""
    build = compose["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() in DOCKERFILES
    assert {word.partition("=")[0] for word in compose["command"][1:]} <= flags


def test_the_unit_starts_a_command_that_exists(flags: set[str]) -> None:
    """Options that the command knows, and a stop that leaves an inference time to end."""
    unit = (DEPLOY / "pi05-websocket.service").read_text(encoding="utf-8")
    command = unit.replace("\\\n", " ").partition("ExecStart=")[2].partition("\n")[0]
    assert set(re.findall(r"--[a-z][a-z0-9.-]*", command)) <= flags
    (timeout,) = re.findall(r"TimeoutStopSec=(\d+)", unit)
    assert int(timeout) > 10


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_install_extras_that_exist(path: Path, flags: set[str]) -> None:
    """And copy files that are there; their examples are commands that exist."""
    text = path.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r'"/src\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
    example = text.partition("serve ")[2].partition("FROM")[0]
    assert set(re.findall(r"--[a-z][a-z0-9.-]*", example)) <= flags


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_pass_the_linter(path: Path) -> None:
    """Hadolint has nothing to say."""
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed here")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing but that the program is not installed here."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not here")
    unit = (DEPLOY / "pi05-websocket.service").read_text(encoding="utf-8")
    unit = unit.replace("/var/lib/pi05/venv/bin/pi05-websocket", "/bin/true").replace(
        "User=pi05", "User=root"
    )
    copy = tmp_path / "pi05-websocket.service"
    copy.write_text(unit, encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", str(copy)], capture_output=True, text=True, check=False
    )
    about_ours = [
        line for line in done.stderr.splitlines() if copy.name in line and "man" not in line
    ]
    assert about_ours == []
