# SPDX-License-Identifier: Apache-2.0
"""What the package index has for other computers: what is asked, what an answer means, how it is shown."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from types import ModuleType
from typing import Any

import pytest
from documents import ROOT


@pytest.fixture(scope="module")
def wheels() -> Any:
    """Import scripts/wheels.py, which lies outside any package and imports its neighbour."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("wheels", ROOT / "scripts" / "wheels.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["wheels"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return module


PROJECT = {
    "project": {
        "dependencies": ["numpy>=1.26", "Py_Cows>=2"],
        "optional-dependencies": {"view": ["rerun-sdk>=0.24 ; python_version >= '3.12'"]},
    }
}


def test_requirements_are_the_projects(wheels: ModuleType) -> None:
    """The base install's, and an extra's where it is named; an unknown one is refused with those there are."""
    assert wheels.requirements(PROJECT) == ["numpy>=1.26", "Py_Cows>=2"]
    assert wheels.requirements(PROJECT, ["view"])[2].startswith("rerun-sdk")
    with pytest.raises(SystemExit, match=r"no extra \['sim'\]; there are \['view'\]"):
        wheels.requirements(PROJECT, ["sim"])


def test_every_requirement_of_this_project_has_a_name(wheels: ModuleType) -> None:
    """Names are as uv writes them, without versions, extras and markers."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = [wheels.name_of(line) for line in wheels.requirements(pyproject)]
    assert named == ["numpy", "msgspec", "picows", "pillow", "simplejpeg", "tyro", "rich"]
    assert wheels.name_of("Py_Cows[fast]>=2 ; python_version >= '3.12'") == "py-cows"


def test_only_wheels_are_asked_for(wheels: ModuleType) -> None:
    """The command never builds anything, and names platform and Python."""
    command = wheels.command("uv", "aarch64-manylinux_2_28", "3.11")
    assert command[:3] == ["uv", "pip", "compile"]
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert command[command.index("--python-platform") + 1] == "aarch64-manylinux_2_28"
    assert command[command.index("--python-version") + 1] == "3.11"


@pytest.mark.parametrize(
    ("returncode", "output", "errors", "versions", "asked"),
    [
        (0, "numpy==2.4.6\npicows==2.3.1\n", "", {"numpy": "2.4.6", "picows": "2.3.1"}, True),
        (1, "", "error: No solution found\n  cause: torch has no wheels", {}, True),
        (1, "", "error: Failed to fetch: `https://index/numpy/`", {}, False),
        (1, "", "numpy was not found in the cache\n\nhint: the network was disabled", {}, False),
        (2, "", "operation timed out", {}, False),
        (2, "", "", {}, True),
    ],
)
def test_answers_are_told_apart(
    wheels: ModuleType, returncode: int, output: str, errors: str, versions: Any, asked: bool
) -> None:
    """Wheels, no wheel, and nobody knows: an index that is silent is no missing wheel."""
    answer = wheels.judge(returncode, output, errors)
    assert (answer.versions, answer.asked) == (versions, asked)
    assert bool(answer.why_not) == (returncode != 0)


def test_table_has_a_column_for_each_platform(wheels: ModuleType) -> None:
    """Rows are packages, and everything is aligned."""
    shown = wheels.table(
        ["numpy", "picows"],
        {
            ("Linux ARM", "3.11"): {"numpy": "2.4.6", "picows": "none"},
            ("Windows", "3.12"): {"numpy": "?"},
        },
    )
    assert shown.splitlines() == [
        "        Linux ARM 3.11  Windows 3.12",
        "numpy   2.4.6           ?",
        "picows  none",
    ]
