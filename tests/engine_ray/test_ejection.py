# SPDX-License-Identifier: Apache-2.0
"""Whom an ingress asks: the least busy, and for a while nobody who failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.engine_ray.ejection import Replicas


def replicas(eject_s: float = 1.0, longest_eject_s: float = 8.0) -> Replicas:
    """Without chance: in the order in which they are named."""
    return Replicas(eject_s=eject_s, longest_eject_s=longest_eject_s, shuffle=lambda names: None)


def test_the_least_busy_is_asked_first() -> None:
    """By what this ingress asked of each and has no answer to."""
    known = replicas()
    known.asked("a", 0.0)
    known.asked("a", 0.0)
    known.asked("b", 0.0)
    assert known.order("abc", 0.0) == ["c", "b", "a"]
    assert [known.unanswered(name) for name in "abc"] == [2, 1, 0]
    known.done("a")
    known.done("a")
    assert known.order("abc", 0.0) == ["a", "c", "b"]


def test_equals_are_asked_in_any_order() -> None:
    """So that ingresses which see the same do not all ask the same."""
    known = Replicas(eject_s=1.0, longest_eject_s=8.0, shuffle=lambda names: names.reverse())
    assert known.order("abc", 0.0) == ["c", "b", "a"]


def test_who_answered_before_is_first_among_equals() -> None:
    """It may remember the robot; but a busier one is not worth it."""
    known = replicas()
    assert known.order("abc", 0.0, before="c") == ["c", "a", "b"]
    known.asked("c", 0.0)
    assert known.order("abc", 0.0, before="c") == ["a", "b", "c"]


def test_who_was_tried_is_the_last_resort() -> None:
    """Even after one that is out."""
    known = replicas()
    known.asked("b", 0.0)
    known.failed("b", 0.0, 1.0)
    assert known.order("ab", 1.0, tried=["a"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("failures", "away"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (99, 8.0)]
)
def test_each_failure_in_a_row_is_a_longer_way_out(failures: int, away: float) -> None:
    """Twice as long, up to a bound."""
    known = replicas()
    now = 0.0
    for _ in range(failures):
        now += 100.0
        known.asked("a", now)
        known.failed("a", now, now + 1.0)
        known.done("a")
    now += 1.0
    assert known.order("ab", now + away - 0.01) == ["b", "a"]
    assert known.order("ab", now + away) == ["a", "b"]


def test_other_times_count_from_the_next_failure_on() -> None:
    """As a changed setting of a running ingress does."""
    known = replicas()
    known.change(eject_s=5.0, longest_eject_s=6.0)
    for failed_at in (1.0, 101.0):
        known.asked("a", failed_at - 1.0)
        known.failed("a", failed_at - 1.0, failed_at)
        known.done("a")
    assert known.order("ab", 106.9) == ["b", "a"]
    assert known.order("ab", 107.0) == ["a", "b"]


def test_requests_that_fail_together_count_once() -> None:
    """Those asked before the failure say nothing new; one asked after it does."""
    known = replicas()
    for _ in range(8):
        known.asked("a", 0.0)
    for _ in range(8):
        known.failed("a", 0.0, 1.0)
        known.done("a")
    assert known.order("ab", 2.0) == ["a", "b"]


def test_one_request_tries_who_was_out() -> None:
    """Until it is answered, or has failed, nobody else is sent there."""
    known = replicas()
    known.asked("a", 0.0)
    known.failed("a", 0.0, 1.0)
    known.done("a")
    assert known.order("ab", 2.0)[0] == "a"
    known.asked("a", 2.0)
    known.asked("b", 2.0)
    known.asked("b", 2.0)
    assert known.order("ab", 2.0)[0] == "b"
    known.failed("a", 2.0, 3.0)
    assert known.order("ab", 4.9)[0] == "b"


def test_an_answer_ends_it_however_late() -> None:
    """It was busy, not dead."""
    known = replicas()
    known.asked("a", 0.0)
    known.failed("a", 0.0, 1.0)
    known.answered("a")
    known.done("a")
    assert known.order("ab", 1.0) == ["a", "b"]
    known.asked("a", 5.0)
    known.failed("a", 5.0, 6.0)
    assert known.order("ab", 7.0)[0] == "b"  # still asked: one more request there than at b


def test_when_all_are_out_all_are_asked() -> None:
    """It is not a replica that is slow then."""
    known = replicas()
    for name in "ab":
        known.asked(name, 0.0)
        known.failed(name, 0.0, 1.0)
    assert sorted(known.order("ab", 1.0)) == ["a", "b"]


def test_who_is_gone_is_forgotten() -> None:
    """Once nothing that was asked of it is open."""
    known = replicas()
    known.asked("a", 0.0)
    known.failed("a", 0.0, 1.0)
    known.asked("b", 0.0)
    known.done("b")
    known.keep(["c"])
    known.done("b")
    known.done("a")
    assert repr(known) == "<Replicas 1 failing=['a']>"
    known.keep(["c"])
    assert repr(known) == "<Replicas 0 failing=[]>"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["asked", "answered", "failed"])),
        max_size=40,
    )
)
def test_everybody_there_is_always_in_the_order(happened: list[tuple[str, str]]) -> None:
    """Nobody twice, and nobody left out: an ejected replica is better than none."""
    known = Replicas(eject_s=1.0, longest_eject_s=8.0)
    for now, (name, what) in enumerate(happened):
        if what == "asked":
            known.asked(name, now)
        elif what == "answered":
            known.answered(name)
        else:
            known.failed(name, now - 0.5, now)
        assert sorted(known.order("abc", now, tried=["b"])) == ["a", "b", "c"]
