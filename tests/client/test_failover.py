# SPDX-License-Identifier: Apache-2.0
"""Which of several servers is asked, over tables and generated histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.client.failover import Failover, FailoverSettings

BOTH = (0, 1)


def sound(*seconds: float) -> Failover:
    """Return servers that have answered six times, each in its time; the first was asked."""
    failover = Failover(len(seconds))
    for number, each in enumerate(seconds):
        for _ in range(6):
            failover.answered(number, each)
    failover.asked(0)
    return failover


def test_the_first_is_asked_first() -> None:
    """Nothing is known of any: their order decides, and without anybody there is nobody."""
    failover = Failover(2)
    assert failover.choose(BOTH) == 0
    assert failover.choose([1]) == 1
    assert failover.choose([]) is None
    assert failover.standby(BOTH, [0]) == 1
    assert failover.standby(BOTH, BOTH) is None


def test_a_sound_one_is_kept() -> None:
    """A little slower is no reason to change, much slower is."""
    assert sound(0.10, 0.06).choose(BOTH) == 0
    assert sound(0.10, 0.04).choose(BOTH) == 1
    assert sound(0.004, 0.001).choose(BOTH) == 0  # by chance, perhaps
    assert sound(0.10, 0.06).choose([1]) == 1


def test_errors_make_a_server_slower() -> None:
    """What is asked for twice takes twice as long."""
    failover = sound(0.10, 0.06)
    for _ in range(5):
        failover.late(0, now=0.0)
        failover.answered(0, 0.10)
    assert failover.standings[0].error_rate > 0.3
    assert failover.choose(BOTH) == 1


def test_two_late_answers_eject() -> None:
    """One is an accident, an answer between two begins anew."""
    failover = sound(0.1, 0.1)
    assert not failover.late(0, now=0.0)
    failover.answered(0, 0.1)
    assert not failover.late(0, now=1.0)
    assert failover.choose(BOTH) == 0
    assert failover.late(0, now=2.0)
    assert failover.choose(BOTH) == 1
    assert not failover.late(0, now=2.0)  # not news


def test_who_hangs_up_is_ejected_at_once() -> None:
    """And who is the only one is asked all the same."""
    failover = sound(0.1, 0.1)
    assert failover.lost(0, now=0.0)
    assert failover.choose(BOTH) == 1
    assert failover.choose([0]) == 0


def test_an_ejected_server_is_tried_later_and_later() -> None:
    """One copy at a time; each failed trial doubles the wait, an answer ends it."""
    failover = sound(0.1, 0.1)
    failover.lost(1, now=0.0)
    assert failover.trial(BOTH, 0, now=0.9) is None
    assert failover.trial(BOTH, 0, now=1.0) == 1
    failover.tried(1)
    assert failover.trial(BOTH, 0, now=1.0) is None
    failover.late(1, now=5.0)  # on trial once is enough
    assert failover.trial(BOTH, 0, now=6.9) is None
    assert failover.trial(BOTH, 0, now=7.0) == 1
    failover.tried(1)
    failover.answered(1, 0.3)
    assert failover.standings[1].sound
    assert failover.trial(BOTH, 0, now=9.0) is None


def test_a_newcomer_is_tried_once_somebody_is_sound() -> None:
    """Its model may have to compile: no arm waits for that."""
    failover = Failover(2)
    assert failover.trial(BOTH, 0, now=0.0) is None
    failover.answered(0, 3.0)
    assert failover.trial(BOTH, 0, now=0.0) == 1
    failover.answered(1, 2.0)
    failover.came(1)
    assert not failover.standings[1].sound
    assert failover.trial(BOTH, 0, now=0.0) == 1
    assert repr(failover) == "<Failover primary=None sound=1 of 2>"


def test_the_first_answer_says_nothing_of_the_next() -> None:
    """It took as long as the model's compiling."""
    failover = Failover(1)
    failover.answered(0, 60.0)
    failover.answered(0, 0.1)
    assert failover.standings[0].mean_s == pytest.approx(0.1)
    failover.answered(0, 0.2)
    assert failover.standings[0].mean_s == pytest.approx(0.13)


@pytest.mark.parametrize(
    ("elapsed_s", "left_s", "hedged"),
    [
        (0.05, 0.01, False),  # usual
        (0.15, 1.00, False),  # late, but there is time
        (0.15, 0.30, False),
        (0.15, 0.20, True),
        (0.15, 0.00, True),
    ],
)
def test_a_second_is_asked_when_rows_run_out(elapsed_s: float, left_s: float, hedged: bool) -> None:
    """Only when the first is later than nearly all its answers, and the second would be just in time."""
    assert sound(0.1, 0.1).hedge(0, 1, elapsed_s, left_s) is hedged


def test_late_is_what_takes_longer_than_the_servers_answers_did() -> None:
    """Of a server that has answered too seldom nobody can say it."""
    failover = sound(0.1, 0.2)
    assert [failover.is_late(number, 0.15) for number in BOTH] == [True, False]
    assert not Failover(1).is_late(0, 60.0)


def test_who_is_not_known_is_not_hedged() -> None:
    """What is late is not known before four answers; and who is not sound is no help."""
    failover = sound(0.1, 0.1)
    failover.lost(1, now=0.0)
    assert not failover.hedge(0, 1, 9.0, 0.0)
    failover = Failover(2)
    failover.answered(1, 0.1)
    assert not failover.hedge(0, 1, 9.0, 0.0)


@given(st.lists(st.booleans(), max_size=300))
def test_hedges_keep_to_their_budget(asked: list[bool]) -> None:
    """However late answers are: no more than two and one in twenty."""
    failover = sound(0.1, 0.1)
    requests = hedges = 0
    for request in asked:
        if request:
            failover.asked(0)
            requests += 1
        else:
            hedges += failover.hedge(0, 1, 9.0, 0.0)
        assert hedges <= 2 + 0.05 * (requests + 1) + 1e-6


def ask(failover: Failover, there: set[int]) -> None:
    """Ask whom it says: somebody who is there, and a sound one where there is one."""
    chosen = failover.choose(sorted(there))
    assert (chosen is None) is (not there)
    if chosen is not None:
        assert chosen in there
        if any(failover.standings[number].sound for number in there):
            assert failover.standings[chosen].sound
        failover.asked(chosen)


def try_one(failover: Failover, there: set[int], asked: int, now: float) -> None:
    """Send a copy where it says: to somebody else who is there and not sound."""
    tried = failover.trial(sorted(there), asked, now)
    if tried is not None:
        assert tried in there
        assert tried != asked
        assert not failover.standings[tried].sound
        failover.tried(tried)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "answer", "late", "lost", "came", "trial"]),
            st.integers(0, 2),
            st.floats(0.0, 10.0),
            st.sets(st.integers(0, 2)),
        ),
        max_size=60,
    )
)
def test_any_history(history: list[tuple[str, int, float, set[int]]]) -> None:
    """Who is there is asked, a sound one before all others; waits and rates stay within bounds."""
    failover, now = Failover(3), 0.0
    for what, number, seconds, there in history:
        now += seconds
        if what == "ask":
            ask(failover, there)
        elif what == "answer":
            failover.answered(number, seconds)
            assert failover.standings[number].sound
        elif what == "late":
            failover.late(number, now)
        elif what == "lost":
            failover.lost(number, now)
            assert not failover.standings[number].sound
        elif what == "came":
            failover.came(number)
        else:
            try_one(failover, there, number, now)
        for standing in failover.standings:
            assert 0.0 <= standing.error_rate <= 1.0
            assert standing.ejected_until <= now + FailoverSettings().longest_ejected_s
