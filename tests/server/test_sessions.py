# SPDX-License-Identifier: Apache-2.0
"""The lines of the connections: order within, who may be taken, who is answered without the policy."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.sessions import SUPERSEDED, Sessions, Waiting
from pi05_websocket.wire.refusals import Refusal

REFUSAL = Refusal(kind="rate", text="too many")


def waiting(
    name: str, *, at: float = 0.0, ready: bool = True, typed: bool = False, answer: Any = None
) -> Waiting[str, str]:
    """A request of the connection its first letter names."""
    return Waiting(
        item=name,
        session=name[0],
        arrived=at,
        ready=ready,
        reads_refusals=typed,
        answer=answer,
    )


def lines(*requests: Waiting[str, str]) -> Sessions[str, str]:
    """Lines with these requests."""
    sessions: Sessions[str, str] = Sessions()
    for request in requests:
        sessions.push(request)
    return sessions


def names(requests: list[Waiting[str, str]]) -> list[str]:
    """What they are called."""
    return [request.item for request in requests]


def test_only_the_first_of_each_line_may_be_taken() -> None:
    """The docstring's picture: a1 is under way, so a2 waits; b1 may be taken."""
    a1, a2, b1 = waiting("a1"), waiting("a2"), waiting("b1")
    sessions = lines(a1, a2, b1)
    assert names(sessions.heads()) == ["a1", "b1"]
    sessions.take(a1)
    assert names(sessions.heads()) == ["b1"]
    assert repr(sessions) == "<Sessions requests=2 connections=2>"
    sessions.done("a")
    assert names(sessions.heads()) == ["a2", "b1"]


def test_what_is_not_decoded_may_not_be_taken() -> None:
    """Nobody knows yet whether it is an observation."""
    assert lines(waiting("a1", ready=False)).heads() == []


def test_newest_wins_among_requests_that_read_refusals() -> None:
    """What is older is answered as superseded, in its turn; the newest stays."""
    a1, a2, a3 = (waiting(name, typed=True) for name in ("a1", "a2", "a3"))
    sessions = lines(a1, a2, a3)
    sessions.supersede("a")
    assert [request.answer for request in (a1, a2, a3)] == [SUPERSEDED, SUPERSEDED, None]
    assert names(sessions.settle(["a"])) == ["a1", "a2"]
    assert names(sessions.heads()) == ["a3"]


def test_robots_that_share_a_connection_replace_nothing_of_each_other() -> None:
    """Vectorised environments: each observation is another arm's."""
    a1, a2, a3 = (waiting(name, typed=True) for name in ("a1", "a2", "a3"))
    a2.robot = 1
    sessions = lines(a1, a2, a3)
    sessions.supersede("a")
    assert [request.answer for request in (a1, a2, a3)] == [SUPERSEDED, None, None]


def test_a_superseded_request_waits_for_the_one_under_way() -> None:
    """The n-th answer belongs to the n-th request, whatever it says."""
    a1, a2, a3 = (waiting(name, typed=True) for name in ("a1", "a2", "a3"))
    sessions = lines(a1)
    sessions.take(a1)
    sessions.push(a2)
    sessions.push(a3)
    sessions.supersede("a")
    assert sessions.settle(["a"]) == []
    sessions.done("a")
    assert names(sessions.settle(["a"])) == ["a2"]


def test_who_was_taken_in_vain_stands_first_again() -> None:
    """Nobody answered it; a newer one of its robot supersedes it, and one that is gone is forgotten."""
    a1, a2, b1 = waiting("a1", typed=True), waiting("a2", typed=True), waiting("b1")
    sessions = lines(a1, b1)
    for request in (a1, b1):
        sessions.take(request)
    assert sessions.put_back(b1)
    assert names(sessions.heads()) == ["b1"]
    sessions.push(a2)
    assert sessions.put_back(a1)
    assert len(sessions) == 3
    assert names(sessions.heads()) == ["a1", "b1"]
    sessions.supersede("a")
    assert names(sessions.settle(["a"])) == ["a1"]
    sessions.take(a2)
    sessions.drop("a")
    assert not sessions.put_back(a2)


def test_stock_requests_are_never_dropped() -> None:
    """A stock client does not know the word; it pipelines and gets every answer."""
    a1, a2, a3 = waiting("a1"), waiting("a2", typed=True), waiting("a3")
    sessions = lines(a1, a2, a3)
    sessions.supersede("a")
    assert sessions.settle(["a"]) == []
    assert [request.answer for request in (a1, a2, a3)] == [None, None, None]


def test_a_bad_newer_request_supersedes_nothing() -> None:
    """One that is answered anyway is no newer observation; nor is one that is not decoded yet."""
    a1 = waiting("a1", typed=True)
    sessions = lines(
        a1, waiting("a2", typed=True, answer="failed"), waiting("a3", typed=True, ready=False)
    )
    sessions.supersede("a")
    assert a1.answer is None


def test_nobody_of_that_name() -> None:
    """A connection that is gone leaves nothing to do."""
    sessions = lines()
    sessions.supersede("a")
    sessions.done("a")
    assert (sessions.settle(["a"]), sessions.drop("a")) == ([], 0)


def test_dropping_forgets_one_connection() -> None:
    """What waits for a connection that is gone is never taken."""
    sessions = lines(waiting("a1"), waiting("b1"), waiting("a2"))
    assert sessions.drop("a") == 2
    assert names(sessions.heads()) == ["b1"]
    assert len(sessions) == 1


