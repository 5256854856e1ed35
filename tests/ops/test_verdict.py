# SPDX-License-Identifier: Apache-2.0
"""Whether a robot suffers and from what, in words that a person reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.ops.robot import Figures, Split
from pi05_websocket.ops.verdict import LEVELS, judge

NEAR = Split(network=8.0, queue=10.0, model=50.0, rest=1.0)


def figures(**changes: Any) -> Figures:
    """A robot without trouble: a hundred requests, all answered in time."""
    facts: dict[str, Any] = {
        "connected_s": 60.0,
        "silent_s": 0.2,
        "gap_s": 0.3,
        "total": 500,
        "asked": 100,
        "answered": 100,
        "split": NEAR,
        "due_ms": 300.0,
    }
    return Figures(**(facts | changes))


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "fine", "fine"),
        ({"split": None, "answered": 0, "asked": 0}, "fine", "fine"),
        ({"split": Split(network=180.0, queue=1.0, model=50.0, rest=0.0)}, "fine",
         "fine, though far away: network 180 ms"),
        ({"total": 0, "connected_s": 3.0, "silent_s": 3.0}, "idle", "has just come, and not asked yet"),
        ({"total": 0, "connected_s": 20.0, "silent_s": 20.0}, "warn", "has not asked in the 20 s it is here"),
        ({"silent_s": 12.0}, "warn", "silent for 12 s"),
        ({"silent_s": 12.0, "gap_s": None}, "warn", "silent for 12 s"),
        ({"silent_s": 12.0, "gap_s": 4.0}, "fine", "fine"),
        ({"silent_s": 12.0, "waiting_s": 12.0}, "bad",
         "suffers: has waited 12 s for an answer, the policy is busy, paused or stuck"),
        ({"silent_s": 12.0, "waiting_s": 2.0}, "fine", "fine"),
        ({"refused": {"rate": 12}}, "bad", "sends too often: 12 % refused, its key allows fewer a second"),
        ({"missed": 2}, "fine", "fine"),
        ({"missed": 5}, "warn", "suffers: 5 % too late; one inference takes 50 ms of 69 ms"),
        ({"missed": 38, "split": Split(network=8.0, queue=120.0, model=50.0, rest=1.0)}, "bad",
         "suffers: 38 % too late; waits 120 ms in the queue, the policy is the bottleneck"),
        ({"missed": 38, "split": Split(network=180.0, queue=20.0, model=50.0, rest=1.0)}, "bad",
         "suffers: 38 % too late; network 180 ms of 251 ms"),
        ({"missed": 38, "split": Split(network=None, queue=2.0, model=5.0, rest=40.0)}, "bad",
         "suffers: 38 % too late; encoding and sending take 40 ms, the server's processor is busy"),
        ({"refused": {"busy": 40}}, "bad", "suffers: 40 % too late; 40 refused, the policy is the bottleneck"),
        ({"refused": {"busy": 40}, "split": None}, "bad",
         "suffers: 40 % too late; 40 refused, the policy is the bottleneck"),
        ({"refused": {"busy": 40}, "split": Split(network=180.0, queue=20.0, model=50.0, rest=1.0)}, "bad",
         "suffers: 40 % too late; network 180 ms of 251 ms"),
        ({"refused": {"late": 100}, "split": None, "answered": 0}, "bad",
         "suffers: 100 % too late; its deadlines are shorter than an inference takes"),
        ({"due_ms": None, "split": Split(network=None, queue=120.0, model=50.0, rest=0.0)}, "bad",
         "suffers: waits 120 ms in the queue, the policy is the bottleneck"),
        ({"due_ms": None, "split": Split(network=None, queue=120.0, model=500.0, rest=0.0)},
         "fine", "fine"),
        ({"due_ms": None, "split": Split(network=None, queue=12.0, model=5.0, rest=0.0)}, "fine", "fine"),
        ({"due_ms": None, "split": None}, "fine", "fine"),
        ({"refused": {"superseded": 40}}, "warn",
         "asks faster than it is answered: 40 % of its observations replaced by newer ones"),
        ({"refused": {"superseded": 10}}, "fine", "fine"),
    ],
)  # fmt: skip
def test_verdicts(changes: dict[str, Any], level: str, words: str) -> None:
    """Each rule, and what is just not enough for it."""
    verdict = judge(figures(**changes))
    assert (verdict.level, verdict.words) == (level, words)


@given(
    st.floats(0, 100),
    st.none() | st.floats(0, 100),
    st.integers(0, 100),
    st.dictionaries(st.sampled_from(["busy", "late", "rate", "superseded", "new"]), st.integers(0, 100)),
    st.none() | st.builds(
        Split,
        network=st.none() | st.floats(0, 1000),
        queue=st.floats(0, 1000),
        model=st.floats(0, 1000),
        rest=st.floats(0, 1000),
    ),
)  # fmt: skip
def test_there_is_always_a_verdict(
    silent_s: float,
    waiting_s: float | None,
    missed: int,
    refused: dict[str, int],
    split: Split | None,
) -> None:
    """Of whatever figures: a level and a sentence."""
    verdict = judge(
        figures(silent_s=silent_s, waiting_s=waiting_s, missed=missed, refused=refused, split=split)
    )
    assert verdict.level in LEVELS
    assert verdict.words
