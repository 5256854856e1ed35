# SPDX-License-Identifier: Apache-2.0
"""Whom a gateway asks, how long it waits, whom it asks after that: single decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.gateway.balancing import (
    Balancer,
    BalanceSettings,
    Turnaround,
)

BOTH = [0, 1]


def balancer(*turnarounds: float | None, timeout_s: float = 1.0) -> Balancer:
    """Upstreams that answered twice in so many seconds; None: one that has not answered yet."""
    made = Balancer(len(turnarounds), BalanceSettings(timeout_s=timeout_s, first_timeout_s=60.0))
    for number, seconds in enumerate(turnarounds):
        made.came(number)
        if seconds is not None:
            made.answered(number, 0.0, seconds)
            made.answered(number, 0.0, seconds)
    return made


# ------------------------------------------------------------------------------------------------ turnaround


def test_the_first_turnaround_is_forgotten_once_there_is_a_second() -> None:
    """A model compiles in it."""
    turnaround = Turnaround()
    assert (turnaround.expected_s(0.0), turnaround.usual_s) == (0.0, 0.0)
    turnaround.add(0.0, 60.0)
    assert (turnaround.expected_s(0.0), turnaround.usual_s) == (60.0, 0.0)
    turnaround.add(0.0, 0.1)
    assert turnaround.usual_s == 0.1
    turnaround.add(0.0, 0.2)
    assert turnaround.usual_s == pytest.approx(0.13)
    assert repr(turnaround) == "<Turnaround 0.1300 s of 3>"


def test_a_slow_upstream_is_forgiven_with_time() -> None:
    """Who is not asked for a while is thought half as slow every ten seconds, and is tried again."""
    turnaround = Turnaround()
    turnaround.add(5.0, 0.4)
    assert turnaround.expected_s(4.0) == 0.4
    assert turnaround.expected_s(15.0) == pytest.approx(0.2)


# ---------------------------------------------------------------------------------------------- who is asked


def test_the_quickest_is_asked_and_work_under_way_counts() -> None:
    """30 ms are better than 50; with one under way they are 60."""
    two = balancer(0.03, 0.05)
    assert two.choose(BOTH, BOTH, 0.0) == 0
    two.asked(0)
    assert two.choose(BOTH, BOTH, 0.0) == 1
    two.ended(0)
    assert two.choose(BOTH, BOTH, 0.0) == 0


def test_equals_take_turns() -> None:
    """Nobody is asked again before the others."""
    three = balancer(0.03, 0.03, 0.03)
    asked = []
    for _ in range(6):
        number = three.choose([0, 1, 2], [0, 1, 2], 0.0)
        assert number is not None
        three.asked(number)
        three.ended(number)
        asked.append(number)
    assert asked == [0, 1, 2, 0, 1, 2]


def test_who_is_busy_or_not_usable_is_not_asked() -> None:
    """A sound one that has no place makes a request wait; one that is not usable does not exist."""
    two = balancer(0.03, 0.05)
    assert two.choose(BOTH, [1], 0.0) == 1
    assert two.choose(BOTH, [], 0.0) is None
    assert two.choose([1], [1], 0.0) == 1
    assert repr(two) == "<Balancer sound=2 of 2>"


def test_nobody_waits_for_one_that_has_not_answered_yet_while_another_has() -> None:
    """A cold upstream is not asked, even if the sound one is busy; without a sound one it is."""
    two = balancer(0.03, None)
    assert two.choose(BOTH, BOTH, 0.0) == 0
    assert two.choose(BOTH, [1], 0.0) is None
    assert two.choose([1], [1], 0.0) == 1


def test_a_request_is_not_sent_to_whom_it_failed_with() -> None:
    """Unless there is nobody else."""
    two = balancer(0.03, 0.05)
    assert two.choose(BOTH, BOTH, 0.0, avoid={0}) == 1
    assert two.choose(BOTH, [0], 0.0, avoid={0}) is None
    assert two.choose(BOTH, [1], 0.0, avoid={0, 1}) == 1
    assert two.choose([0], [0], 0.0, avoid={0}) == 0


def test_who_failed_is_asked_only_when_nobody_is_sound() -> None:
    """The one with fewer strikes first, and a new one before both."""
    three = balancer(0.03, 0.05, None)
    assert three.failed(0, 0.0)
    assert three.choose([0, 1], [0, 1], 0.0) == 1
    assert three.failed(1, 0.0)
    assert three.choose([0, 1], [0, 1], 0.0) == 0
    assert three.choose([0, 1, 2], [0, 1, 2], 0.0) == 2


def test_what_to_expect_is_the_quickest_sound_ones() -> None:
    """0 while nobody knows."""
    two = balancer(0.03, 0.05)
    assert two.expected_s(BOTH, 0.0) == 0.03
    two.failed(0, 0.0)
    assert two.expected_s(BOTH, 0.0) == 0.05
    assert two.expected_s([0], 0.0) == 0.0


# ------------------------------------------------------------------------------------ ejected and on trial


def test_who_failed_gets_a_copy_after_a_while_and_then_robots_again() -> None:
    """A second after the first failure; one copy at a time; an answer in time makes it sound."""
    two = balancer(0.03, 0.05)
    two.failed(0, 10.0)
    assert two.trial(BOTH, BOTH, 10.9) is None
    assert two.trial(BOTH, BOTH, 11.0) == 0
    two.tried(0)
    assert two.trial(BOTH, BOTH, 11.0) is None
    two.answered(0, 11.1, 0.1)
    assert two.standings[0].sound
    assert two.trial(BOTH, BOTH, 99.0) is None


def test_who_fails_its_trials_is_tried_less_and_less() -> None:
    """After 1, 2, 4, 8, 16 seconds, then every 30; failures under way at the same time count once."""
    two = balancer(0.03, 0.05)
    waits = []
    now = 0.0
    two.failed(0, now)
    for _ in range(7):
        two.failed(0, now)
        two.failed(0, now)
        waits.append(two.standings[0].ejected_until - now)
        now = two.standings[0].ejected_until
        two.tried(0)
        assert not two.failed(0, now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_new_one_gets_a_copy_at_once() -> None:
    """If somebody else answers the robots meanwhile."""
    two = balancer(0.03, None)
    assert two.trial(BOTH, BOTH, 0.0) == 1
    assert two.trial(BOTH, [0], 0.0) is None
    assert two.trial([1], [1], 0.0) is None


def test_a_late_reply_makes_nobody_sound_but_a_new_one() -> None:
    """It says how long it takes now; the first may take what it takes."""
    two = balancer(0.03, None)
    two.failed(0, 0.0)
    two.late(0, 2.0, 2.0)
    assert not two.standings[0].sound
    assert two.standings[0].turnaround.usual_s > 0.5
    two.failed(1, 0.0)
    two.late(1, 90.0, 90.0)
    assert two.standings[1].sound


def test_an_error_says_neither_that_it_is_well_nor_how_long_it_takes() -> None:
    """A cold one stays cold, one on trial has not passed it, and the figures stay."""
    two = balancer(0.03, None)
    assert not two.erred(1, 0.0)
    assert not two.standings[1].sound
    two.tried(1)
    two.erred(1, 5.0)
    assert (two.standings[1].strikes, two.trial(BOTH, BOTH, 5.0)) == (2, None)
    assert two.standings[1].turnaround.usual_s == 0.0
    assert not two.erred(0, 5.0)
    assert two.standings[0].sound
    assert two.standings[0].turnaround.usual_s == 0.03


def test_errors_in_a_row_are_the_upstreams_own_fault() -> None:
    """One may be the request's; an answer between them starts the count anew."""
    two = balancer(0.03, 0.30)
    assert [two.erred(0, 0.0), two.erred(0, 0.0)] == [False, False]
    two.answered(0, 0.0, 0.03)
    assert [two.erred(0, 0.0) for _ in range(3)] == [False, False, True]
    assert two.choose(BOTH, BOTH, 0.0) == 1
    assert (two.trial(BOTH, BOTH, 0.9), two.trial(BOTH, BOTH, 1.1)) == (None, 0)
    two.tried(0)
    two.answered(0, 1.2, 0.03)
    assert two.choose(BOTH, BOTH, 1.2) == 0


