# SPDX-License-Identifier: Apache-2.0
"""Every tick without a row has one cause, with figures."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from pi05_websocket.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidReply,
    PolicyChanged,
    PolicyError,
    RequestRefused,
)
from pi05_websocket.robot.causes import CAUSES, CauseName, Situation, find_cause

LOST = ConnectionLost("the cable is out.")
OTHER = PolicyChanged("b serves another policy.", expected="1", got="2")


def situation(**changed: Any) -> Situation:
    """Return a running arm with a request under way and nothing wrong, unless changed."""
    facts = {
        "latched": False,
        "link": None,
        "link_down_s": 0.0,
        "failure": None,
        "moved": True,
        "waited_s": 2.0,
        "age_s": 0.3,
        "expected_s": 0.2,
        "queue_s": 0.0,
        "chunk_s": 1.67,
    }
    return Situation(**{**facts, **changed})


@pytest.mark.parametrize(
    ("changed", "name", "text"),
    [
        ({"latched": True, "link": LOST}, "stopped", "a person has to"),
        # resuming alone is not what that asks for
        ({"latched": True, "link": OTHER}, "policy_changed", "b serves another policy"),
        ({"link": OTHER, "failure": LOST}, "policy_changed", "b serves another policy"),
        ({"link": LOST, "link_down_s": 3.21}, "link_down", "down for 3.2 s: the cable is out"),
        # it is opening: nothing is wrong yet
        ({"moved": False, "link": LOST, "link_down_s": 0.2}, "first_chunk", "the cable is out"),
        ({"moved": False, "link": LOST, "link_down_s": 1.2}, "link_down", "the cable is out"),
        # a stock server hangs up after an error: the error is what is wrong
        ({"failure": PolicyError("KeyError"), "link": LOST}, "server_error", "KeyError"),
        ({"failure": RequestRefused("40 wait", kind="busy")}, "server_busy", "40 wait"),
        ({"failure": RequestRefused("too often", kind="rate")}, "server_busy", "too often"),
        ({"failure": RequestRefused("in vain", kind="late")}, "reply_late", "in vain"),
        ({"failure": InvalidReply("row 3 is NaN")}, "chunk_rejected", "row 3 is NaN"),
        ({"failure": DeadlineExceeded("request", 5.0)}, "reply_late", "longer than the allowed"),
        ({"failure": LOST}, "link_down", "the cable is out"),
        ({"moved": False}, "first_chunk", "under way for 2.0 s"),
        ({}, "reply_late", "late by 0.10 s (0.20 s are usual)"),
        ({"queue_s": 0.15}, "server_busy", "waited 0.15 s in its queue"),
        ({"chunk_s": 0.33}, "horizon_too_short", "more than half of a chunk's 0.33 s"),
        ({"age_s": 0.1}, "asked_late", "under way for 0.10 s of 0.20 s"),
        ({"age_s": 0.1, "before": "link_down"}, "link_down", "after link down: a new chunk"),
        ({"age_s": None}, "asked_late", "no request"),
    ],
)
def test_causes(changed: dict[str, Any], name: str, text: str):
    """What stops everything comes first, then what went wrong last, then what is slow."""
    cause = find_cause(situation(**changed))

    assert cause.name == name
    assert text in cause.text


def test_all_names_are_listed():
    """Metrics and plots know every cause there is."""
    assert get_args(CauseName) == CAUSES
