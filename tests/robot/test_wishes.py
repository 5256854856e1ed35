# SPDX-License-Identifier: Apache-2.0
"""What a person is told of what they wanted."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.robot.wishes import WishName, last_word, outcome

STOPPED: dict[str, Any] = {"state": "stop", "latched": True}
RUNNING: dict[str, Any] = {"state": "run", "latched": False}
WAITING: dict[str, Any] = {"state": "wait", "latched": False}
DRY: dict[str, Any] = {"state": "dry run", "latched": False}


@pytest.mark.parametrize(
    ("name", "before", "now", "text"),
    [
        ("pause", RUNNING, STOPPED, "The arm holds, whatever comes, until `resume`."),
        ("pause", RUNNING, RUNNING, None),
        ("resume", STOPPED, RUNNING, "The arm moves."),
        ("resume", DRY, RUNNING, "The arm moves."),
        ("resume", RUNNING, RUNNING, "The arm was not stopped: it moves."),
        ("resume", STOPPED, STOPPED, None),
        ("resume", STOPPED, WAITING, None),
        ("resume", DRY, DRY, None),
        ("resume", STOPPED, DRY, "It goes on, and only shows what it would do: this is a dry run."),
        ("episode", {"episode": 1}, {"episode": 2}, "Episode 2 has begun."),
        ("episode", {"episode": 1}, {"episode": 1}, None),
        ("task", {}, {"task": "pick"}, "The task is now: pick"),
        ("task", {}, {"task": "place"}, None),
        ("quit", RUNNING, RUNNING, None),
    ],
)
def test_what_is_seen(
    name: WishName, before: dict[str, Any], now: dict[str, Any], text: str | None
) -> None:
    """A sentence once it has happened, nothing before."""
    found = outcome(name, "pick", {"ticks": 1, **before}, {"ticks": 2, "age_s": 0.0, **now})
    assert (None if found is None else found.text) == text
    assert found is None or found.granted


@pytest.mark.parametrize("stale", [{"ticks": 1, "age_s": 0.0}, {"ticks": 2, "age_s": 60.0}])
@pytest.mark.parametrize(("name", "now"), [("pause", STOPPED), ("resume", RUNNING)])
def test_nothing_is_said_of_a_loop_that_has_not_looked(
    name: WishName, now: dict[str, Any], stale: dict[str, Any]
) -> None:
    """What its status says is of before the wish."""
    assert outcome(name, "", {"ticks": 1, **now}, {**now, **stale}) is None


@pytest.mark.parametrize(
    ("name", "now", "text", "granted"),
    [
        ("pause", {"age_s": None}, "The control loop has not begun yet", False),
        ("pause", {"age_s": 7.2}, "The control loop has not looked for 7 s", False),
        ("task", {"age_s": 0.0}, "nothing of it is to be seen", False),
        ("resume", STOPPED | {"age_s": 0.0, "why": "no way"}, "It still holds: no way.", False),
        ("resume", DRY | {"age_s": 0.0}, "It is a dry run", False),
        ("resume", WAITING | {"age_s": 0.0}, "It may move, and waits for a plan", True),
        ("resume", WAITING | {"age_s": 0.0, "cause": "link_down"}, "observation: link_down.", True),
    ],
)
def test_what_is_said_in_the_end(
    name: WishName, now: dict[str, Any], text: str, granted: bool
) -> None:
    """Whether it was granted, and why not as far as is known."""
    found = last_word(name, now)
    assert text in found.text
    assert found.granted is granted