def test_who_comes_back_begins_anew() -> None:
    """It may be another process, with all to compile."""
    two = balancer(0.03, 0.05)
    two.failed(0, 0.0)
    two.came(0)
    assert (two.standings[0].warm, two.standings[0].strikes) == (False, 0)
    assert two.has_alternative(BOTH, 0)
    assert not two.has_alternative(BOTH, 1)


# ------------------------------------------------------------------------------------------------- patience


@pytest.mark.parametrize(
    ("turnaround", "deadline", "patience"),
    [
        (0.030, None, 1.0),  # the setting
        (0.500, None, 1.5),  # three times what it takes
        (None, None, 1.0),  # unknown
        (None, 0.1, 1.0),  # nothing can be said about a deadline then
        (0.030, 5.0, 1.0),
        (0.030, 0.300, 0.225),  # a quarter is left for another one
        (0.100, 0.500, 0.350),  # or what it takes and half as much again
        (0.030, 0.100, 0.090),  # but never less than three times what it takes
        (0.030, -1.0, 0.090),
    ],
)
def test_patience(turnaround: float | None, deadline: float | None, patience: float) -> None:
    """As long as the setting or the upstream's own habit says, less where a robot's deadline would pass."""
    assert balancer(turnaround).patience_s(0, 0.0, deadline) == pytest.approx(patience)


def test_how_long_a_copy_may_take() -> None:
    """One that has never answered may compile for a minute here."""
    two = balancer(0.03, None)
    assert [two.longest_s(number) for number in BOTH] == [1.0, 60.0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["answer", "fail", "late", "come", "error"])),
        max_size=60,
    ),
    st.sets(st.integers(0, 2)),
    st.sets(st.integers(0, 2)),
)
def test_somebody_is_asked_whenever_somebody_may_be(
    events: list[tuple[int, str]], usable: set[int], avoid: set[int]
) -> None:
    """If all that are usable are free, one of them is asked, whatever became of them before; never another."""
    three = balancer(None, None, None)
    for now, (number, what) in enumerate(events):
        if what == "answer":
            three.answered(number, now, 0.1)
        elif what == "error":
            three.erred(number, now)
        elif what == "fail":
            three.failed(number, now)
        elif what == "late":
            three.late(number, now, 3.0)
        else:
            three.came(number)
    chosen = three.choose(sorted(usable), sorted(usable), 1000.0, avoid)
    assert (chosen in usable) if usable else (chosen is None)
    if chosen is not None and usable - avoid:
        assert chosen not in avoid
    tried = three.trial(sorted(usable), sorted(usable), 1000.0)
    assert tried is None or not three.standings[tried].sound
