# SPDX-License-Identifier: Apache-2.0
"""Each mistake of the catalogue, made on purpose, is found with its verdict and a fix; nothing moves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mistakes import SEEDS, World, http

from pi05_websocket.cli import main
from pi05_websocket.cli.doctor import DoctorCommand
from pi05_websocket.cli.run import RunCommand
from pi05_websocket.cli.server_access import ServerAccess
from pi05_websocket.doctor.catalogue import MISTAKES, Mistake
from pi05_websocket.doctor.examination import examine
from pi05_websocket.server.admission import FULL
from pi05_websocket.server.operator import Operator

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "doctor.md"
SHOWN = {"refused": "refused", "look": "a person's eye", "needs dataset": "needs a data set"}


@pytest.fixture
def world() -> Iterator[World]:
    """Return a setup in which all is well; its servers stop at the end."""
    with contextlib.ExitStack() as stack:
        yield World(stack)


@pytest.mark.parametrize("name", SEEDS)
def test_is_found(name: str, world: World, tmp_path: Path) -> None:
    """With the catalogue's verdict and a line that says how to mend it; the arm is sent nothing."""
    SEEDS[name](world)
    if world.words is not None:
        written = tmp_path / "found.json"
        assert main(["doctor", *world.words, "--json", str(written)]) == 1
        found = [(f["outcome"], f["fix"], f["mistakes"]) for f in json.loads(written.read_text())]
    else:
        done = examine(
            world.setup,
            world.config(),
            world.robot(),
            seconds=0.1,
            requests=2,
            episode=world.episode,
        )
        found = [(f.outcome, f.fix, list(f.mistakes)) for f in done.findings]

    assert {o for o, fix, names in found if name in names} == {MISTAKES[name].verdict}, found
    assert all(fix for outcome, fix, _ in found if outcome != "passed")
    assert world.arm.commands == 0


def test_all_is_well(world: World) -> None:
    """Nothing is refused in the world in which the mistakes are made, and only the pictures need an eye."""
    done = examine(world.setup, world.config(), world.robot(), seconds=0.1, requests=2)

    assert [f for f in done.findings if f.outcome not in ("passed", "look")] == []
    assert [f.group for f in done.findings if f.outcome == "look"] == ["cameras"]


def test_every_promise_is_seeded() -> None:
    """The catalogue has at least 40 mistakes, each made here; at least 39 are caught before motion."""
    assert set(SEEDS) == set(MISTAKES)
    assert len(SEEDS) >= 40
    assert sum(m.verdict in ("refused", "look") for m in MISTAKES.values()) >= 39


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_a_fix_has_words_for_both_command_lines(mistake: Mistake) -> None:
    """What only LeRobot's has a flag for is said to be LeRobot's, or beside what there is without it."""
    ours = {
        field.name.replace("_", "-")
        for command in (DoctorCommand, RunCommand, ServerAccess)
        for field in dataclasses.fields(command)
    }
    theirs = re.findall(r"--policy\.(\w+)", mistake.fix)
    own = any(f"--{name}" in mistake.fix.replace("--policy.", "") for name in ours)
    named = re.search(r"with LeRobot|KeyMap\.\w+", mistake.fix)
    assert not theirs or own or named, mistake.fix


def test_the_page_is_the_table() -> None:
    """docs/reference/doctor.md lists exactly what is seeded, with the verdict that is tested."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert {row[0].strip("`"): row[2] for row in rows} == {
        name: SHOWN[MISTAKES[name].verdict] for name in SEEDS
    }
    assert all(row[3] for row in rows)


@pytest.mark.parametrize("name", ["key-missing", "key-wrong", "certificate-untrusted"])
def test_a_refusal_is_said_once_in_flags(name: str, world: World) -> None:
    """What happened, then what to do in a command line's words; nothing of Python's."""
    SEEDS[name](world)
    done = examine(world.setup, world.config(), None)
    (finding,) = (each for each in done.findings if each.mistakes == (name,))
    assert not any(
        word in finding.said for word in ("ConnectionConfig", "Give", "api_key", "ca_file")
    )
    assert "--" in finding.fix


def unready(way: str) -> str:
    """Return what our server says of why nobody comes in."""
    operator = Operator(Idle(), connections=(), metadata=dict, no_room=lambda: None)
    if way == "full":
        return FULL.text
    if way == "starting":
        return ""
    setattr(operator, way, True)
    return f"This policy server is not ready: {operator.unready}.\n"


class Idle:
    """A backend that nothing is asked of."""

    unready = None


@pytest.mark.parametrize(
    ("way", "fix"),
    [
        ("draining", "let robots in again"),
        ("paused", "let robots in again"),
        ("stopping", "start it again"),
        ("full", "until a robot has left"),
        ("starting", "loaded its model"),
    ],
)
def test_a_server_that_says_why_nobody_comes_in(way: str, fix: str, world: World) -> None:
    """The fix is for what it says; nobody is told to wait for a model that is loaded."""
    world.tcp(http("503 Service Unavailable", unready(way)))
    done = examine(world.setup, world.config(), None)
    (finding,) = (each for each in done.findings if each.mistakes == ("server-busy",))
    assert fix in finding.fix
    assert ("loaded" in finding.fix) is (way == "starting")


@pytest.mark.parametrize("name", ["cameras-exchanged", "camera-upside-down", "camera-colours"])
def test_pictures_are_what_is_sent(name: str, world: World) -> None:
    """What only a person can see is on the sheet as the policy would get it."""
    SEEDS[name](world)
    done = examine(world.setup, world.config(), world.robot(), seconds=0.1, requests=1)
    seen = world.arm.get_observation().images

    key = "observation/images/wrist2"
    assert done.origins[key] == "wrist2"
    assert abs(done.pictures[key].astype(float) - seen["wrist2"]).mean() < 15