def test_overdue_is_the_first_that_has_waited_too_long() -> None:
    """Not the one under way, not one that is answered already."""
    a1, a2, b1 = waiting("a1"), waiting("a2"), waiting("b1", at=4.0)
    c1 = waiting("c1", answer=REFUSAL)
    sessions = lines(a1, a2, b1, c1)
    assert names(sessions.overdue(9.0, 10.0)) == []
    assert names(sessions.overdue(10.0, 10.0)) == ["a1"]
    sessions.take(a1)
    assert names(sessions.overdue(20.0, 10.0)) == ["b1"]


def test_a_robot_waits_since_it_first_asked_in_vain() -> None:
    """For fairness counts how long a robot has had nothing, not how new its observation is."""
    a1, a2, a3 = (
        waiting(name, at=at, typed=True) for name, at in (("a1", 1.0), ("a2", 2.0), ("a3", 3.0))
    )
    sessions = lines(a1, a2)
    sessions.supersede("a")
    assert names(sessions.settle(["a"])) == ["a1"]
    sessions.push(a3)
    assert [request.since for request in (a1, a2, a3)] == [1.0, 1.0, 1.0]
    sessions.take(a2)
    sessions.done("a")
    assert a3.since == 3.0
    sessions.take(a3)
    sessions.done("a")
    a4 = waiting("a4", at=9.0)
    sessions.push(a4)
    assert a4.since == 9.0


def test_newest_wins_among_those_whose_images_are_packed() -> None:
    """They give way to what has been read; what is unpacked, now or already, only to what is too."""
    a1, a2, a3 = (waiting(name, typed=True, ready=False) for name in ("a1", "a2", "a3"))
    a2.packed = a3.packed = True
    sessions = lines(a1, a2, a3)
    sessions.supersede("a")
    assert [request.answer for request in (a1, a2, a3)] == [None, SUPERSEDED, None]
    a1.ready = True
    sessions.supersede("a")
    assert a1.answer is None
    a3.packed, a3.ready = False, True
    sessions.supersede("a")
    assert [request.answer for request in (a1, a2, a3)] == [SUPERSEDED, SUPERSEDED, None]


def test_waits_are_of_those_that_wait() -> None:
    """Since they asked in vain, though a newer observation stands there by now; not who is under way alone."""
    a1, a2, b1 = waiting("a1", at=1.0, typed=True), waiting("a2", at=5.0, typed=True), waiting("b1")
    sessions = lines(a1, a2, b1)
    sessions.take(b1)
    assert sessions.waits(6.0) == [5.0]
    sessions.supersede("a")
    sessions.settle(["a"])
    assert sessions.waits(6.0) == [5.0]


def test_an_answer_without_the_policy_is_one_too() -> None:
    """A reset, a pause and a request: the robot has waited since it asked, not since the reset."""
    sessions = lines(waiting("a1", at=1.0, answer="reset"))
    assert names(sessions.settle(["a"])) == ["a1"]
    a2 = waiting("a2", at=9.0)
    sessions.push(a2)
    assert a2.since == 9.0
    a3, a4 = waiting("b3", at=1.0, answer="reset"), waiting("b4", at=2.0)
    sessions = lines(a3, a4)
    sessions.settle(["b"])
    assert a4.since == 2.0


def test_who_is_refused_has_asked_in_vain() -> None:
    """If it asks again soon; after a pause its waiting begins anew."""
    for again, since in ((4.0, 1.0), (60.0, 60.0)):
        sessions = lines(waiting("a1", at=1.0, answer=REFUSAL))
        sessions.settle(["a"])
        a2 = waiting("a2", at=again)
        sessions.push(a2)
        assert a2.since == since


def test_a_robot_that_is_being_answered_does_not_pause() -> None:
    """However long the policy takes."""
    a1, a2 = waiting("a1", at=1.0), waiting("a2", at=60.0)
    sessions = lines(a1)
    sessions.take(a1)
    sessions.push(a2)
    assert a2.since == 1.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=60))
def test_every_request_leaves_once_and_in_order(steps: list[tuple[str, bool, bool]]) -> None:
    """However requests come, are decoded, superseded and taken: each has one answer, in its line's order."""
    sessions: Sessions[str, str] = Sessions()
    pushed: dict[str, list[str]] = defaultdict(list)
    left: dict[str, list[str]] = defaultdict(list)
    for number, (session, typed, take) in enumerate(steps):
        sessions.push(waiting(f"{session}{number}", typed=typed))
        pushed[session].append(f"{session}{number}")
        sessions.supersede(session)
        for request in sessions.settle([session]):
            left[session].append(request.item)
        heads = sessions.heads()
        if take and heads:
            sessions.take(heads[0])
            left[heads[0].item[0]].append(heads[0].item)
            sessions.done(heads[0].session)
    for request in sessions.settle("abc"):
        left[request.item[0]].append(request.item)
    while heads := sessions.heads():
        sessions.take(heads[0])
        left[heads[0].item[0]].append(heads[0].item)
        sessions.done(heads[0].session)
        for request in sessions.settle("abc"):
            left[request.item[0]].append(request.item)
    assert left == pushed
    assert len(sessions) == 0
