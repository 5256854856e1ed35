# SPDX-License-Identifier: Apache-2.0
"""What the page is told."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from told import answered, opened, refused, server_state

from pi05_websocket.ops.statistics import Statistics
from pi05_websocket.ops.view import Surroundings, model_of, state_of, view
from pi05_websocket.server.records import Closed, RequestRecord, ServerState, UpstreamStanding


def around(**changes: Any) -> Surroundings:
    """A server that was started at 0."""
    facts = {"policy": "x:make", "started": 0.0, "can_act": True, "absent": "it is being loaded"}
    return Surroundings(**(facts | changes))


def a_laboratory() -> tuple[Statistics, dict[int, RequestRecord]]:
    """One robot that is fine, one that suffers, one that has failed and gone."""
    statistics = Statistics()
    statistics.take([opened(1, "fine"), opened(2, "late"), opened(3, "gone")], 90.0)
    for i in range(20):
        at = 90.0 + i / 2
        statistics.take([answered(at, 1, due_ms=500.0)], at)
        statistics.take([answered(at, 2, due_ms=50.0)], at)
    statistics.take([refused("KeyError: 'x'", 91.0, 3, "failed")], 91.0)
    statistics.take([Closed(connection=3, why="1011 KeyError: 'x'")], 91.0)
    seen = {"prompt": "pick", "top": np.zeros((9, 9, 3), np.uint8)}
    return statistics, {2: answered(99.5, 2, number=20, observation=seen, actions=[[1.0]])}


def test_whoever_suffers_comes_first() -> None:
    """With the reason in words, what it sees, and who failed and is gone."""
    statistics, newest = a_laboratory()
    shown = view(statistics, server_state(waiting=3), newest, around(lag_ms=0.4), 100.0)
    late, fine = shown["robots"]
    assert (late["who"], late["level"], fine["who"], fine["level"]) == (
        "late",
        "bad",
        "fine",
        "fine",
    )
    assert late["verdict"] == "suffers: 100 % too late; one inference takes 50 ms of 61 ms"
    assert (late["prompt"], late["images"], late["newest"], late["has_plan"]) == (
        "pick",
        ["top"],
        20,
        True,
    )
    assert (fine["images"], fine["newest"], fine["has_plan"]) == ([], None, False)
    assert late["split"] == {"network": None, "queue": 10.0, "model": 50.0, "rest": 1.0}
    (gone,) = shown["departed"]
    assert (gone["who"], gone["failed"], gone["ago_s"]) == ("gone", True, 9.0)
    assert shown["totals"]["robots"] == 2
    assert shown["server"]["waiting"] == 3
    assert shown["server"]["up_s"] == 100.0


def test_it_travels_as_json() -> None:
    """Also of a server that is not there yet."""
    statistics, newest = a_laboratory()
    said = msgspec.json.decode(msgspec.json.encode(view(statistics, None, newest, around(), 100.0)))
    assert said["server"]["state"] == "unready"
    assert said["model"] == {}
    statistics.take([refused("busy", 100.0, 1)], 100.0)
    (error,) = view(statistics, None, {}, around(), 103.0)["robots"][1]["errors"]
    assert (error["times"], error["ago_s"]) == (1, pytest.approx(3.0))


@pytest.mark.parametrize(
    ("state", "changes", "word", "why"),
    [
        (server_state(), {}, "ready", ""),
        (server_state(unready="an operator has paused it", paused=True), {}, "paused", "an operator"),
        (server_state(unready="it is being drained", draining=True), {}, "draining", "it is being"),
        (server_state(unready="256 are connected"), {}, "unready", "256 are connected"),
        (None, {}, "unready", "it is being loaded"),
        (server_state(), {"silent_s": 3.0}, "silent", "its event loop has not answered for 3.0 s"),
    ],
)  # fmt: skip
def test_states(state: ServerState | None, changes: dict[str, Any], word: str, why: str) -> None:
    """A word for the colour, a sentence for the person."""
    found, said = state_of(state, around(**changes))
    assert found == word
    assert said.startswith(why)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {"model": "", "version": "", "fingerprint": "", "action_names": []}),
        (
            {
                "policy": "pi05",
                "version": 3,
                "fingerprint": {"weights": "0123456789abcdef", "normalizer": "ff"},
                "action_names": ["pan", "lift"],
            },
            {
                "model": "pi05",
                "version": "3",
                "fingerprint": "normalizer ff, weights 0123456789ab",
                "action_names": ["pan", "lift"],
            },
        ),
        (
            {"name": [1], "fingerprint": "abc", "action_names": "pan"},
            {"model": "", "version": "", "fingerprint": "abc", "action_names": []},
        ),
    ],
)
def test_what_the_metadata_says_of_the_model(
    metadata: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Of a checkpoint, of a policy that says little, of one that says something else."""
    assert model_of(metadata) == expected


@pytest.mark.parametrize(
    ("standing", "shown"),
    [
        ({"usable": True, "sound": True, "turnaround_s": 0.05}, ("sound", "", 50.0)),
        (
            {"usable": True, "sound": False, "trouble": "ws://a:1: late"},
            ("not relied on", "late", None),
        ),
        ({"usable": False, "sound": False, "trouble": "x" * 999}, ("away", "x" * 200, None)),
    ],
)
def test_who_stands_behind_a_gateway(standing: dict[str, Any], shown: tuple[Any, ...]) -> None:
    """In a word, with the reason, bounded; and what is expected of it once it has answered."""
    state = server_state(upstreams=[UpstreamStanding(url="ws://a:1", **standing)])
    [upstream] = view(Statistics(), state, {}, around(), 100.0)["upstreams"]
    assert upstream["url"] == "ws://a:1"
    assert (upstream["word"], upstream["why"], upstream["turnaround_ms"]) == shown


def test_a_server_of_its_own_has_nobody_behind_it() -> None:
    """Nor has one that is not there."""
    assert view(Statistics(), server_state(), {}, around(), 100.0)["upstreams"] == []
    assert view(Statistics(), None, {}, around(), 100.0)["upstreams"] == []
